"""What a job measures of itself while it runs: seconds a stage, the device's busy time, programs compiled."""

import collections
import concurrent.futures
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

    def seconds(self) -> dict[str, float]:
        """What was added up so far."""
        with self._lock:
            return dict(self._seconds)


class DeviceWatch:
    """Adds the time in which the devices had a batch to compute to the meter's stage ``compute``.

    A thread waits for one output after another, so that the end of a batch is seen when it comes and not when the host
    looks next. Batches overlap in the queue but not on the device: each counts from its sending or from the end of the
    one before it, whichever is later. Use as a context manager.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="device watch")
        self._last_end = 0.0

    def __enter__(self) -> "DeviceWatch":
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def sent(self, output: Any, at: float) -> None:
        """Notes a batch sent at ``at`` (of ``time.perf_counter``), whose program gives ``output``."""
        self._thread.submit(self._wait, output, at)

    def _wait(self, output: Any, at: float) -> None:
        # An output that failed is told to who reads it.
        with contextlib.suppress(Exception):
            jax.block_until_ready(output)
        end = time.perf_counter()
        self._meter.add("compute", end - max(at, self._last_end))
        self._last_end = end


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
