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
    size = TILE + 2
    rows, columns = -(-height // TILE), -(-width // TILE)
    far = (rows * TILE + 1 - height, columns * TILE + 1 - width)
    x = jnp.pad(x, ((0, 0), (1, far[0]), (1, far[1]), (0, 0)))
    x = _combine(
        _TRANSFORMS.inputs, [lax.slice_in_dim(x, i, i + (rows - 1) * TILE + 1, TILE, axis=1) for i in range(size)]
    )
    x = _combine(
        _TRANSFORMS.inputs, [lax.slice_in_dim(x, j, j + (columns - 1) * TILE + 1, TILE, axis=3) for j in range(size)]
    )
    # Both sides of the kernel in one product; the result has the order [column, row, c, d] that the next one needs.
    both = np.kron(_TRANSFORMS.kernel, _TRANSFORMS.kernel).astype(np.float32)
    weights = jnp.matmul(both, kernel.transpose(1, 0, 2, 3).reshape(9, -1), precision=precision)
    y = jnp.matmul(
        x.reshape(size * size, -1, channels), weights.reshape(size * size, channels, -1), precision=precision
    )
    y = y.reshape(size, size, batch, rows, columns, -1)
    y = _combine(_TRANSFORMS.outputs, [y[j] for j in range(size)])
    y = _combine(_TRANSFORMS.outputs, [y[:, i] for i in range(size)])
    # [row in tile, column in tile, b, row, column, d]
    return y.transpose(2, 3, 0, 4, 1, 5).reshape(batch, rows * TILE, columns * TILE, -1)[:, :height, :width]


def _combine(matrix: Float[np.ndarray, "m n"], parts: Sequence[Array]) -> Array:
    """``matrix @ parts`` as sums: zeros cost nothing, and no matrix product has to be compiled."""
    combined = []
    for row in matrix:
        terms = [part * np.float32(factor) for factor, part in zip(row, parts) if abs(factor) > _ROUNDING]
        combined.append(sum(terms[1:], start=terms[0]))
    return jnp.stack(combined)
