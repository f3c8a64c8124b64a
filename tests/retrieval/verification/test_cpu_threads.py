"""Rows computed in threads are the rows of the whole batch, whatever their number; LAPACK runs in one thread."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval.verification import cpu_threads


@jax.jit
def doubled(batch):
    return {"sum": batch["x"].sum(axis=1), "twice": 2 * batch["y"]}


@pytest.mark.parametrize(
    ("rows", "cores", "expected"), [(31, 3, 1), (32, 3, 2), (33, 3, 2), (50, 3, 3), (100, 3, 3), (641, 40, 38)]
)
def test_threads_change_nothing(rows: int, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_threads, "usable_cores", lambda: cores)
    sizes = []

    def program(part):
        sizes.append(len(part["y"]))
        return doubled(part)

    batch = {"x": np.arange(rows * 4, dtype=np.float32).reshape(rows, 4), "y": np.arange(rows)}
    found = cpu_threads.map_rows_in_threads(program, batch, static=rows)
    assert sizes == [-(-rows // expected)] * expected
    np.testing.assert_array_equal(found["sum"], batch["x"].sum(axis=1))
    np.testing.assert_array_equal(found["twice"], 2 * batch["y"])


def test_arrays_of_jax_and_traced_functions_are_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_threads, "usable_cores", lambda: 3)
    batch = {"x": jnp.ones((64, 4)), "y": jnp.arange(64)}
    assert isinstance(cpu_threads.map_rows_in_threads(doubled, batch, static=0)["sum"], jax.Array)
    traced = jax.jit(lambda batch: cpu_threads.map_rows_in_threads(doubled, batch, static=0)["sum"])(batch)
    np.testing.assert_array_equal(traced, np.full(64, 4.0))
    # NumPy arrays that a traced function closes over are not divided either.
    constants = {"x": np.ones((64, 4), np.float32), "y": np.arange(64)}
    traced = jax.jit(lambda: cpu_threads.map_rows_in_threads(doubled, constants, static=0)["sum"])()
    np.testing.assert_array_equal(traced, np.full(64, 4.0))


def test_programs_with_lapack_wait_for_each_other() -> None:
    inside, most = [], []

    def program(batch):
        inside.append(batch)
        time.sleep(0.05)
        most.append(len(inside))
        inside.remove(batch)
        return batch

    threads = [threading.Thread(target=cpu_threads.with_lapack_lock, args=(program, number)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
