"""Boxes and masks of hand-drawn maps."""

from pathlib import Path

import numpy as np
import pytest

from delf_jax.photos.load import load_photo
from localization.maps.boxes import Box, best_box, find_regions, largest_boxes, rescale_box, threshold_map
from localization.maps.grabcut import refine_mask


def drawn() -> np.ndarray:
    activation = np.zeros((40, 60), np.float32)
    activation[5:15, 10:30] = 0.6
    activation[8:12, 14:20] = 0  # a hole
    activation[20:36, 40:50] = 1.0
    activation[38, 2] = 0.9  # a speck
    return activation


def test_threshold_is_the_official_one() -> None:
    activation = np.array([[0.0, 0.1, 0.5, 0.8]], np.float32)
    # 8 bits: 0, 25, 127, 204; int(.125 * 204) = 25, and 25 is not above it
    assert threshold_map(activation, 0.125).tolist() == [[0, 0, 255, 255]]
    assert threshold_map(activation, 0.12).tolist() == [[0, 255, 255, 255]]


def test_boxes_are_edges_and_highest_score_first() -> None:
    regions = find_regions(drawn(), 0.1, cosines=(0.4, 0.5))
    assert [r.box[:4] for r in regions] == [(10, 5, 30, 15), (40, 20, 50, 36), (2, 38, 3, 39)]
    # 20 * 10 - 6 * 4 pixels of cosine .4 + .6 * .1, 160 of .5 and one of .4 + .9 * .1, of 2400
    assert [r.box.score for r in regions] == pytest.approx([176 * 0.46 / 2400, 160 * 0.5 / 2400, 0.49 / 2400])
    assert len(find_regions(drawn(), 0.1, minimum_area=0.01)) == 2


def test_a_smaller_but_stronger_region_comes_first() -> None:
    regions = find_regions(drawn(), 0.1)
    assert [r.box[:4] for r in regions[:2]] == [(40, 20, 50, 36), (10, 5, 30, 15)]
    assert best_box(drawn(), 0.1) == regions[0].box
    assert largest_boxes(drawn(), [0.1, 0.7]) == [(10, 5, 30, 15), (40, 20, 50, 36)]  # the official code's


def test_nothing_above_the_threshold() -> None:
    assert largest_boxes(np.zeros((4, 4), np.float32), [0.1]) == [None]
    assert best_box(np.zeros((4, 4), np.float32), 0.1) is None
    assert find_regions(np.zeros((4, 4), np.float32), 0.1, minimum_area=0.5) == []


def test_masks_leave_holes_out() -> None:
    mask = find_regions(drawn(), 0.1, cosines=(0.4, 0.5))[0].mask
    assert mask.sum() == 10 * 20 - 4 * 6
    assert not mask[9, 15]
    assert not mask[25, 45]


def test_whole_photos_stay_whole() -> None:
    assert rescale_box(Box(0, 0, 60, 40, 1.0), (40, 60), (400, 300)) == Box(0, 0, 300, 400, 1.0)


def test_refinement_moves_a_coarse_mask_to_the_edges(demo_photos: Path) -> None:
    pixels = load_photo(demo_photos / "flower.jpg", max_side=160).pixels.copy()
    # A planted object: a dark blue disc on the real photo, and a mask that misses its outline by eight pixels.
    ys, xs = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    disc = (ys - 50) ** 2 + (xs - 70) ** 2 < 30**2
    pixels[disc] = (10, 20, 230)
    coarse = np.zeros(disc.shape, bool)
    coarse[50 - 22 : 50 + 38, 70 - 38 : 70 + 22] = True
    activation = np.where((ys - 50) ** 2 + (xs - 70) ** 2 < 12**2, 1.0, 0.3).astype(np.float32) * coarse
    iou = lambda m: (m & disc).sum() / (m | disc).sum()  # noqa: E731
    refined = refine_mask(pixels, activation, coarse)
    assert iou(refined) > iou(coarse) + 0.1
    assert np.array_equal(refined, refine_mask(pixels, activation, coarse))
    nothing = np.zeros(disc.shape, bool)
    assert not refine_mask(pixels, activation, nothing).any()
