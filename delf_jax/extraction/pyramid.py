"""The image pyramid: every photo of a padded batch is resized by interpolation weights of its own.

The photos of a batch have different sizes, so each gets its own weights along each side. Output samples lie at
half-pixel centres. Reduction is antialiased by a triangle filter as wide as the reduction. The weights are normalised
over the photo's own pixels, so padding is never read and edges are not darkened.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Num

from delf_jax.models.layers import valid_cells

# The program contains one multiplication for each tap, so many taps make it long.
_MOST_TAPS = 16


def scaled_size(valid_hw: Int[Array, "*b 2"], scale: float) -> Int[Array, "*b 2"]:
    """``round(valid_hw * scale)``, halves upwards, at least 1 if the photo has any pixel (sizes of the official code).

    >>> scaled_size(jnp.array([[5, 480], [1, 0]]), 0.5).tolist()
    [[3, 240], [1, 0]]
    """
    size = jnp.floor(valid_hw * jnp.float32(scale) + 0.5).astype(jnp.int32)
    return jnp.where(valid_hw > 0, jnp.maximum(size, 1), 0)


def resize(
    images: Num[Array, "b H W c"], valid_hw: Int[Array, "b 2"], scale: float
) -> tuple[Float[Array, "b h w c"], Int[Array, "b 2"]]:
    """Every photo of a padded batch resized by ``scale``.

    Args:
        images: uint8 or float32 [b, H, W, c]; pixels outside ``valid_hw`` are never read.
        valid_hw: int32 [b, 2], (height, width) of each photo.
        scale: factor of both sides; the canvas becomes ``ceil(H * scale)`` x ``ceil(W * scale)``.

    Returns:
        float32 [b, h, w, c], zero outside the resized photos, and their (height, width), int32 [b, 2].
    """
    height, width = images.shape[1:3]
    out_hw = scaled_size(valid_hw, scale)
    if scale == 1.0:
        return jnp.where(valid_cells(valid_hw, height, width)[..., None], images.astype(jnp.float32), 0), out_hw
    canvas = math.ceil(height * scale), math.ceil(width * scale)
    taps = taps_of(scale)
    by_matrices = partial(resize_by_matrices, canvas=canvas)
    by_taps = partial(resize_by_taps, canvas=canvas, taps=taps) if taps <= _MOST_TAPS else by_matrices
    return lax.platform_dependent(images, valid_hw, out_hw, cpu=by_taps, default=by_matrices), out_hw


def taps_of(scale: float) -> int:
    """How many input samples along a side an output sample can depend on.

    A reduction by r reads 2 r samples. Photos of a few pixels are reduced by up to 1.5 r, as their size is rounded.
    """
    return 2 if scale > 1 else math.ceil(3 / scale)


def interpolation_matrix(
    valid_in: Int[Array, ""], valid_out: Int[Array, ""], size_in: int, size_out: int
) -> Float[Array, "{size_out} {size_in}"]:
    """Weights that resize the first ``valid_in`` of ``size_in`` samples to the first ``valid_out`` of ``size_out``.

    Output sample q lies at ``(q + 1/2) * valid_in / valid_out - 1/2``. Rows sum to 1; rows from ``valid_out`` on are 0.
    """
    return _weights(jnp.arange(size_in)[None], valid_in, valid_out, size_out)


def resize_by_matrices(
    images: Num[Array, "b H W c"], valid_hw: Int[Array, "b 2"], out_hw: Int[Array, "b 2"], canvas: tuple[int, int]
) -> Float[Array, "b h w c"]:
    """Every photo resized from ``valid_hw`` to ``out_hw`` inside a ``canvas`` (height, width), by matrix products."""
    height, width = images.shape[1:3]
    matrices = jax.vmap(interpolation_matrix, (0, 0, None, None))
    rows = matrices(valid_hw[:, 0], out_hw[:, 0], height, canvas[0])
    columns = matrices(valid_hw[:, 1], out_hw[:, 1], width, canvas[1])
    images = jnp.where(valid_cells(valid_hw, height, width)[..., None], images.astype(jnp.float32), 0)
    resized = jnp.einsum("bph,bhwc->bpwc", rows, images, precision=lax.Precision.HIGHEST)
    return jnp.einsum("bqw,bpwc->bpqc", columns, resized, precision=lax.Precision.HIGHEST)


def resize_by_taps(
    images: Num[Array, "b H W c"],
    valid_hw: Int[Array, "b 2"],
    out_hw: Int[Array, "b 2"],
    *,
    canvas: tuple[int, int],
    taps: int,
) -> Float[Array, "b h w c"]:
    """As ``resize_by_matrices``, if no output sample depends on more than ``taps`` input samples along a side.

    The matrices would consist mostly of zeros: on a CPU this takes a quarter of the time. Accelerators are faster with
    the matrices.
    """
    images = jnp.where(valid_cells(valid_hw, *images.shape[1:3])[..., None], images.astype(jnp.float32), 0)

    def one(image: Array, size: Array, out: Array) -> Array:
        for axis in (1, 0):
            centre, reach = _centres(size[axis], out[axis], canvas[axis])
            source = jnp.floor(centre - reach).astype(jnp.int32) + 1 + jnp.arange(taps)
            weights = _weights(source, size[axis], out[axis], canvas[axis])
            source = jnp.clip(source, 0, image.shape[axis] - 1)
            shape = (1, -1, 1) if axis else (-1, 1, 1)
            picked = [weights[:, i].reshape(shape) * jnp.take(image, source[:, i], axis=axis) for i in range(taps)]
            # Without the barrier, XLA computes the first axis again for each tap of the second.
            image = lax.optimization_barrier(sum(picked[1:], picked[0]))
        return image

    return jax.vmap(one)(images, valid_hw, out_hw)


def _centres(
    valid_in: Int[Array, ""], valid_out: Int[Array, ""], size_out: int
) -> tuple[Float[Array, "{size_out} 1"], Float[Array, ""]]:
    """Positions of the output samples among the input samples, and the distance up to which inputs count."""
    ratio = valid_in.astype(jnp.float32) / jnp.maximum(valid_out, 1)
    return (jnp.arange(size_out)[:, None] + 0.5) * ratio - 0.5, jnp.maximum(ratio, 1.0)


def _weights(
    source: Int[Array, "_ n"], valid_in: Int[Array, ""], valid_out: Int[Array, ""], size_out: int
) -> Float[Array, "{size_out} n"]:
    """Weights of the input samples ``source`` for each output sample; all inputs that count have to be among them."""
    centre, reach = _centres(valid_in, valid_out, size_out)
    weights = jnp.maximum(1 - jnp.abs(source - centre) / reach, 0)
    weights = jnp.where((source >= 0) & (source < valid_in), weights, 0)
    weights = weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1e-6)
    return jnp.where((jnp.arange(size_out) < valid_out)[:, None], weights, 0)
