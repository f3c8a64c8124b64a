"""Cells under a place of a photo."""

import pytest

from delf_jax.errors import PredictorError
from localization.grid import Grid
from localization.maps.cells import Place, cells_of

GRID = Grid((0, 0), (32, 32))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, (slice(0, 7), slice(0, 9))),
        ((0, 0), (slice(0, 1), slice(0, 1))),
        ((47, 49), (slice(2, 3), slice(1, 2))),
        ((287, 223), (slice(6, 7), slice(8, 9))),  # beyond the last centre, which is (256, 192)
        ((0, 0, 288, 224), (slice(0, 7), slice(0, 9))),
        ((32, 64, 65, 97), (slice(2, 4), slice(1, 3))),  # centres at pixels 32 and 64, 64 and 96
        ((33, 64, 64, 96), (slice(2, 3), slice(2, 3))),  # none at 33 to 63: the nearest to 48 is as near as the other
        ((260, 200, 270, 210), (slice(6, 7), slice(8, 9))),
    ],
)
def test_places(where: Place, expected: tuple[slice, slice]) -> None:
    assert cells_of(where, (7, 9), GRID, (224, 288)) == expected


def test_places_outside_are_refused() -> None:
    with pytest.raises(PredictorError, match="not inside the photo of 288 x 224"):
        cells_of((288, 10), (7, 9), GRID, (224, 288))
    with pytest.raises(PredictorError, match="not inside"):
        cells_of((5, 5, 5, 9), (7, 9), GRID, (224, 288))
