"""Keys are remembered as a set remembers them, in a fraction of its memory."""

import tracemalloc

import numpy as np
import pytest

from delf_jax.photos.key_set import KeySet


@pytest.mark.parametrize("merge_at", [1, 64])
def test_it_answers_as_a_set_does(merge_at: int) -> None:
    rng = np.random.default_rng(0)
    keys = [0, 2**64 - 1, *rng.integers(0, 500, 1000).tolist(), *rng.integers(0, 2**64, 100, np.uint64).tolist(), 0]
    kept, known = KeySet(merge_at=merge_at), set()
    for key in keys:
        assert kept.add(key) is (key not in known)
        known.add(key)


def test_a_key_takes_eight_bytes() -> None:
    keys = np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64).tolist()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = KeySet(merge_at=1000)
        for key in keys:
            kept.add(key)
        assert tracemalloc.get_traced_memory()[0] - before < 20_000 * 8 + 10_000
    finally:
        tracemalloc.stop()


def test_copying_grows_as_the_keys_do(monkeypatch: pytest.MonkeyPatch) -> None:
    copied, insert = [], np.insert
    monkeypatch.setattr(np, "insert", lambda keys, *new: copied.append(len(keys)) or insert(keys, *new))
    kept = KeySet(merge_at=1)
    for key in range(10_000):
        kept.add(key)
    assert sum(copied) < 65 * 10_000
