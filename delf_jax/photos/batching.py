"""Decodes, batches, computes and reads back at the same time: the host's side of every pass over photos.

Threads decode photos ahead of the device. Photos wait in one queue for each bucket until a batch is full. A batch is
read back only after the next ones have been sent, so the device never waits for the host. Two threads run the programs:
on a CPU, each program uses the cores that the other leaves idle (``benchmarks/NOTES.md``). There, large canvases are
computed one at a time: a program holds about a kilobyte for each pixel.
"""

import collections
import concurrent.futures
import itertools
import math
import os
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding

from delf_jax.compiling import compiling_for
from delf_jax.cores import usable_cores
from delf_jax.errors import ImageError
from delf_jax.photos.buckets import Bucket, choose_bucket, pad_batch
from delf_jax.photos.load import Photo, load_photo
from delf_jax.photos.meter import Meter

Key = TypeVar("Key", bound=Hashable)

_MOST_WORKERS = 16
_DECODED_AHEAD = 4
_PROGRAMS_AT_ONCE = 2
# On a CPU, programs begin as long as the canvases of all have no more pixels.
_PIXELS_AT_ONCE = 2 * 768 * 1024


class Plan(NamedTuple):
    """How photos become batches.

    Attributes:
        buckets: the canvas sizes; one program is compiled for each.
        batch_size: photos in a batch, a multiple of the number of devices.
        max_side: longest side in pixels to which photos are reduced while they are decoded.
        sharding: how a batch is spread over the devices.
    """

    buckets: Sequence[Bucket]
    batch_size: int
    max_side: int
    sharding: NamedSharding


def run(
    program: Callable[[Any, Any, Any], Any],
    params: Any,
    items: Iterable[tuple[Key, Any]],
    plan: Plan,
    *,
    workers: int | None = None,
    meter: Meter,
) -> Iterator[tuple[Key, Photo | ImageError, Any]]:
    """Runs ``program(params, images, valid_hw)`` over a stream of photos, in threads.

    The memory holds the temporary arrays of two programs (of one on a single core, or if the canvases are large), three
    batches of input and output, and the photos decoded ahead. Contexts of JAX such as ``jax.default_matmul_precision``
    only affect the thread that enters them, not the threads of this function; use ``jax.config.update`` instead.

    Args:
        program: compiled for each bucket when its first batch is full.
        params: first argument of the program.
        items: (key, source) pairs; see ``load_photo`` for sources.
        plan: how photos become batches.
        workers: number of decoding threads; None for one per core, at most 16.
        meter: gets the seconds of ``decode``, summed over the threads, and of ``compute``, without compilation.

    Yields:
        (key, photo, the photo's row of the program's output as NumPy arrays), or (key, ImageError, None); out of order.
    """
    waiting: dict[Bucket, list[tuple[Key, Photo]]] = collections.defaultdict(list)
    batches: _Batches[Key] = _Batches(program, params, plan, meter)
    try:
        for key, photo in _decoded(items, plan, workers, meter):
            if isinstance(photo, ImageError):
                yield key, photo, None
                continue
            bucket = choose_bucket(photo.pixels.shape[0], photo.pixels.shape[1], plan.buckets)
            waiting[bucket].append((key, photo))
            if len(waiting[bucket]) == plan.batch_size:
                batches.send(bucket, waiting.pop(bucket))
            yield from batches.read_back(batches.at_once)
        for bucket in list(waiting):
            batches.send(bucket, waiting.pop(bucket))
            yield from batches.read_back(batches.at_once)
        yield from batches.read_back(0)
    finally:
        batches.close()


