"""Where photos lie on a canvas: one in its top-left corner, or all levels of an image pyramid side by side."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, Shaped


class Slot(NamedTuple):
    """A part of a canvas, in cells: its first row and column, and the largest photo that it holds."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Regions:
    """The photos of a batch of canvases; each lies in the top-left corner of its slot.

    Attributes:
        sizes: int32 [b, s, 2], (height, width) of the photo in each slot.
        slots: the same for every canvas of the batch; between two of them there is at least one cell.
    """

    sizes: Int[Array, "b s 2"]
    slots: tuple[Slot, ...]

    def after(self, layer: Any) -> "Regions":
        """The regions of the map that ``layer`` makes; ``top`` and ``left`` are multiples of its stride."""
        slots = tuple(
            Slot(
                slot.top // layer.stride,
                slot.left // layer.stride,
                layer.output_size(slot.height),
                layer.output_size(slot.width),
            )
            for slot in self.slots
        )
        return Regions(layer.output_size(self.sizes), slots)

    def mask(self, height: int, width: int) -> Bool[Array, "b {height} {width}"]:
        """True on the cells of a [height, width] canvas that belong to a photo."""
        inside = jnp.zeros((), bool)
        for index, slot in enumerate(self.slots):
            rows = jnp.arange(height) - slot.top
            columns = jnp.arange(width) - slot.left
            in_rows = (rows >= 0) & (rows < self.sizes[:, index, :1])
            in_columns = (columns >= 0) & (columns < self.sizes[:, index, 1:])
            inside = inside | (in_rows[:, :, None] & in_columns[:, None, :])
        # With several slots, this is computed once and not again for each channel.
        return inside if len(self.slots) == 1 else lax.optimization_barrier(inside)

    def places(self, height: int, width: int) -> Int[np.ndarray, "{height} {width}"]:
        """The number of its slot for each cell of a [height, width] canvas; any number between the slots."""
        numbers = np.zeros((height, width), np.int32)
        for number, (top, left, rows, columns) in enumerate(self.slots):
            # One cell more, as ``align`` moves some photos by one cell.
            numbers[top : top + rows + 1, left : left + columns + 1] = number
        return numbers


def regions_of(regions: Regions | Int[Array, "b 2"], images: Shaped[Array, "b h w c"]) -> Regions:
    """``regions`` as they are; sizes (height, width) become photos in the top-left corners of the canvases."""
    if isinstance(regions, Regions):
        return regions
    return Regions(jnp.asarray(regions)[:, None], (Slot(0, 0, *images.shape[1:3]),))
