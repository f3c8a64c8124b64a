"""The rule that chooses the default map threshold."""

import numpy as np

from benchmarks.map_threshold import indistinguishable, middle
from localization.evaluation.metrics import THRESHOLDS


def test_thresholds_within_two_standard_errors_are_allowed() -> None:
    # 100 photos: 90 right at .40 to .60 (standard error 3 points), 84 up to .70 (allowed), 83 above.
    right = np.where(THRESHOLDS <= 0.7, 84, 83)
    right[(THRESHOLDS >= 0.4) & (THRESHOLDS <= 0.6)] = 90
    ious = (np.arange(100)[:, None] < right).astype(float)
    allowed = indistinguishable(ious)
    np.testing.assert_array_equal(THRESHOLDS[allowed], THRESHOLDS[THRESHOLDS <= 0.7])


def test_middle_of_what_all_cases_allow() -> None:
    low, high = THRESHOLDS <= 0.5, THRESHOLDS >= 0.3
    assert middle([low, high]) == 0.4
    assert middle([low, high, THRESHOLDS > 0.45]) == 0.48
