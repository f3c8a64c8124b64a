"""The image pyramid: every photo of a padded batch is resized by interpolation weights of its own.

The photos of a batch have different sizes, so each gets its own weights along each side. Output samples lie at
half-pixel centres. Reduction is antialiased by a triangle filter as wide as the reduction. The weights are normalised
over the photo's own pixels, so padding is never read and edges are not darkened.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Num

from delf_jax.models.layers import valid_cells

Size = tuple[int, int]


def scaled_size(valid_hw: Int[Array, "*b 2"], scale: float) -> Int[Array, "*b 2"]:
    """``round(valid_hw * scale)``, halves upwards, at least 1 if the photo has any pixel (sizes of the official code).

    >>> scaled_size(jnp.array([[5, 480], [1, 0]]), 0.5).tolist()
    [[3, 240], [1, 0]]
    """
    size = jnp.floor(valid_hw * jnp.float32(scale) + 0.5).astype(jnp.int32)
    return jnp.where(valid_hw > 0, jnp.maximum(size, 1), 0)


def canvas_size(size: Size, scale: float) -> Size:
    """(height, width) of the canvas that holds any photo of a canvas of this size after a resize by ``scale``.

    >>> canvas_size((480, 639), 0.5)
    (240, 320)
    """
    return math.ceil(size[0] * scale), math.ceil(size[1] * scale)


def pyramid(
    images: Num[Array, "b H W c"], valid_hw: Int[Array, "b 2"], scales: Sequence[float], *, dtype: Any = jnp.float32
) -> list[Float[Array, "b _h _w c"]]:
    """Every photo of a padded batch resized by each of ``scales``, to the sizes that ``scaled_size`` says.

    Args:
        images: uint8 or float32 [b, H, W, c]; pixels outside ``valid_hw`` are never read.
        valid_hw: int32 [b, 2], (height, width) of each photo.
        scales: factors of both sides.
        dtype: float32 or bfloat16: the type of the factors of matrix products on accelerators. Pixels of uint8 are
            exact in both; in bfloat16, weights and what the first of two products gives are rounded.

    Returns:
        For each scale float32 [b, h, w, c] on the canvas that ``canvas_size`` says, zero outside the resized photos.
    """
    photos = without_padding(images, valid_hw)
    others = [scale for scale in scales if scale != 1]
    if not others:
        return [photos for _ in scales]
    levels = iter(
        lax.platform_dependent(
            photos,
            valid_hw,
            cpu=partial(resize_by_taps, scales=others),
            default=partial(resize_by_matrices, scales=others, dtype=dtype),
        )
    )
    return [photos if scale == 1 else next(levels) for scale in scales]


def without_padding(images: Num[Array, "b H W c"], valid_hw: Int[Array, "b 2"]) -> Float[Array, "b H W c"]:
    """A padded batch in float32, zero outside the photos."""
    return jnp.where(valid_cells(valid_hw, *images.shape[1:3])[..., None], images.astype(jnp.float32), 0)


def resize_by_matrices(
    photos: Float[Array, "b H W c"], valid_hw: Int[Array, "b 2"], *, scales: Sequence[float], dtype: Any = jnp.float32
) -> list[Float[Array, "b _h _w c"]]:
    """As ``pyramid``, by matrix products, which are quick on accelerators."""
    sizes = [(scaled_size(valid_hw, scale), canvas_size((photos.shape[1], photos.shape[2]), scale)) for scale in scales]
    return [resize(photos, valid_hw, out_hw, canvas, dtype=dtype) for out_hw, canvas in sizes]


def resize(
    photos: Float[Array, "b H W c"],
    valid_hw: Int[Array, "b 2"],
    out_hw: Int[Array, "b 2"],
    canvas: Size,
    *,
    dtype: Any = jnp.float32,
) -> Float[Array, "b h w c"]:
    """Every photo resized from ``valid_hw`` to ``out_hw`` inside a ``canvas`` (height, width), by matrix products.

    ``photos`` is as ``without_padding`` returns it.
    """
    matrices = jax.vmap(interpolation_matrix, (0, 0, None, None))
    rows = matrices(valid_hw[:, 0], out_hw[:, 0], photos.shape[1], canvas[0])
    columns = matrices(valid_hw[:, 1], out_hw[:, 1], photos.shape[2], canvas[1])
    # Plane by plane, both are plain products of matrices, and no accelerator has to move pixels between them.
    planes = photos.transpose(0, 3, 1, 2).astype(dtype)
    product = partial(jnp.einsum, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
    resized = product("bph,bchw->bcpw", rows.astype(dtype), planes).astype(dtype)
    return product("bqw,bcpw->bcpq", columns.astype(dtype), resized).transpose(0, 2, 3, 1)


def interpolation_matrix(
    valid_in: Int[Array, ""], valid_out: Int[Array, ""], size_in: int, size_out: int
) -> Float[Array, "{size_out} {size_in}"]:
    """Weights that resize the first ``valid_in`` of ``size_in`` samples to the first ``valid_out`` of ``size_out``.

    Output sample q lies at ``(q + 1/2) * valid_in / valid_out - 1/2``. Rows sum to 1; rows from ``valid_out`` on are 0.
    """
    number = jnp.arange(size_out)
    centre, reach = _centres(number, valid_in, valid_out)
    return _weights(jnp.arange(size_in)[None], centre, reach, valid_in) * (number < valid_out)[:, None]


def resize_by_taps(
    photos: Float[Array, "b H W c"], valid_hw: Int[Array, "b 2"], *, scales: Sequence[float]
) -> list[Float[Array, "b _h _w c"]]:
    """As ``pyramid``, as sums over the few input samples on which an output sample depends.

    The matrices would consist mostly of zeros: on a CPU this takes a quarter of the time. The rows of all levels are
    made in one loop, and the program stays small.
    """
    canvases = [canvas_size((photos.shape[1], photos.shape[2]), scale) for scale in scales]
    out_hw = jnp.stack([scaled_size(valid_hw, scale) for scale in scales], axis=1)
    most = max(taps_of(scale) for scale in scales)

    def one(photo: Array, size: Array, out: Array) -> list[Array]:
        (rows, row_weights), (columns, column_weights) = (
            _taps(size[axis], out[:, axis], [canvas[axis] for canvas in canvases], photo.shape[axis], most)
            for axis in (0, 1)
        )
        reduced = _sum_of_taps(photo, rows, row_weights, axis=0)
        levels, top, left = [], 0, 0
        for scale, (height, width) in zip(scales, canvases):
            part = (slice(left, left + width), slice(taps_of(scale)))
            levels.append(_sum_of_taps(reduced[top : top + height], columns[part], column_weights[part], axis=1))
            top, left = top + height, left + width
        return levels

    return jax.vmap(one)(photos, valid_hw, out_hw)


def taps_of(scale: float) -> int:
    """How many input samples along a side an output sample can depend on.

    A reduction by r reads 2 r samples. Photos of a few pixels are reduced by up to 1.5 r, as their size is rounded.
    """
    return 2 if scale > 1 else math.ceil(3 / scale)


def _taps(
    valid_in: Int[Array, ""], valid_out: Int[Array, " l"], sizes: Sequence[int], size_in: int, most: int
) -> tuple[Int[Array, "n {most}"], Float[Array, "n {most}"]]:
    """The input samples for each output sample along one side of all levels, level after level; their weights."""
    level = np.repeat(np.arange(len(sizes)), sizes)
    number = np.concatenate([np.arange(size) for size in sizes])
    centre, reach = _centres(number, valid_in, valid_out[level])
    source = jnp.floor(centre - reach).astype(jnp.int32)[:, None] + 1 + np.arange(most)
    weights = _weights(source, centre, reach, valid_in) * (number < valid_out[level])[:, None]
    return jnp.clip(source, 0, size_in - 1), weights


def _sum_of_taps(
    image: Float[Array, "h w c"], source: Int[Array, "n t"], weights: Float[Array, "n t"], *, axis: int
) -> Array:
    """The samples ``source`` of an image along an axis, summed with their weights."""

    def add(tap: Any, total: Array | float) -> Array:
        picked = image.at[(slice(None),) * axis + (source[:, tap],)].get(mode="promise_in_bounds")
        return total + weights[:, tap].reshape((-1,) + (1,) * (2 - axis)) * picked

    return lax.fori_loop(1, source.shape[1], add, add(0, 0.0))


def _centres(number: Any, valid_in: Int[Array, ""], valid_out: Any) -> tuple[Float[Array, " n"], Any]:
    """Positions of the output samples among the input samples, and the distance up to which inputs count."""
    ratio = valid_in.astype(jnp.float32) / jnp.maximum(valid_out, 1)
    return (number + np.float32(0.5)) * ratio - np.float32(0.5), jnp.maximum(ratio, 1.0)


def _weights(source: Any, centre: Float[Array, " n"], reach: Any, valid_in: Int[Array, ""]) -> Float[Array, "n t"]:
    """Weights of the input samples ``source`` for each output sample; all inputs that count have to be among them."""
    distance = jnp.abs(source - centre[:, None]) / jnp.broadcast_to(reach, centre.shape)[:, None]
    weights = jnp.where((source >= 0) & (source < valid_in), jnp.maximum(1 - distance, 0), 0)
    return weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1e-6)
