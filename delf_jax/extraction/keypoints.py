"""Which places become features: where the photo shows something, peaks, thresholds, the top-k over scales."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from delf_jax.models.layers import valid_cells

_BORDER_CELLS = 1.6
_FLAT_LEVELS = 2.0
_FLAT_WINDOW = 16
_FLAT_STRIDE = _FLAT_WINDOW // 2


class Candidates(NamedTuple):
    """The best cells of one scale, or of all: the same rows in every array, by descending score where valid.

    Attributes:
        scores: float32 [b, k], -inf where not valid.
        keypoints: float32 [b, k, 2], (x, y).
        scales: float32 [b, k].
        features: float32 [b, k, c].
    """

    scores: Float[Array, "b k"]
    keypoints: Float[Array, "b k 2"]
    scales: Float[Array, "b k"]
    features: Float[Array, "b k c"]


def texture_map(images: Float[Array, "b h w c"], valid_hw: Int[Array, "b 2"]) -> Bool[Array, "b gh gw"]:
    """True where the photo varies: 16 x 16 pixel windows every 8 pixels, window (i, j) centred on pixel (8 i, 8 j).

    A window whose pixels differ by at most 2 of 255 levels in every channel shows nothing that could be localised.

    Args:
        images: float32 [b, h, w, c] in 0-255.
        valid_hw: int32 [b, 2]; pixels outside are not looked at.
    """
    mask = valid_cells(valid_hw, *images.shape[1:3])[..., None]
    highest = _windows(jnp.where(mask, images, -jnp.inf), jnp.maximum, -jnp.inf)
    lowest = _windows(jnp.where(mask, images, jnp.inf), jnp.minimum, jnp.inf)
    height, width = (side // _FLAT_STRIDE + 1 for side in images.shape[1:3])
    return ((highest - lowest) > _FLAT_LEVELS).any(axis=-1)[:, :height, :width]


def _windows(images: Float[Array, "b h w c"], extreme: Any, nothing: float) -> Float[Array, "b gh gw c"]:
    """``extreme``, a ufunc of ``jnp``, of every window of ``texture_map``: of the four squares that it is made of."""
    for axis in (1, 2):
        squares = -(-images.shape[axis] // _FLAT_STRIDE)
        padding = [(0, 0)] * 4
        padding[axis] = (0, squares * _FLAT_STRIDE - images.shape[axis])
        images = jnp.pad(images, padding, constant_values=nothing)
        shape = images.shape
        images = extreme.reduce(images.reshape(*shape[:axis], squares, _FLAT_STRIDE, *shape[axis + 1 :]), axis=axis + 1)
        padding[axis] = (1, 1)
        images = jnp.pad(images, padding, constant_values=nothing)
        images = extreme(lax.slice_in_dim(images, 0, -1, axis=axis), lax.slice_in_dim(images, 1, None, axis=axis))
    return images


def is_textured(texture: Bool[Array, "b gh gw"], keypoints: Float[Array, "b n 2"]) -> Bool[Array, "b n"]:
    """``texture_map`` looked up at (x, y) positions in pixels of the image it was made from."""
    cell = jnp.round(keypoints / _FLAT_STRIDE).astype(jnp.int32)
    rows = jnp.clip(cell[..., 1], 0, texture.shape[1] - 1)
    columns = jnp.clip(cell[..., 0], 0, texture.shape[2] - 1)
    return jax.vmap(lambda t, r, c: t[r, c])(texture, rows, columns)


def peaks(
    strength: Float[Array, "b h w"], *, where: Bool[Array, "b h w"]
) -> tuple[Bool[Array, "b h w"], Float[Array, "b h w 2"]]:
    """Local maxima of a map, and where between the cells they stand.

    A peak is at least as strong as its four neighbours in ``where``. Along each axis a parabola through the cell and
    its two neighbours places it: with l, c, r the three strengths, ``(r - l) / (2 (2 c - l - r))``, at most half
    a cell. A missing neighbour (strength 0, as outside the photo) leaves the cell's own position.

    Returns:
        bool [b, h, w], and the offsets (row, column) in cells, float32 [b, h, w, 2].
    """
    rivals = jnp.pad(jnp.where(where, strength, -jnp.inf), ((0, 0), (1, 1), (1, 1)), constant_values=-jnp.inf)
    values = jnp.pad(strength, ((0, 0), (1, 1), (1, 1)))
    around = [
        [(slice(None), slice(0, -2), slice(1, -1)), (slice(None), slice(2, None), slice(1, -1))],
        [(slice(None), slice(1, -1), slice(0, -2)), (slice(None), slice(1, -1), slice(2, None))],
    ]
    is_peak, offsets = where, []
    for low, high in around:
        is_peak &= (strength >= rivals[low]) & (strength >= rivals[high])
        before, after = values[low], values[high]
        curvature = 2 * strength - before - after
        offset = (after - before) / (2 * jnp.maximum(curvature, 1e-6))
        offsets.append(jnp.where((before > 0) & (after > 0), jnp.clip(offset, -0.5, 0.5), 0))
    return is_peak, jnp.stack(offsets, axis=-1)


def clear_of_border(
    keypoints: Float[Array, "b h w 2"], valid_hw: Int[Array, "b 2"], pitch: Float[Array, "b 2"]
) -> Bool[Array, "b h w"]:
    """True where a keypoint is more than 1.6 cells from every edge of its photo.

    Nearer to it, features describe the zeros around the photo: on non-matching photos the surest matches were skies
    that agreed at their corners.

    Args:
        keypoints: (x, y) in pixels, centre of the top-left pixel at (0, 0).
        valid_hw: (height, width) of each photo in the same pixels.
        pitch: pixels (x, y) between cells.
    """
    from_low = (keypoints + 0.5) / pitch[:, None, None]
    from_high = (valid_hw[:, ::-1] / pitch)[:, None, None] - from_low
    return (jnp.minimum(from_low, from_high) > _BORDER_CELLS).all(axis=-1)


def sample(dense: Float[Array, "b h w c"], positions: Float[Array, "b k 2"]) -> Float[Array, "b k c"]:
    """Bilinear interpolation of a map at (row, column) positions in cells, clamped to the map."""
    height, width = dense.shape[1:3]
    limit = jnp.array([height - 1, width - 1])
    positions = jnp.clip(positions, 0, limit)
    low = jnp.floor(positions).astype(jnp.int32)
    high = jnp.minimum(low + 1, limit)
    part = (positions - low)[..., None]
    pick = jax.vmap(lambda d, rows, columns: d[rows, columns])
    top = pick(dense, low[..., 0], low[..., 1]) * (1 - part[..., 1, :])
    top += pick(dense, low[..., 0], high[..., 1]) * part[..., 1, :]
    bottom = pick(dense, high[..., 0], low[..., 1]) * (1 - part[..., 1, :])
    bottom += pick(dense, high[..., 0], high[..., 1]) * part[..., 1, :]
    return top * (1 - part[..., 0, :]) + bottom * part[..., 0, :]


def top_candidates(candidates: Candidates, k: int) -> Candidates:
    """The ``k`` best rows; all of them where there are fewer."""
    k = min(k, candidates.scores.shape[1])
    _, rows = lax.top_k(candidates.scores, k)
    return Candidates(*(jax.vmap(lambda a, r: a[r])(array, rows) for array in candidates))


def above(
    scores: Float[Array, "b n"],
    *,
    where: Bool[Array, "b n"],
    threshold: float | None = None,
    quantile: float | None = None,
) -> Bool[Array, "b n"]:
    """``where``, less the scores below an absolute threshold or below a quantile of the photo's own valid scores."""
    if threshold is not None:
        where &= scores >= threshold
    if quantile is not None:
        ordered = jnp.sort(jnp.where(where, scores, jnp.inf), axis=1)
        rank = jnp.floor(quantile * where.sum(axis=1, keepdims=True)).astype(jnp.int32)
        where &= scores >= jnp.take_along_axis(ordered, jnp.minimum(rank, scores.shape[1] - 1), axis=1)
    return where
