"""Methods of others on maps with a planted object."""

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.localization_peers import Ddt, box_around, lost_box, tokencut_box
from localization.evaluation.metrics import box_iou
from tests.localization.planted import planted


def ddt_box(dense: np.ndarray, size: tuple[int, int]) -> tuple[float, float, float, float]:
    projected = Ddt(planted(seed)[0] for seed in range(8)).map(dense)
    return box_around(projected > 0, int(projected.argmax()), size)


@pytest.mark.parametrize("method", [lost_box, tokencut_box, ddt_box])
def test_the_planted_object_is_found(method: Callable[..., tuple[float, float, float, float]]) -> None:
    ious = []
    for seed in range(100, 106):
        dense, (top, left, bottom, right) = planted(seed)
        box = method(dense, (80, 100))
        truth = np.array([[left, top, right, bottom]]) * 10
        ious.append(box_iou(np.array([box]), truth, convention="edges")[0, 0])
    assert np.mean(np.array(ious) > 0.7) >= 0.8


def test_the_box_holds_the_seed() -> None:
    cells = np.array([[1, 1, 0, 1], [0, 0, 0, 1]], bool)
    assert box_around(cells, 0, (20, 80)) == (0, 0, 40, 10)
    assert box_around(cells, 7, (20, 80)) == (60, 0, 80, 20)
    assert box_around(cells, 2, (20, 80)) == (40, 0, 60, 10)  # not among the cells: alone
