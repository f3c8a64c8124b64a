"""What a job measures of itself while it runs: seconds a stage, programs compiled."""

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
        """Adds to a stage. Threads that work at the same time each add their own seconds."""
        with self._lock:
            self._seconds[stage] += seconds  # type: ignore[assignment]

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time that the block takes, also when it raises."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - begin)

    @contextlib.contextmanager
    def shared_stage(self, name: str) -> Iterator[None]:
        """As ``stage``, but threads that are inside at once count once, and their time counts while it passes."""
        self._step(name, 1)
        try:
            yield
        finally:
            self._step(name, -1)

    def seconds(self) -> dict[str, float]:
        """What was added up so far."""
        for name in tuple(self._inside):
            self._step(name, 0)
        with self._lock:
            return dict(self._seconds)

    def _step(self, name: str, change: int) -> None:
        """Counts the time since the last step where anybody was inside; then so many more are."""
        with self._lock:
            now = time.perf_counter()
            if self._inside[name]:
                self._seconds[name] += now - self._since[name]  # type: ignore[assignment]
            self._inside[name] += change
            self._since[name] = now


class Compilations(NamedTuple):
    """Programs that XLA made in this process.

    Attributes:
        compiled: programs compiled anew.
        cached: programs found in the persistent compilation cache instead.
        seconds: that both took.
    """

    compiled: int
    cached: int
    seconds: float


class CompilationCount:
    """Counts the programs of all threads while it is open; a context manager."""

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
        """So far."""
        with self._lock:
            # JAX times a program from its cache as a compilation too.
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
