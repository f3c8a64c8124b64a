"""Which cells of a map lie under a place of its photo."""

import math

from delf_jax.errors import PredictorError

Place = tuple[float, float] | tuple[float, float, float, float] | None
"""(x, y) in pixels of the upright photo, a box [x0, y0, x1, y1] of pixel edges, or None for the whole photo."""


def cells_of(
    where: Place,
    cells: tuple[int, int],
    image_size: tuple[int, int],
) -> tuple[slice, slice]:
    """The cells of a map under a place of its photo, at least one. The corners of map and photo coincide.

    Args:
        where: (x, y) in pixels, a box [x0, y0, x1, y1] of pixel edges, or None for the whole map.
        cells, image_size: (height, width) of the map and of the photo.

    Raises:
        PredictorError: the place is outside the photo.
    """
    if where is None:
        return slice(0, cells[0]), slice(0, cells[1])
    height, width = image_size
    if len(where) == 4:
        x0, y0, x1, y1 = where
        inside = 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        x1, y1 = max(x1 - 1, x0), max(y1 - 1, y0)  # edges to the indices of the first and last pixel
    else:
        x0, y0 = x1, y1 = where
        inside = -0.5 <= x0 <= width - 0.5 and -0.5 <= y0 <= height - 0.5
    if not inside:
        raise PredictorError(
            f"{', '.join(f'{number:g}' for number in where)}: is not inside the photo of {width} x {height} pixels; "
            "choose a place inside it"
        )

    def span(low: float, high: float, pixels: int, count: int) -> slice:
        step = (count - 1) / max(pixels - 1, 1)
        first, last = math.ceil(low * step), math.floor(high * step)
        if first > last:  # no centre of a cell is inside: take the nearest cell
            first = last = min(max(round((low + high) / 2 * step), 0), count - 1)
        return slice(max(first, 0), min(last, count - 1) + 1)

    return span(y0, y1, height, cells[0]), span(x0, x1, width, cells[1])
