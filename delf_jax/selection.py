"""Which cells become features: where the photo shows something, thresholds, and the top-k over all scales."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from delf_jax.pyramid import inside

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
    mask = inside(valid_hw, *images.shape[1:3])[..., None]
    half = _FLAT_WINDOW // 2
    window, stride = (1, _FLAT_WINDOW, _FLAT_WINDOW, 1), (1, _FLAT_STRIDE, _FLAT_STRIDE, 1)
    padding = ((0, 0), (half, half), (half, half), (0, 0))
    highest = lax.reduce_window(jnp.where(mask, images, -jnp.inf), -jnp.inf, lax.max, window, stride, padding)
    lowest = lax.reduce_window(jnp.where(mask, images, jnp.inf), jnp.inf, lax.min, window, stride, padding)
    return ((highest - lowest) > _FLAT_LEVELS).any(axis=-1)


def is_textured(texture: Bool[Array, "b gh gw"], keypoints: Float[Array, "b n 2"]) -> Bool[Array, "b n"]:
    """``texture_map`` looked up at (x, y) positions in pixels of the image it was made from."""
    cell = jnp.round(keypoints / _FLAT_STRIDE).astype(jnp.int32)
    rows = jnp.clip(cell[..., 1], 0, texture.shape[1] - 1)
    columns = jnp.clip(cell[..., 0], 0, texture.shape[2] - 1)
    return jax.vmap(lambda t, r, c: t[r, c])(texture, rows, columns)


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
