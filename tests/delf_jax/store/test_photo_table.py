"""The table of known photos agrees with a dict, before and after it packs its rows."""

import numpy as np
import pytest

from delf_jax.store.photo_table import KnownPhoto, PhotoTable


@pytest.mark.parametrize("merge_at", [1, 7])
def test_the_last_one_added_counts(merge_at: int) -> None:
    random = np.random.default_rng(0)
    table, expected = PhotoTable(merge_at=merge_at), {}
    for step in range(200):
        path = f"/photos/{random.integers(60)} é.jpg"
        known = KnownPhoto.of(step, 2**62 + step, f"{step:016x}" + "f" * 48, step % 5, step)
        table.add(path, known)
        expected[path] = known
        probe = f"/photos/{random.integers(80)} é.jpg"
        assert table.get(probe) == expected.get(probe)
    assert all(table.get(path) == known for path, known in expected.items())


def test_content_is_compared_by_its_hash() -> None:
    known = KnownPhoto.of(1, 2, "f" * 64, 0, 0)
    assert known.has_content("f" * 64)
    assert not known.has_content("e" + "f" * 63)
