"""Feature maps from arrays and files."""

from pathlib import Path

import numpy as np
import pytest

from delf_jax.errors import ImageError
from localization.encoders.map_encoder import is_map, read_map


def test_maps_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="save a float array"):
        read_map(np.zeros((3, 3)))
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object))
    with pytest.raises(ImageError, match=r"not a readable \.npy"):
        read_map(tmp_path / "objects.npy")
    for broken in (np.zeros((0, 3, 4)), np.full((2, 3, 4), np.nan)):
        with pytest.raises(ImageError, match="compute it again"):
            read_map(broken)


def test_maps_and_photos_are_told_apart() -> None:
    photo, dense = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float32)
    assert [is_map(source) for source in (dense, (dense, (8, 8)), Path("a.npy"))] == [True] * 3
    assert [is_map(source) for source in (photo, "a.jpg", b"bytes")] == [False] * 3
