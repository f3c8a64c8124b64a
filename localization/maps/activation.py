"""Activation maps: the cosine of every position with the foreground direction. Pure functions of arrays."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from delf_jax.errors import PredictorError
from delf_jax.models.layers import valid_cells
from localization.grid import PIXELS, Grid

AnyArray = Array | np.ndarray


class ActivationMap(NamedTuple):
    """The map of a photo, stretched to 0-1, and the cosines that it was made from.

    Attributes:
        activation: float32 [..., h, w] in 0-1, zero outside the valid area.
        peak: float32 [...], the largest cosine with w* before clamping (-1 to 1): the raw score. Zero is the bisector
            of the mean feature and the mean unit feature: the level between foreground and background.
        low, high: float32 [...], the clamped cosines that became 0 and 1; equal if there is no object.
    """

    activation: Float[Array, "*b h w"]
    peak: Float[Array, "*b"]
    low: Float[Array, "*b"]
    high: Float[Array, "*b"]


def cosine_map(dense: Float[AnyArray, "*b h w c"], w: Float[AnyArray, " c"]) -> Float[Array, "*b h w"]:
    """The cosine of every position with the unit vector ``w``, A[p] = <f / ||f||, w>; 0 if the feature is 0."""
    dense = jnp.asarray(dense, jnp.float32)
    norms = jnp.maximum(jnp.linalg.norm(dense, axis=-1), 1e-12)
    return jnp.matmul(dense, jnp.asarray(w, jnp.float32), precision=lax.Precision.HIGHEST) / norms


def require_channels(found: int, fitted: int) -> None:
    """Raises PredictorError if the features have another number of channels than those that were fitted."""
    if found != fitted:
        raise PredictorError(
            f"features have {found} channels, those of the predictor {fitted}; use the encoder that it was fitted on"
        )


def stretch(cosines: Float[AnyArray, "*b h w"], valid_hw: Int[AnyArray, "*b 2"]) -> ActivationMap:
    """Clamps at 0 and stretches the valid cells of each photo to 0-1; a map of equal values becomes zero."""
    valid = valid_cells(valid_hw, *cosines.shape[-2:])
    peak = jnp.max(jnp.where(valid, cosines, -jnp.inf), axis=(-2, -1))
    clamped = jnp.maximum(cosines, 0)
    low = jnp.min(jnp.where(valid, clamped, jnp.inf), axis=(-2, -1))
    high = jnp.max(jnp.where(valid, clamped, 0), axis=(-2, -1))
    spread = high - low
    scaled = (clamped - low[..., None, None]) / jnp.where(spread > 0, spread, 1)[..., None, None]
    return ActivationMap(jnp.where(valid, scaled, 0), peak, low, high)


def activation_map(
    dense: Float[AnyArray, "*b h w c"], w: Float[AnyArray, " c"], valid_hw: Int[AnyArray, "*b 2"]
) -> ActivationMap:
    """The foreground map of each photo: cosine with w*, clamped at 0, min-max to 0-1 (Song et al., ICCV 2023).

    Args:
        dense: [..., h, w, C] feature maps.
        w: [C], the unit foreground direction.
        valid_hw: int [..., 2], (height, width) in cells of each photo's own part of the map, at the top left.
    """
    return stretch(cosine_map(dense, w), valid_hw)


def upsample(
    maps: Float[AnyArray, "*b h w"],
    valid_hw: Int[AnyArray, "*b 2"],
    grid: Grid,
    image_hw: Int[AnyArray, "*b 2"],
    canvas: tuple[int, int],
) -> Float[Array, "*b H W"]:
    """``resample`` to the pixels of photos of ``image_hw`` (height, width); ``canvas`` is the shape of the result."""
    return resample(maps, valid_hw, grid, PIXELS, onto_hw=image_hw, shape=canvas)


def resample(
    maps: Float[AnyArray, "*b h w"],
    valid_hw: Int[AnyArray, "*b 2"],
    grid: Grid,
    onto: Grid,
    *,
    onto_hw: Int[AnyArray, "*b 2"],
    shape: tuple[int, int],
) -> Float[Array, "*b H W"]:
    """Maps at the cells of another grid of the same photos, bilinear, by two small matrices.

    Beyond the centres of its outermost cells a map keeps their values.

    Args:
        maps: [..., h, w]; only the top-left ``valid_hw`` cells are used.
        valid_hw: int [..., 2], (height, width) in cells.
        grid: where the cells of ``maps`` lie.
        onto: where the cells of the result lie.
        onto_hw: int [..., 2], (height, width) of each result in cells.
        shape: static (height, width) of the result; zero outside ``onto_hw``.
    """
    matrices = []
    for axis, count in enumerate(shape):
        index = jnp.arange(count, dtype=jnp.float32)
        first, step = (jnp.asarray(part)[..., axis, None] for part in onto)
        weights = interpolation_matrix(
            grid.position(first + step * index, axis), jnp.asarray(valid_hw)[..., axis], maps.shape[axis - 2]
        )
        inside = index < jnp.asarray(onto_hw)[..., axis, None]
        matrices.append(jnp.where(inside[..., None], weights, 0))
    rows, columns = matrices
    return jnp.einsum("...Hh,...hw,...Ww->...HW", rows, maps, columns, precision=lax.Precision.HIGHEST)


def interpolation_matrix(
    position: Float[AnyArray, "*b o"], cells: Int[AnyArray, "*b"], size: int
) -> Float[Array, "*b o {size}"]:
    """The weights of ``size`` cells, of which the first ``cells`` are valid, at each position between them."""
    last = jnp.maximum(jnp.asarray(cells) - 1, 0)[..., None]
    position = jnp.clip(jnp.asarray(position), 0, last)
    return jnp.maximum(1 - jnp.abs(position[..., None] - jnp.arange(size)), 0)