class _Batches(Generic[Key]):
    """The batches on the device: sent, computed in threads, and read back in the order in which they were sent.

    Attributes:
        at_once: number of programs that are computed at the same time.
    """

    def __init__(self, program: Callable[[Any, Any, Any], Any], params: Any, plan: Plan, meter: Meter) -> None:
        self.at_once = _programs_at_once(plan)
        self._program = program
        self._params = params
        self._plan = plan
        self._meter = meter
        self._compiled: set[Bucket] = set()
        self._on_cpu = _is_cpu(plan)
        self._room = _Room(_PIXELS_AT_ONCE if self._on_cpu else math.inf)
        self._threads = concurrent.futures.ThreadPoolExecutor(self.at_once, thread_name_prefix="batch")
        self._in_flight: collections.deque[tuple[list[tuple[Key, Photo]], concurrent.futures.Future[Any]]] = (
            collections.deque()
        )

    def send(self, bucket: Bucket, photos: list[tuple[Key, Photo]]) -> None:
        """Puts a batch on the device, whose program starts as soon as a thread is free."""
        images, valid_hw = pad_batch([photo.pixels for _, photo in photos], bucket, self._plan.batch_size)
        arrays = jax.device_put((images, valid_hw), self._plan.sharding)
        pixels = images.shape[0] * bucket[0] * bucket[1]
        if bucket in self._compiled:
            output = self._threads.submit(self._begun, lambda: self._program(self._params, *arrays), pixels)
        else:
            # Compiled in this thread, so that it is compiled once and not counted as computing. Then it runs, so on a
            # CPU those before it must have left their room. An accelerator computes them meanwhile.
            if self._on_cpu:
                concurrent.futures.wait([output for _, output in self._in_flight])
            self._room.enter(pixels)
            with compiling_for(f"{bucket[0]}x{bucket[1]}"):
                first = self._program(self._params, *arrays)
            output = self._threads.submit(self._computed, lambda: first, pixels)
            self._compiled.add(bucket)
        self._in_flight.append((photos, output))

    def read_back(self, most: int) -> Iterator[tuple[Key, Photo, Any]]:
        """(key, photo, row of the output) of the oldest batches, until ``most`` batches are left on the device."""
        while len(self._in_flight) > most:
            photos, output = self._in_flight.popleft()
            try:
                host = jax.tree.map(np.asarray, jax.device_get(output.result()))
            finally:
                del output  # an exception in it would keep this frame and its batch in memory
            for row, (key, photo) in enumerate(photos):
                yield key, photo, jax.tree.map(lambda array, row=row: array[row], host)

    def close(self) -> None:
        """Ends the threads, without waiting for a program that still runs."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _begun(self, start: Callable[[], Any], pixels: int) -> Any:
        self._room.enter(pixels)
        return self._computed(start, pixels)

    def _computed(self, start: Callable[[], Any], pixels: int) -> Any:
        try:
            with self._meter.shared_stage("compute"):
                return jax.block_until_ready(start())
        finally:
            self._room.leave(pixels)


class _Room:
    """Programs enter as long as the canvases of all have at most so many pixels; one may enter in any case."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._inside = 0
        self._changed = threading.Condition()

    def enter(self, pixels: int) -> None:
        """Waits until there is room."""
        with self._changed:
            self._changed.wait_for(lambda: not self._inside or self._inside + pixels <= self._most)
            self._inside += pixels

    def leave(self, pixels: int) -> None:
        """Lets others in."""
        with self._changed:
            self._inside -= pixels
            self._changed.notify_all()


def _programs_at_once(plan: Plan) -> int:
    """Two; on a CPU at most one per core, whose number XLA reads from ``NPROC`` if that is set."""
    if not _is_cpu(plan):
        return _PROGRAMS_AT_ONCE
    given = os.environ.get("NPROC", "")
    cores = int(given) if given.isdecimal() else usable_cores()
    return max(1, min(_PROGRAMS_AT_ONCE, cores))


def _is_cpu(plan: Plan) -> bool:
    platform: str = plan.sharding.mesh.devices.flat[0].platform
    return platform == "cpu"


def _decoded(
    items: Iterable[tuple[Key, Any]], plan: Plan, workers: int | None, meter: Meter
) -> Iterator[tuple[Key, Photo | ImageError]]:
    """Photos in input order; threads decode a limited number of photos ahead."""
    workers = workers or min(_MOST_WORKERS, usable_cores())
    ahead = plan.batch_size + _DECODED_AHEAD * workers
    iterator = iter(items)

    def decode(source: Any) -> Photo | ImageError:
        with meter.stage("decode"):
            try:
                return load_photo(source, max_side=plan.max_side)
            except ImageError as error:
                return error

    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        queue = collections.deque(
            (key, pool.submit(decode, source)) for key, source in itertools.islice(iterator, ahead)
        )
        while queue:
            key, future = queue.popleft()
            yield key, future.result()
            queue.extend((key, pool.submit(decode, source)) for key, source in itertools.islice(iterator, 1))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
