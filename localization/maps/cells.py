"""Which cells of a map lie under a place of its photo."""

import math

from delf_jax.errors import PredictorError
from localization.grid import Grid

Place = tuple[float, float] | tuple[float, float, float, float] | None
"""(x, y) in pixels of the upright photo, a box [x0, y0, x1, y1] of pixel edges, or None for the whole photo."""


def cells_of(
    where: Place,
    cells: tuple[int, int],
    grid: Grid,
    image_size: tuple[int, int],
) -> tuple[slice, slice]:
    """The cells of a map whose centres lie in a place of its photo; the nearest cell if there is none.

    Args:
        where: (x, y) in pixels, a box [x0, y0, x1, y1] of pixel edges, or None for the whole map.
        cells, image_size: (height, width) of the map and of the photo.
        grid: where the cells lie in the photo.

    Raises:
        PredictorError: the place is outside the photo.
    """
    if where is None:
        return slice(0, cells[0]), slice(0, cells[1])
    height, width = image_size
    if len(where) == 4:
        x0, y0, x1, y1 = where
        inside = 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        x0, y0, x1, y1 = x0 - 0.5, y0 - 0.5, x1 - 0.5, y1 - 0.5  # edges in coordinates of pixel centres
    else:
        x0, y0 = x1, y1 = where
        inside = -0.5 <= x0 <= width - 0.5 and -0.5 <= y0 <= height - 0.5
    if not inside:
        raise PredictorError(
            f"{', '.join(f'{number:g}' for number in where)}: is not inside the photo of {width} x {height} pixels; "
            "choose a place inside it"
        )

    def span(low: float, high: float, axis: int) -> slice:
        origin, step = float(grid.first[axis]), float(grid.step[axis])
        low, high, count = (low - origin) / step, (high - origin) / step, cells[axis]
        first, last = max(math.ceil(low), 0), min(math.floor(high), count - 1)
        if first > last:
            first = last = min(max(round((low + high) / 2), 0), count - 1)
        return slice(first, last + 1)

    return span(y0, y1, 0), span(x0, x1, 1)
