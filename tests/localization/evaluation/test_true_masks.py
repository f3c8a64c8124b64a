"""Masks against pycocotools and by hand."""

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from delf_jax.errors import DelfError
from localization.evaluation.true_masks import coco_mask, grey_mask, polygon_mask, run_length_mask, voc_mask

SIZE = (60, 80)


def blob(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.random((12, 16)) < 0.4
    return np.kron(coarse, np.ones((5, 5), bool))


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_are_those_of_pycocotools(seed: int) -> None:
    mask = blob(seed)
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    np.testing.assert_array_equal(run_length_mask(encoded["counts"], SIZE), mask)
    np.testing.assert_array_equal(run_length_mask(encoded["counts"].decode(), SIZE), mask)
    columns = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(columns)) + 1
    plain = np.diff([0, *changes, len(columns)]).tolist()
    np.testing.assert_array_equal(run_length_mask([0, *plain] if columns[0] else plain, SIZE), mask)


def test_damaged_run_lengths() -> None:
    with pytest.raises(DelfError, match="run lengths of 5 pixels for a photo of 80 x 60"):
        run_length_mask([2, 3], SIZE)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools with NumPy 2
def test_polygons_cover_what_pycocotools_covers() -> None:
    rng = np.random.default_rng(0)
    angles = np.sort(rng.random(9) * 2 * np.pi)
    star = np.stack([40 + 30 * np.cos(angles), 30 + 25 * np.sin(angles)], axis=1).reshape(-1).tolist()
    square = [2.0, 3.0, 12.0, 3.0, 12.0, 9.0, 2.0, 9.0]
    ours = polygon_mask([star, square], SIZE)
    theirs = coco.decode(coco.merge(coco.frPyObjects([star, square], *SIZE))).astype(bool)
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.95
    assert not polygon_mask([[1.0, 1.0, 5.0, 5.0]], SIZE).any()  # two corners


@pytest.mark.parametrize("far", [1e30, float("nan"), -81.0, 161.0])
def test_outlines_that_lead_far_out_of_the_photo(far: float) -> None:
    with pytest.raises(DelfError, match="far out of its photo"):
        polygon_mask([[1.0, 1.0, far, 1.0, 4.0, 4.0]], SIZE)


def test_crowds_are_ignored_where_no_object_is() -> None:
    crowd = {"iscrowd": 1, "segmentation": {"size": [4, 4], "counts": [0, 8, 8]}}
    single = {"iscrowd": 0, "segmentation": {"size": [4, 4], "counts": [4, 8, 4]}}
    np.testing.assert_array_equal(coco_mask([single, crowd], (4, 4))[0], [255, 1, 1, 0])


def test_pictures() -> None:
    indexed = Image.new("P", (4, 1))
    indexed.putdata([0, 1, 20, 255])
    indexed.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    np.testing.assert_array_equal(voc_mask(indexed), [[0, 1, 1, 255]])
    votes = Image.fromarray(np.array([[0, 51, 102, 153, 255]], np.uint8))
    np.testing.assert_array_equal(grey_mask(votes), [[0, 0, 0, 1, 1]])
