"""On a CPU, large maps are computed in parts: this takes less memory, and what a part needs stays in the caches."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

# Cells of a map; smaller ones are computed whole, and parts with fewer cells would cost more than they save.
_LARGE = 1 << 16
_MOST = 1 << 13
_FEWEST = 1 << 10

OfCells = Callable[[Array], Array]
"""A function whose every cell depends on the same cell of its argument alone."""


def sum_of_cells(
    x: Float[Array, "b h w d"], y: Float[Array, "b h w e"], of_y: OfCells, of_x: OfCells | None = None
) -> Float[Array, "b h w c"]:
    """``relu(of_x(x) + of_y(y))``. Without ``of_x`` it is ``relu(x + of_y(y))``, in the place of ``x`` in memory."""

    def whole(x: Array, y: Array) -> Array:
        return nnx.relu((x if of_x is None else of_x(x)) + of_y(y))

    def in_parts(x: Array, y: Array) -> Array:
        flat_x, flat_y = (array.reshape(-1, array.shape[-1]) for array in (x, y))

        def own(index: Array, flat: Array) -> Array:
            return lax.dynamic_slice_in_dim(flat, index * part, part)

        def sums(index: Array, flat_x: Array) -> Array:
            return whole(own(index, flat_x)[None, None], own(index, flat_y)[None, None])[0, 0]

        def replace(index: Array, flat_x: Array) -> Array:
            return lax.dynamic_update_slice_in_dim(flat_x, sums(index, flat_x), index * part, 0)

        count = len(flat_y) // part
        if of_x is None:
            flat = lax.fori_loop(0, count, replace, flat_x)
        else:
            flat = lax.map(lambda index: sums(index, flat_x), jnp.arange(count))
        return flat.reshape(*x.shape[:3], -1)

    cells = x.shape[1] * x.shape[2]
    part = max(size for size in range(1, _MOST + 1) if cells % size == 0)
    if cells < _LARGE or part < _FEWEST:
        return whole(x, y)
    return lax.platform_dependent(x, y, cpu=in_parts, default=whole)
