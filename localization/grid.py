"""Where the cells of a feature map lie in its photo."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Grid(NamedTuple):
    """The centre of cell (i, j) is ``first + step * (i, j)``, (y, x) in pixels; that of the top-left pixel is (0, 0).

    Attributes:
        first: float [..., 2], the centre (y, x) of cell (0, 0).
        step: float [..., 2], the pixels (y, x) between neighbouring centres.
    """

    first: Any
    step: Any

    def resized(self, from_hw: Any, to_hw: Any) -> "Grid":
        """The same cells after a resize of the photo, from and to a size (height, width) [..., 2]."""
        ratio = jnp.asarray(to_hw) / jnp.maximum(jnp.asarray(from_hw), 1)
        return Grid((jnp.asarray(self.first) + 0.5) * ratio - 0.5, jnp.asarray(self.step) * ratio)

    def position(self, pixels: Float[Array, "*_a n"], axis: int) -> Float[Array, "*_b n"]:
        """Rows (axis 0) or columns (axis 1) of pixels as rows or columns of cells, with fractions."""
        first, step = (jnp.asarray(part)[..., axis, None] for part in self)
        return (pixels - first) / jnp.where(step > 0, step, 1)


PIXELS = Grid((0.0, 0.0), (1.0, 1.0))
"""A map whose cells are the pixels."""


def equal_patches(cells_hw: Int[Any, "*b 2"], image_hw: Int[Any, "*b 2"]) -> Grid:
    """Cells that divide the photo into equal patches, for encoders that do not say where their cells lie."""
    step = jnp.asarray(image_hw) / jnp.maximum(jnp.asarray(cells_hw), 1)
    return Grid((step - 1) / 2, step)


def aligned_corners(cells_hw: Int[Any, "*b 2"], image_hw: Int[Any, "*b 2"]) -> Grid:
    """Cells of which the first and last lie on the corners of the photo, as in the official code of Song et al."""
    step = (jnp.asarray(image_hw) - 1) / jnp.maximum(jnp.asarray(cells_hw) - 1, 1)
    return Grid(jnp.zeros_like(step), step)
