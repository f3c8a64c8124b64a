"""Local features can be compared, kept in sets, and sent through JAX."""

import dataclasses
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from delf_jax.errors import FileFormatError
from delf_jax.features import Domain, LocalFeatures
from delf_jax.interchange.arrays import read_npz, write_npz


def features(count: int = 3) -> LocalFeatures:
    return LocalFeatures(
        keypoints=np.zeros((count, 2), np.float32),
        scales=np.ones(count, np.float32),
        scores=np.ones(count, np.float32),
        descriptors=np.ones((count, 4), np.float32),
        image_size=(10, 20),
    )


def test_equality_and_hash_go_by_identity() -> None:
    one, other = features(), features()
    assert one == one
    assert one != other
    assert hash(one) == hash(one)
    assert len({one, other}) == 2
    assert other not in [one]


def test_empty_features_have_every_field() -> None:
    empty = LocalFeatures.empty((10, 20), 4)
    assert len(empty) == 0
    for mine, theirs in zip(jax.tree.leaves(empty), jax.tree.leaves(features()), strict=True):
        assert np.asarray(mine).dtype == np.asarray(theirs).dtype
        assert np.shape(mine)[1:] == np.shape(theirs)[1:]


def test_features_are_a_pytree() -> None:
    double = jax.tree.map(lambda array: 2 * array, features())
    assert isinstance(double, LocalFeatures)
    assert (double.scores == 2).all()
    assert double.image_size == (20, 40)


def test_the_domain_of_a_part_in_its_photo() -> None:
    # A part of 400 x 300 pixels was reduced to 100 x 100; its corner is at (1000, 500) of the photo.
    part = Domain(x0=10, y0=0, x1=90, y1=100, area=6000, pixel=1)
    placed = part.placed(np.array([4, 3], np.float32), (1000, 500))
    assert placed == Domain(1040, 500, 1360, 800, 6000 * 12, np.sqrt(12))


def test_the_domain_of_a_whole_photo() -> None:
    assert Domain.whole((3000, 4000), 1000) == Domain(0, 0, 4000, 3000, 12e6, 4)
    assert Domain.whole((30, 40), 1000).pixel == 1


@pytest.mark.parametrize("wrong", [{"pixel": 0}, {"area": math.nan}, {"area": 13e6}, {"x0": 5000}], ids=str)
def test_a_file_whose_domain_is_no_place_is_refused(wrong: dict[str, float], tmp_path: Path) -> None:
    features = LocalFeatures.empty((3000, 4000), 8)
    write_npz(tmp_path / "a.npz", dataclasses.replace(features, domain=Domain.whole((3000, 4000), 1000)))
    assert read_npz(tmp_path / "a.npz").domain == Domain.whole((3000, 4000), 1000)
    domain = Domain.whole((3000, 4000), 1000)._replace(**wrong)
    write_npz(tmp_path / "a.npz", dataclasses.replace(features, domain=domain))
    with pytest.raises(FileFormatError, match="its domain is no place of a photo"):
        read_npz(tmp_path / "a.npz")
