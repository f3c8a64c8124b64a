"""Metrics on cases small enough to work out by hand."""

import numpy as np
import pytest
from pycocotools import mask as coco
from sklearn.metrics import average_precision_score

from localization.evaluation.metrics import (
    BoxConvention,
    PixelCounts,
    ThresholdCurve,
    box_iou,
    centre_box,
    centre_map,
    corloc,
    in_top_k,
    inclusive_box,
    max_box_acc_v2,
    threshold_curve,
)


def test_iou_in_both_conventions() -> None:
    a, b = np.array([[0, 0, 4, 4]]), np.array([[2, 2, 6, 6], [4, 4, 8, 8], [0, 0, 4, 4]])
    np.testing.assert_allclose(box_iou(a, b, convention="edges"), [[4 / 28, 0, 1]])
    np.testing.assert_allclose(box_iou(a, b, convention="inclusive"), [[9 / 41, 1 / 49, 1]])
    assert box_iou(np.array([[3, 3, 3, 3]]), np.array([[3, 3, 3, 3]]), convention="inclusive") == 1
    assert box_iou(np.array([[3, 3, 3, 3]]), np.array([[3, 3, 3, 3]]), convention="edges") == 0


@pytest.mark.parametrize("convention", ["edges", "inclusive"])
def test_iou_is_that_of_pycocotools(convention: BoxConvention) -> None:
    rng = np.random.default_rng(0)
    corners, sizes = rng.integers(0, 60, (2, 30, 2)), rng.integers(1, 40, (2, 30, 2))
    a, b = np.concatenate([corners, corners + sizes], axis=-1)
    one = 1 if convention == "inclusive" else 0
    xywh = [np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2] + one], axis=1).astype(float) for boxes in (a, b)]
    expected = coco.iou(xywh[0], xywh[1], [0] * len(b))
    assert (expected > 0.5).any()
    np.testing.assert_allclose(box_iou(a, b, convention=convention), expected, atol=1e-12)


def test_inclusive_boxes_are_clipped() -> None:
    assert inclusive_box((2, 3, 10, 8), 10, 20) == (2, 3, 9, 8)


def test_centre_box_covers_its_share() -> None:
    x0, y0, x1, y1 = centre_box(200, 100, share=0.25)
    assert (x0, y0, x1, y1) == (50, 25, 150, 75)


IOUS = np.array([[0.2, 0.6, 0.4], [0.8, 0.55, 0.1], [0.35, 0.72, 0.75], [0.0, 0.0, 0.31]])
LEVELS = np.array([0.1, 0.2, 0.3])


def test_curve_and_both_versions_of_max_box_acc() -> None:
    curve = threshold_curve(IOUS, thresholds=LEVELS)
    np.testing.assert_allclose(curve.accuracy[0.5], [0.25, 0.75, 0.25])
    np.testing.assert_allclose(curve.accuracy[0.3], [0.5, 0.75, 0.75])
    np.testing.assert_allclose(curve.accuracy[0.7], [0.25, 0.25, 0.25])
    assert curve.best() == (0.75, 0.2)
    assert curve.at(0.29) == 0.25
    assert max_box_acc_v2(curve, convention="official") == pytest.approx(1.75 / 3)
    uneven = ThresholdCurve(LEVELS, {0.3: np.array([1.0, 0, 0]), 0.7: np.array([0, 0.5, 0])})
    assert max_box_acc_v2(uneven, convention="official") == 0.5
    assert max_box_acc_v2(uneven, convention="wsolevaluation") == 0.75


def test_top_k_loc_needs_box_and_class() -> None:
    logits = np.array([[3.0, 1, 2], [0, 5, 1], [1, 2, 3], [2, 2, 0]])
    labels = np.array([0, 2, 0, 0])
    assert in_top_k(logits, labels, 1).tolist() == [True, False, False, False]  # the last is a tie
    assert in_top_k(logits, labels, 2).tolist() == [True, True, False, True]
    curve = threshold_curve(IOUS, thresholds=LEVELS, where=in_top_k(logits, labels, 2))
    np.testing.assert_allclose(curve.accuracy[0.5], [0.25, 0.5, 0])


def test_corloc_counts_photos_with_objects() -> None:
    boxes = [(0, 0, 4, 4), None, (0, 0, 2, 2), (0, 0, 1, 1)]
    truth = [[(9, 9, 12, 12), (0, 0, 4, 5)], [(0, 0, 2, 2)], [(0, 0, 9, 9)], []]
    assert corloc(boxes, truth, convention="edges") == pytest.approx(1 / 3)


def test_pixel_metrics_by_hand() -> None:
    counts = PixelCounts()
    counts.add(np.array([[0.9, 0.5], [0.29, 0.0]]), np.array([[1, 0], [1, 255]]))
    # thresholds downwards: .9 -> 1/1 at recall 1/2; .5 -> 1/2; .29 -> 2/3 at recall 1
    assert counts.pxap() == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert counts.piou() == pytest.approx(2 / 3)
    assert counts.true[29] == 1


def test_pxap_is_the_average_precision_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((40, 50)) < 0.3).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    scores = np.clip(rng.normal(0.3 + 0.3 * (truth == 1), 0.2), 0, 1)
    scores[0, :3] = 0, 0.29, 1
    counts = PixelCounts()
    counts.add(scores[:20], truth[:20])
    counts.add(scores[20:], truth[20:])
    kept, binned = truth != 255, np.floor(np.round(scores * 100, 6))
    assert counts.pxap() == pytest.approx(average_precision_score(truth[kept], binned[kept]), abs=1e-9)
    # The bins of 0.01 cost next to nothing.
    assert counts.pxap() == pytest.approx(average_precision_score(truth[kept], scores[kept]), abs=0.005)


def test_centre_map() -> None:
    bump = centre_map(31, 61)
    assert bump.shape == (31, 61)
    assert np.unravel_index(bump.argmax(), bump.shape) == (15, 30)
    assert (bump[0, 0], bump.max()) == (0, 1)
    assert bump[0, 30] == pytest.approx(bump[15, 0])  # of the photo's shape


def test_thresholds_chosen_on_other_photos() -> None:
    here = ThresholdCurve(LEVELS, {0.3: np.array([1.0, 0.6, 0]), 0.7: np.array([0.5, 0.2, 0])})
    there = ThresholdCurve(LEVELS, {0.3: np.array([0.0, 0.9, 1]), 0.7: np.array([0.1, 0.9, 0])})
    assert max_box_acc_v2(here, convention="official", chosen_on=there) == pytest.approx(0.4)
    assert max_box_acc_v2(here, convention="wsolevaluation", chosen_on=there) == pytest.approx(0.1)
