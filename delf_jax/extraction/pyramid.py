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
from jaxtyping import Array, Float, Int

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


def resize_by_matrices(
    photos: Float[Array, "b H W c"], valid_hw: Int[Array, "b 2"], *, scales: Sequence[float], dtype: Any = jnp.float32
) -> list[Float[Array, "b c 2 2 _h _w"]]:
    """Every photo resized by each of ``scales``, by matrix products, which are quick on accelerators.

    Args:
        photos: zero outside ``valid_hw``.
        valid_hw: (height, width) of each photo.
        scales: factors of both sides.
        dtype: float32 or bfloat16: the type of the factors of the products, and of what they give.

    Returns:
        For each scale every second row and column by itself: entry [b, c, i, j, y, x] belongs to the pixel
        (2 y + i, 2 x + j). Zero outside the resized photos, whose sizes ``scaled_size`` says.
    """
    canvases = [canvas_size((photos.shape[1], photos.shape[2]), scale) for scale in scales]
    out_hw = jnp.stack([scaled_size(valid_hw, scale) for scale in scales], axis=1)
    sides = [[-(-canvas[axis] // 2) for canvas in canvases] for axis in (0, 1)]

    def matrices(axis: int) -> Float[Array, "b 2 n m"]:
        level = np.repeat(np.arange(len(scales)), sides[axis])
        number = 2 * np.concatenate([np.arange(side) for side in sides[axis]]) + np.arange(2)[:, None]
        of_photo = jax.vmap(lambda valid, out: _matrix(valid, out[level], photos.shape[1 + axis], number))
        return of_photo(valid_hw[:, axis], out_hw[..., axis]).astype(dtype)

    # Plane by plane, both are plain products of matrices, and no accelerator has to move pixels between them.
    planes = photos.transpose(0, 3, 1, 2).astype(dtype)
    product = partial(jnp.einsum, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
    reduced, columns = product("biph,bchw->bcipw", matrices(0), planes).astype(dtype), matrices(1)
    levels, top, left = [], 0, 0
    for height, width in zip(*sides):
        rows = reduced[:, :, :, top : top + height]
        levels.append(product("bjqw,bcipw->bcijpq", columns[:, :, left : left + width], rows).astype(dtype))
        top, left = top + height, left + width
    return levels


def resize(
    photos: Float[Array, "b H W c"], valid_hw: Int[Array, "b 2"], out_hw: Int[Array, "b 2"], canvas: Size
) -> Float[Array, "b h w c"]:
    """Every photo resized from ``valid_hw`` to ``out_hw`` inside a ``canvas`` (height, width), by matrix products.

    ``photos`` is zero outside ``valid_hw``.
    """
    matrices = jax.vmap(interpolation_matrix, (0, 0, None, None))
    rows = matrices(valid_hw[:, 0], out_hw[:, 0], photos.shape[1], canvas[0])
    columns = matrices(valid_hw[:, 1], out_hw[:, 1], photos.shape[2], canvas[1])
    return jnp.einsum("bph,bhwc,bqw->bpqc", rows, photos, columns, precision=lax.Precision.HIGHEST)


def interpolation_matrix(
    valid_in: Int[Array, ""], valid_out: Int[Array, ""], size_in: int, size_out: int
) -> Float[Array, "{size_out} {size_in}"]:
    """Weights that resize the first ``valid_in`` of ``size_in`` samples to the first ``valid_out`` of ``size_out``.

    Output sample q lies at ``(q + 1/2) * valid_in / valid_out - 1/2``. Rows sum to 1; rows from ``valid_out`` on are 0.
    """
    return _matrix(valid_in, valid_out, size_in, np.arange(size_out))


def _matrix(
    valid_in: Int[Array, ""], valid_out: Any, size_in: int, number: Int[np.ndarray, "*n"]
) -> Float[Array, "*n {size_in}"]:
    """The rows ``number`` of the matrix; each may have a ``valid_out`` of its own."""
    centre, reach = _centres(number, valid_in, valid_out)
    return _weights(np.arange(size_in), centre, reach, valid_in) * (number < valid_out)[..., None]


def resize_by_taps(
    photos: Float[Array, "b H W c"], valid_hw: Int[Array, "b 2"], *, scales: Sequence[float]
) -> list[Float[Array, "b _h _w c"]]:
    """The same as float32 [b, h, w, c], as sums over the few input samples on which an output sample depends.

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


def _centres(number: Any, valid_in: Int[Array, ""], valid_out: Any) -> tuple[Float[Array, "*n"], Any]:
    """Positions of the output samples among the input samples, and the distance up to which inputs count."""
    ratio = valid_in.astype(jnp.float32) / jnp.maximum(valid_out, 1)
    return (number + np.float32(0.5)) * ratio - np.float32(0.5), jnp.maximum(ratio, 1.0)


def _weights(source: Any, centre: Float[Array, "*n"], reach: Any, valid_in: Int[Array, ""]) -> Float[Array, "*n t"]:
    """Weights of the input samples ``source`` for each output sample; all inputs that count have to be among them."""
    distance = jnp.abs(source - centre[..., None]) / jnp.broadcast_to(reach, centre.shape)[..., None]
    weights = jnp.where((source >= 0) & (source < valid_in), jnp.maximum(1 - distance, 0), 0)
    return weights / jnp.maximum(weights.sum(axis=-1, keepdims=True), 1e-6)
