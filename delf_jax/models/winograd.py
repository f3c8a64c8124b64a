"""3x3 convolutions on the CPU with a quarter of the multiplications (Winograd's minimal filtering).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. Libraries for accelerators use such
algorithms themselves; XLA on CPUs does not, and there this halves the time of 3x3 layers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

TILE = 4
# The error grows with the powers of the points in ``outputs``. These four are balanced around 1: the largest error of a
# layer is near 2e-6 of its largest value. The usual 1, -1, 2, -2 give 1e-5, a plain float32 sum 7e-7.
_POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))
# With fewer cells the larger kernels cost more than they save, with fewer channels the transforms do.
_FEWEST_CELLS = 512
_FEWEST_CHANNELS = 32
_MOST_TILES = 8192
# Entries of the matrices that are zero up to rounding.
_ROUNDING = 1e-12


class Transforms(NamedTuple):
    """The matrices along one dimension, for m outputs y from n = m + 2 inputs d and three kernel values g.

    y = outputs @ ((kernel @ g) * (inputs @ d)). With points a_1 to a_(n-1), and infinity as the last one, and N_i the
    product of all a_i - a_j: kernel row i is [1, a_i, a_i^2] / N_i, outputs column i is the powers of a_i, and inputs
    row i holds the coefficients of the product of all x - a_j with j != i.
    """

    inputs: Float[np.ndarray, "n n"]
    kernel: Float[np.ndarray, "n 3"]
    outputs: Float[np.ndarray, "m n"]


def transforms(points: Sequence[float] = _POINTS) -> Transforms:
    """The three matrices in float64, built from the finite points (Toom-Cook algorithm)."""
    values = np.array(points, np.float64)
    last = len(values)
    inputs, kernel = np.zeros((last + 1, last + 1)), np.zeros((last + 1, 3))
    for i, value in enumerate(values):
        others = np.delete(values, i)
        inputs[i, :last] = np.poly(others)[::-1]
        kernel[i] = value ** np.arange(3) / np.prod(value - others)
    inputs[last] = np.poly(values)[::-1]
    kernel[last, 2] = 1
    outputs = np.zeros((last - 1, last + 1))
    outputs[:, :last] = values ** np.arange(last - 1)[:, None]
    outputs[-1, last] = 1
    return Transforms(inputs, kernel, outputs)


_TRANSFORMS = transforms()


def is_faster(height: int, width: int, channels: int) -> bool:
    """Whether ``convolve`` is faster for maps of this size; the same for every batch size, so that features are too."""
    return height * width >= _FEWEST_CELLS and channels >= _FEWEST_CHANNELS


def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"], precision: lax.PrecisionLike = None
) -> Float[Array, "b h w d"]:
    """A 3x3 convolution of stride 1 with one zero cell around the map; float32."""
    batch, height, width, channels = x.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    strips = _strips(rows, columns)
    deep = -(-rows // strips) * TILE
    x = jnp.pad(x, ((0, 0), (1, strips * deep + 1 - height), (1, columns * TILE + 1 - width), (0, 0)))
    # Both sides of the kernel in one product; the result has the order [column, row, c, d] that the tiles need.
    both = np.kron(_TRANSFORMS.kernel, _TRANSFORMS.kernel).astype(np.float32)
    weights = jnp.matmul(both, kernel.transpose(1, 0, 2, 3).reshape(9, -1), precision=precision)
    weights = weights.reshape(len(both), channels, -1)

    def strip(index: Array) -> Array:
        corner = (index // strips, index % strips * deep, 0, 0)
        return _convolve_tiles(lax.dynamic_slice(x, corner, (1, deep + 2, *x.shape[2:])), weights, precision)

    y = _convolve_tiles(x, weights, precision) if strips == 1 else lax.map(strip, jnp.arange(batch * strips))
    return y.reshape(batch, strips * deep, columns * TILE, -1)[:, :height, :width]


def _strips(rows: int, columns: int) -> int:
    """Into how many strips a map of ``rows`` x ``columns`` tiles is cut, so that few rows are added to fill the last.

    The transformed tiles of a strip have 2.25 times the cells of the map; a large map's would not fit the caches.
    """
    fewest = -(-rows * columns // _MOST_TILES)
    return min(range(fewest, 2 * fewest), key=lambda count: count * -(-rows // count))


def _convolve_tiles(
    x: Float[Array, "b _ _ c"], weights: Float[Array, "n c d"], precision: lax.PrecisionLike
) -> Float[Array, "b _h _w d"]:
    """The convolution of whole tiles and the cells around them, with transformed kernels."""
    batch, height, width, channels = x.shape
    size = TILE + 2
    rows, columns = height // TILE, width // TILE
    x = _combine(
        _TRANSFORMS.inputs, [lax.slice_in_dim(x, i, i + (rows - 1) * TILE + 1, TILE, axis=1) for i in range(size)]
    )
    x = _combine(
        _TRANSFORMS.inputs, [lax.slice_in_dim(x, j, j + (columns - 1) * TILE + 1, TILE, axis=3) for j in range(size)]
    )
    y = jnp.matmul(x.reshape(size * size, -1, channels), weights, precision=precision)
    y = y.reshape(size, size, batch, rows, columns, -1)
    y = _combine(_TRANSFORMS.outputs, [y[j] for j in range(size)])
    y = _combine(_TRANSFORMS.outputs, [y[:, i] for i in range(size)])
    # [row in tile, column in tile, b, row, column, d]
    return y.transpose(2, 3, 0, 4, 1, 5).reshape(batch, rows * TILE, columns * TILE, -1)


def _combine(matrix: Float[np.ndarray, "m n"], parts: Sequence[Array]) -> Array:
    """``matrix @ parts`` as sums: zeros cost nothing, and no matrix product has to be compiled."""
    combined = []
    for row in matrix:
        terms = [part * np.float32(factor) for factor, part in zip(row, parts) if abs(factor) > _ROUNDING]
        combined.append(sum(terms[1:], start=terms[0]))
    return jnp.stack(combined)
