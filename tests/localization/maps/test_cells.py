"""Cells under a place of a photo."""

import pytest

from delf_jax.errors import PredictorError
from localization.maps.cells import cells_of


def test_places() -> None:
    assert cells_of(None, (7, 9), (70, 90)) == (slice(0, 7), slice(0, 9))
    assert cells_of((0, 0), (7, 9), (70, 90)) == (slice(0, 1), slice(0, 1))
    assert cells_of((89, 69), (7, 9), (70, 90)) == (slice(6, 7), slice(8, 9))
    assert cells_of((0, 0, 90, 70), (7, 9), (70, 90)) == (slice(0, 7), slice(0, 9))
    assert cells_of((40, 30, 41, 31), (7, 9), (70, 90)) == (slice(3, 4), slice(4, 5))
    with pytest.raises(PredictorError, match="not inside the photo of 90 x 70"):
        cells_of((90, 10), (7, 9), (70, 90))
    with pytest.raises(PredictorError, match="not inside"):
        cells_of((5, 5, 5, 9), (7, 9), (70, 90))
