"""Batches are computed two at once, each program compiled once, and every photo comes back."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from delf_jax.photos import batching
from delf_jax.photos.buckets import default_buckets
from delf_jax.photos.meter import Meter

PHOTOS = [np.full((20, 20, 3), number, np.uint8) for number in range(9)]


def run(
    program: Any, photos: list[np.ndarray] = PHOTOS, *, batch_size: int = 1, meter: Meter | None = None
) -> Iterator[Any]:
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    plan = batching.Plan(default_buckets(64), batch_size, 64, NamedSharding(mesh, P("batch")))
    return batching.run(program, None, enumerate(photos), plan, workers=2, meter=meter or Meter())


def brightest(params: None, images: jax.Array, valid_hw: jax.Array) -> np.ndarray:
    return np.asarray(images).max(axis=(1, 2, 3))


def test_two_programs_are_computed_at_once_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPROC", "2")
    both = threading.Barrier(2, timeout=60)
    threads: list[str] = []

    def program(params: None, images: jax.Array, valid_hw: jax.Array) -> np.ndarray:
        threads.append(threading.current_thread().name)
        if len(threads) > 1:  # the others come in pairs
            both.wait()
        return brightest(params, images, valid_hw)

    assert sorted((key, int(row)) for key, _, row in run(program)) == [(number, number) for number in range(9)]
    assert threads[0] == threading.current_thread().name
    assert len(set(threads)) == 3


@pytest.mark.parametrize("batch_size", [2, 4, 16])
def test_photos_of_a_batch_that_is_not_full_come_back_too(batch_size: int) -> None:
    meter = Meter()
    found = {
        key: (int(row), photo.pixels[0, 0, 0]) for key, photo, row in run(brightest, batch_size=batch_size, meter=meter)
    }
    assert found == {number: (number, number) for number in range(9)}
    assert set(meter.seconds()) == {"decode", "compute"}


@pytest.mark.parametrize("broken", [0, 5])
def test_what_a_program_raises_reaches_the_reader(broken: int) -> None:
    def program(params: None, images: jax.Array, valid_hw: jax.Array) -> np.ndarray:
        if np.asarray(images).max() == broken:
            raise RuntimeError("RESOURCE_EXHAUSTED")
        return brightest(params, images, valid_hw)

    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        list(run(program))


def test_a_reader_who_leaves_early_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    photos = run(brightest)
    next(photos)
    photos.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_time_of_computing_is_told_while_programs_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPROC", "1")  # or two threads might note their times in another order
    meter = Meter()
    told = []

    def program(params: None, images: jax.Array, valid_hw: jax.Array) -> np.ndarray:
        told.append(meter.seconds().get("compute", 0.0))
        return brightest(params, images, valid_hw)

    assert len(list(run(program, meter=meter))) == 9
    assert told == sorted(told)
    assert told[-1] > 0


def test_a_jitted_program_is_compiled_once_a_canvas() -> None:
    traced = []

    @jax.jit
    def program(params: None, images: jax.Array, valid_hw: jax.Array) -> jax.Array:
        traced.append(images.shape)
        return images.max(axis=(1, 2, 3))

    assert {key: int(row) for key, _, row in run(program)} == {number: number for number in range(9)}
    assert len(traced) == 1


def test_one_core_computes_one_program_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPROC", "1")
    threads: set[str] = set()

    def program(params: None, images: jax.Array, valid_hw: jax.Array) -> np.ndarray:
        threads.add(threading.current_thread().name)
        return brightest(params, images, valid_hw)

    assert len(list(run(program))) == 9
    assert len(threads - {threading.current_thread().name}) == 1


@pytest.mark.parametrize("cores", ["1", "2"])
def test_large_canvases_are_computed_alone_on_a_cpu(cores: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPROC", cores)
    monkeypatch.setattr(batching, "_PIXELS_AT_ONCE", 2 * 32 * 32 - 1)  # the canvas of these photos is 32x32
    inside, most = [], []

    def program(params: None, images: jax.Array, valid_hw: jax.Array) -> np.ndarray:
        inside.append(images)
        time.sleep(0.01)
        most.append(len(inside))
        inside.pop()
        return brightest(params, images, valid_hw)

    assert sorted(int(row) for _, _, row in run(program)) == list(range(9))
    assert most == [1] * 9


@pytest.mark.parametrize("cpu", [True, False])
def test_only_a_cpu_computes_nothing_while_a_program_is_compiled(cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPROC", "2")
    monkeypatch.setattr(batching, "_is_cpu", lambda plan: cpu)
    other_size = threading.Event()
    met = []

    def program(params: None, images: jax.Array, valid_hw: jax.Array) -> np.ndarray:
        if images.shape[1:3] != (32, 32):
            other_size.set()
        elif threading.current_thread() is not threading.main_thread():
            met.append(other_size.wait(timeout=0.2 if cpu else 60))
        return brightest(params, images, valid_hw)

    small = np.zeros((20, 20, 3), np.uint8)
    assert len(list(run(program, [small, small, np.zeros((60, 60, 3), np.uint8)]))) == 3
    assert met == [not cpu]
