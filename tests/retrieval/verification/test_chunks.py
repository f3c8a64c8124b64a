"""A batch in chunks gives the rows of the whole batch, with one program; programs with LAPACK wait for each other."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval.verification import chunks


@jax.jit
def doubled(batch, count):
    return {"sum": batch["x"].sum(axis=1), "twice": jnp.where(jnp.arange(len(batch["y"])) < count, 2 * batch["y"], -1)}


@pytest.mark.parametrize(
    ("rows", "cores", "sizes"),
    [
        (1, 3, [1]),
        (15, 3, [15]),
        (16, 3, [8, 8]),
        (20, 1, [20]),
        (33, 3, [11, 11, 11]),
        (40, 1, [20, 20]),
        (41, 1, [14, 14, 13]),
    ],
)
def test_chunks_change_nothing(rows: int, cores: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "usable_cores", lambda: cores)
    seen = []

    def program(batch, count):
        seen.append((len(batch["y"]), int(count)))
        return doubled(batch, count)

    batch = {"x": np.arange(rows * 4, dtype=np.float32).reshape(rows, 4), "y": np.arange(rows)}
    found = chunks.map_chunks(program, batch, rows=20, static=rows)
    assert sorted(seen, reverse=True) == [(20, size) for size in sizes]
    np.testing.assert_array_equal(found["sum"], batch["x"].sum(axis=1))
    np.testing.assert_array_equal(found["twice"], 2 * batch["y"])


def test_one_program_computes_batches_of_all_lengths() -> None:
    program = jax.jit(lambda x, count: -x)
    for rows in (1, 2, 19, 20, 21, 200):
        found = chunks.map_chunks(program, np.arange(rows), rows=20)
        np.testing.assert_array_equal(found, -np.arange(rows))
    assert program._cache_size() == 1


def test_programs_with_lapack_wait_for_each_other() -> None:
    inside, most = [], []

    def program(batch, count):
        inside.append(batch)
        time.sleep(0.05)
        most.append(len(inside))
        inside.pop()
        return batch

    def call(number: int) -> None:
        chunks.map_chunks(program, np.full(50, number), rows=20, static=number, uses_lapack=True)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 9
