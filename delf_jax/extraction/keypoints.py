"""Which cells become features: peaks away from the border, sampled between cells, thresholds."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

BORDER_CELLS = 1.6


class Candidates(NamedTuple):
    """The best cells; row i of every array belongs to the same cell.

    Attributes:
        scores: float32 [b, k], -inf where the row holds no cell.
        keypoints: float32 [b, k, 2], (x, y).
        scales: float32 [b, k].
        features: float32 [b, k, c].
    """

    scores: Float[Array, "b k"]
    keypoints: Float[Array, "b k 2"]
    scales: Float[Array, "b k"]
    features: Float[Array, "b k c"]


def peaks(
    strength: Float[Array, "b h w"], *, where: Bool[Array, "b h w"]
) -> tuple[Bool[Array, "b h w"], Float[Array, "b h w 2"]]:
    """Local maxima of a map, and how far from the centre of its cell each of them lies.

    A cell is a peak if it is the strongest of itself and those of its four neighbours that are in ``where``; of equal
    cells the first counts, row by row. Along each axis a parabola through the cell and its two neighbours places the
    peak: for the strengths l, c, r it lies ``(r - l) / (2 (2 c - l - r))`` cells away, at most half a cell. Where a
    neighbour is not in ``where``, the peak stays at the centre of its cell.

    Returns:
        bool [b, h, w], and the offsets (row, column) in cells, float32 [b, h, w, 2].
    """
    known = jnp.pad(jnp.where(where, strength, -jnp.inf), ((0, 0), (1, 1), (1, 1)), constant_values=-jnp.inf)
    around = [
        [(slice(None), slice(0, -2), slice(1, -1)), (slice(None), slice(2, None), slice(1, -1))],
        [(slice(None), slice(1, -1), slice(0, -2)), (slice(None), slice(1, -1), slice(2, None))],
    ]
    is_peak, offsets = where, []
    for low, high in around:
        before, after = known[low], known[high]
        is_peak &= (strength > before) & (strength >= after)
        between = jnp.isfinite(before) & jnp.isfinite(after)
        rise = jnp.where(between, after - before, 0)
        curvature = jnp.where(between, 2 * strength - before - after, 1)
        offsets.append(jnp.clip(rise / (2 * jnp.maximum(curvature, 1e-6)), -0.5, 0.5))
    return is_peak, jnp.stack(offsets, axis=-1)


def clear_of_border(
    keypoints: Float[Array, "b h w 2"], valid_hw: Int[Array, "b 2"], pitch: Float[Array, "b h w 2"]
) -> Bool[Array, "b h w"]:
    """True where a keypoint is more than 1.6 cells away from every edge of its photo.

    Features closer to an edge describe the zeros around the photo: without this rule, the surest matches between
    unrelated photos were skies that agreed at the corners of the photos.

    Args:
        keypoints: (x, y) in pixels, centre of the top-left pixel at (0, 0).
        valid_hw: (height, width) of each photo in the same pixels.
        pitch: distance (x, y) between neighbouring cells, in the same pixels.
    """
    from_low = (keypoints + 0.5) / pitch
    from_high = valid_hw[:, None, None, ::-1] / pitch - from_low
    return (jnp.minimum(from_low, from_high) > BORDER_CELLS).all(axis=-1)


def sample(dense: Float[Array, "b h w c"], positions: Float[Array, "b k 2"]) -> Float[Array, "b k c"]:
    """Bilinear interpolation of a map at (row, column) positions in cells, clamped to the map; float32."""
    height, width = dense.shape[1:3]
    limit = jnp.array([height - 1, width - 1])
    positions = jnp.clip(positions, 0, limit)
    low = jnp.floor(positions).astype(jnp.int32)
    high = jnp.minimum(low + 1, limit)
    part = (positions - low)[..., None]
    pick = jax.vmap(lambda d, rows, columns: d[rows, columns].astype(jnp.float32))
    top = pick(dense, low[..., 0], low[..., 1]) * (1 - part[..., 1, :])
    top += pick(dense, low[..., 0], high[..., 1]) * part[..., 1, :]
    bottom = pick(dense, high[..., 0], low[..., 1]) * (1 - part[..., 1, :])
    bottom += pick(dense, high[..., 0], high[..., 1]) * part[..., 1, :]
    return top * (1 - part[..., 0, :]) + bottom * part[..., 0, :]


def above(
    scores: Float[Array, "b n"],
    *,
    where: Bool[Array, "b n"],
    threshold: float | None = None,
    quantile: float | None = None,
) -> Bool[Array, "b n"]:
    """``where`` without the scores below ``threshold`` or below that quantile of the photo's own scores.

    With n scores in ``where``, the quantile q is score number floor(q n), counted from 0 in ascending order. It is
    taken of the scores that the threshold leaves.
    """
    if threshold is not None:
        where &= scores >= threshold
    if quantile is not None:
        ordered = jnp.sort(jnp.where(where, scores, jnp.inf), axis=1)
        rank = jnp.floor(quantile * where.sum(axis=1, keepdims=True)).astype(jnp.int32)
        where &= scores >= jnp.take_along_axis(ordered, jnp.minimum(rank, scores.shape[1] - 1), axis=1)
    return where
