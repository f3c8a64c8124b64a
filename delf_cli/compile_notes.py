"""Says on stderr which program is being compiled, and removes compiled programs that JAX cannot load."""

import functools
import logging
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from delf_cli import streams
from delf_jax.compiling import purpose

# Programs that take less are compiled in silence.
_SECONDS = 1.0
_SECONDS_TO_WRITE = 60.0
_FINISHED = "/jax/core/compile/backend_compile_duration"
_NOT_FOUND = "PERSISTENT COMPILATION CACHE MISS"


@functools.cache
def listen(folder: Path) -> None:
    """Listens to JAX's compiler until the process ends; ``folder`` is where it keeps compiled programs."""
    import jax

    notes = _CompileNotes(folder)
    logger = logging.getLogger("jax._src.compiler")
    logger.setLevel(logging.DEBUG)
    logger.addFilter(notes.take)
    jax.monitoring.register_event_duration_secs_listener(notes.event)
    # ``_remove_rejected`` says it.
    warnings.filterwarnings("ignore", message="Error reading persistent compilation cache entry")


class _CompileNotes:
    """A line for each program that takes longer than a second, and one for all programs that JAX rejects."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._timers: dict[int, threading.Timer] = {}
        self._has_rejected = False

    def take(self, record: logging.LogRecord) -> bool:
        """Takes note of a program that JAX is about to compile. A filter, which lets pass what JAX logs by itself."""
        if str(record.msg).startswith(_NOT_FOUND) and isinstance(record.args, tuple):
            module, key = map(str, record.args)
            self._remove_rejected(self._folder / f"{key}-cache")
            name = module.removeprefix("jit_").strip("_").replace("_", " ")
            line = f"compiling {f'for {purpose()}' if purpose() else name}, once"
            timer = threading.Timer(_SECONDS, streams.say, [line])
            timer.daemon = True
            timer.start()
            self._timers[threading.get_ident()] = timer
        return record.levelno >= logging.WARNING

    def event(self, event: str, duration_secs: float, **_: Any) -> None:
        """Takes note that this thread has a program, compiled or loaded."""
        if event == _FINISHED and (timer := self._timers.pop(threading.get_ident(), None)):
            timer.cancel()

    def _remove_rejected(self, entry: Path) -> None:
        """Removes a program that is there but was not loaded: JAX would compile it in every run and not replace it."""
        try:
            if time.time() - entry.stat().st_mtime < _SECONDS_TO_WRITE:  # another process writes it just now
                return
            entry.unlink()
        except OSError:  # nearly always it is not there
            return
        if not self._has_rejected:
            self._has_rejected = True
            streams.say(
                f"{self._folder}: programs there are damaged or made for another processor; they are compiled again"
            )
