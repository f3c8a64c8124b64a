"""Ctrl-C and SIGTERM (which schedulers send to end a job) as a KeyboardInterrupt that is never lost.

Python raises KeyboardInterrupt between any two instructions of the main thread, and it can be lost. Python ignores
exceptions in ``__del__`` and in callbacks of weak references and of the garbage collector (JAX has one), and some
libraries catch every exception. While a compiled module is loaded, the exception can even crash the process.
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

_SECONDS_BETWEEN_CHECKS = 0.1
_LOADING = (ExtensionFileLoader.create_module.__code__, ExtensionFileLoader.exec_module.__code__)
_HAS_TIMER = hasattr(signal, "setitimer")  # not on Windows


class _Interrupt(KeyboardInterrupt):
    """Allows weak references, unlike KeyboardInterrupt. They tell whether the exception is still being handled."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt in the block, again and again until it ends the block.

    Outside the main thread this does nothing: there the host program handles signals. Signals that the process ignores
    stay ignored (shells let background jobs ignore SIGINT).

    Raises:
        KeyboardInterrupt: also if a library turned it into another exception.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted = False
    last: Callable[[], _Interrupt | None] = lambda: None  # noqa: E731

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted, last
        if not interrupted and _HAS_TIMER:
            signal.setitimer(signal.ITIMER_REAL, _SECONDS_BETWEEN_CHECKS, _SECONDS_BETWEEN_CHECKS)
        interrupted = True
        is_being_handled = number not in (signal.SIGINT, signal.SIGTERM) and last() is not None
        if is_being_handled or (_HAS_TIMER and _is_loading(frame)):
            return
        error = _Interrupt()
        last = weakref.ref(error)
        try:
            raise error
        finally:
            del error  # the exception refers to this frame, which would keep it alive

    with _handling(interrupt):
        try:
            yield
        except (DelfError, OSError):
            raise
        except Exception as error:
            if interrupted:
                raise KeyboardInterrupt from error
            raise


def _is_loading(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code not in _LOADING:
        frame = frame.f_back
    return frame is not None


@contextlib.contextmanager
def _handling(interrupt: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    if _HAS_TIMER:
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
        if _HAS_TIMER:
            signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = show
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
