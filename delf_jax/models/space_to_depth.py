"""Convolutions of stride 2 on few channels, computed on blocks of 2x2 pixels: so a TPU fills more of its lanes."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def convolve(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c d"],
    padding: tuple[int, int],
    precision: lax.PrecisionLike = None,
) -> Float[Array, "b _h _w d"]:
    """A convolution of stride 2 with ``padding`` cells (before, after) along both axes."""
    before, after = padding
    size = kernel.shape[0]
    blocks_before = -(-before // 2)
    # The first block of an output begins up to one cell before its first cell.
    first = 2 * blocks_before - before
    blocks = -(-(first + size) // 2)
    behind = 2 * blocks - first - size
    kernel = jnp.pad(kernel, ((first, behind), (first, behind), (0, 0), (0, 0)))
    paddings = []
    for cells in x.shape[1:3]:
        outputs = (cells + before + after - size) // 2 + 1
        paddings.append((blocks_before, outputs + blocks - 1 - blocks_before - -(-cells // 2)))
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    return lax.conv_general_dilated(
        _blocks(x),
        _blocks(kernel.transpose(3, 0, 1, 2)).transpose(1, 2, 3, 0),
        window_strides=(1, 1),
        padding=paddings,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def _blocks(x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w _c"]:
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)
