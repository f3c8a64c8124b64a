"""Measurements of a running job: seconds in each stage, programs compiled."""

import collections
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_FOUND_IN_CACHE = "/jax/compilation_cache/cache_hits"


class Meter:
    """Seconds spent in named stages; any thread may add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: collections.Counter[str] = collections.Counter()
        self._inside: collections.Counter[str] = collections.Counter()
        self._since: dict[str, float] = {}

    def add(self, stage: str, seconds: float) -> None:
        """Adds seconds to a stage. Threads that work at the same time each add their own."""
        with self._lock:
            self._seconds[stage] += seconds  # type: ignore[assignment]

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time that the ``with`` block takes, even if it raises."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - begin)

    @contextlib.contextmanager
    def shared_stage(self, name: str) -> Iterator[None]:
        """As ``stage``, but the same second of several threads counts once, and it counts before the block ends."""
        self._step(name, 1)
        try:
            yield
        finally:
            self._step(name, -1)

    def seconds(self) -> dict[str, float]:
        """The seconds of each stage so far."""
        for name in tuple(self._inside):
            self._step(name, 0)
        with self._lock:
            return dict(self._seconds)

    def _step(self, name: str, change: int) -> None:
        """Adds the time since the last step if a thread was inside; then changes the number of threads inside."""
        with self._lock:
            now = time.perf_counter()
            if self._inside[name]:
                self._seconds[name] += now - self._since[name]  # type: ignore[assignment]
            self._inside[name] += change
            self._since[name] = now


class Compilations(NamedTuple):
    """Programs that XLA compiled in this process.

    Attributes:
        compiled: number of programs compiled.
        cached: number of programs found in the persistent compilation cache instead.
        seconds: time that both took.
    """

    compiled: int
    cached: int
    seconds: float


class CompilationCount:
    """A context manager that counts the programs of all threads while it is open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._programs = self._cached = 0
        self._seconds = 0.0

    def __enter__(self) -> "CompilationCount":
        jax.monitoring.register_event_duration_secs_listener(self._took)
        jax.monitoring.register_event_listener(self._happened)
        return self

    def __exit__(self, *exception: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._took)
        jax.monitoring.unregister_event_listener(self._happened)

    def total(self) -> Compilations:
        """The count so far."""
        with self._lock:
            # JAX reports a program from its cache as a compilation too.
            return Compilations(self._programs - self._cached, self._cached, self._seconds)

    def _took(self, event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILED:
            with self._lock:
                self._programs += 1
                self._seconds += duration_secs

    def _happened(self, event: str, **_: Any) -> None:
        if event == _FOUND_IN_CACHE:
            with self._lock:
                self._cached += 1
