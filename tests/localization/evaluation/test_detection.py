"""Average precision and recall of boxes, worked by hand."""

import numpy as np
import pytest

from localization.evaluation.detection import average_precision, recall

A, B, C = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (0.0, 20.0, 10.0, 30.0)
ELSEWHERE = (50.0, 50.0, 60.0, 60.0)
TRUTH = [np.array([A, B]), np.array([C])]
FOUND = [
    np.array([(*A, 0.5), (*ELSEWHERE, 0.8), (*A, 0.4)]),  # the second box on A is wrong
    np.array([(*C, 0.9)]),
]


def test_average_precision() -> None:
    # By score: right, wrong, right, wrong. Precision 1 at recall 1/3, 2/3 at recall 2/3; B is never found.
    assert average_precision(FOUND, TRUTH) == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision([np.zeros((0, 5)), np.zeros((0, 5))], TRUTH) == 0
    assert average_precision(FOUND, [np.zeros((0, 4))] * 2) == 0


@pytest.mark.parametrize(("most", "expected"), [(1, 1 / 3), (2, 2 / 3), (10, 2 / 3)])
def test_recall_with_a_few_boxes(most: int, expected: float) -> None:
    assert recall(FOUND, TRUTH, most=most) == pytest.approx(expected)


def test_a_box_of_half_the_size_meets_at_an_iou_of_one_half() -> None:
    half = np.array([[0, 0, 5, 10, 1.0]])
    assert recall([half], [np.array([A])], most=1) == 1
    assert recall([half], [np.array([A])], most=1, iou=0.51) == 0
