"""Ctrl-C, and SIGTERM with which schedulers end jobs: a KeyboardInterrupt that does not get lost.

Python raises it between any two instructions of the main thread. In ``__del__`` and in callbacks of weak references and
of the garbage collector, where JAX has one, it ends nothing; some libraries catch whatever is raised in them; and
compiled modules that are just being loaded crash.
"""

import contextlib
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from importlib.machinery import ExtensionFileLoader
from types import FrameType
from typing import Any

from delf_jax.errors import DelfError

_SECONDS_BETWEEN_LOOKS = 0.1
_LOADING = (ExtensionFileLoader.create_module.__code__, ExtensionFileLoader.exec_module.__code__)
_CAN_LOOK_AGAIN = hasattr(signal, "setitimer")  # not on Windows


class _Asked(KeyboardInterrupt):
    """Knows weak references, which tell whether it is still on its way."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt in the block, and raise it again if it went under without ending it.

    Outside the main thread nothing changes: there the host program handles signals. A signal that the process was told
    to ignore, as shells tell jobs in the background, stays ignored.

    Raises:
        KeyboardInterrupt: also in the place of errors that libraries make of one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False
    last: Callable[[], _Asked | None] = lambda: None  # noqa: E731

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked, last
        if not asked and _CAN_LOOK_AGAIN:
            signal.setitimer(signal.ITIMER_REAL, _SECONDS_BETWEEN_LOOKS, _SECONDS_BETWEEN_LOOKS)
        asked = True
        on_its_way = number not in (signal.SIGINT, signal.SIGTERM) and last() is not None
        if on_its_way or (_CAN_LOOK_AGAIN and _is_loading(frame)):
            return
        error = _Asked()
        last = weakref.ref(error)
        try:
            raise error
        finally:
            del error  # or this frame, which the error knows, would keep it

    with _handling(interrupt):
        try:
            yield
        except (DelfError, OSError):
            raise
        except Exception as error:
            if asked:
                raise KeyboardInterrupt from error
            raise


def _is_loading(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code not in _LOADING:
        frame = frame.f_back
    return frame is not None


@contextlib.contextmanager
def _handling(interrupt: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    if _CAN_LOOK_AGAIN:
        numbers.append(signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    show = sys.unraisablehook

    def show_others(ignored: Any) -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            show(ignored)

    try:
        for number in numbers:
            signal.signal(number, interrupt)
        sys.unraisablehook = show_others
        yield
    finally:
        if _CAN_LOOK_AGAIN:
            signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = show
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
