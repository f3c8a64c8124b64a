"""The extraction program: padded photos -> local features, as pure functions of one configuration and parameters.

    pixels -> pyramid -> backbone -> attention -> peaks -> top-k of each scale -> top-k over scales -> descriptors

Nothing here knows files, devices or streams; ``delf_jax.extractor`` compiles these functions and feeds them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from delf_jax.extraction.attention import score
from delf_jax.extraction.descriptors import describe
from delf_jax.extraction.keypoints import Candidates, above, clear_of_border, peaks, sample, top_candidates
from delf_jax.extraction.pyramid import resize, scaled_size
from delf_jax.extraction.texture import Content, find_content, has_content
from delf_jax.features import LocalFeatures
from delf_jax.models.backbone import BackboneConfig, feature_maps
from delf_jax.models.layers import valid_cells
from delf_jax.models.receptive_field import cell_centres, receptive_field
from delf_jax.settings import ExtractionSettings

Params = Mapping[str, Any]

# Pixels; a photo, or a photo reduced by a scale of the pyramid, with a shorter side gives no features.
_SMALLEST_SIDE = 10


@dataclasses.dataclass(frozen=True)
class ProgramConfig:
    """Everything but the arrays that decides what the program computes; hashable, so static under ``jit``.

    Attributes:
        backbone: the network and its normalisation.
        settings: scales, scorer, number of features and so on.
        layer: the named map that the head belongs to.
    """

    backbone: BackboneConfig
    settings: ExtractionSettings
    layer: str


def extract(
    params: Params,
    images: Num[Array | np.ndarray, "b H W 3"],
    valid_hw: Int[Array | np.ndarray, "b 2"],
    *,
    config: ProgramConfig,
) -> LocalFeatures:
    """Local features of a padded batch.

    Args:
        params: ``{"backbone": ..., "head": Head.arrays()}``.
        images: RGB, uint8 or float32 in 0-255; photos in the top-left corners.
        valid_hw: int32, (height, width) of each photo; (0, 0) marks an empty row.
        config: what to compute.

    Returns:
        LocalFeatures with leading axes [B, K], K = ``max_features``, by descending score. Keypoints and scales are
        relative to the given images. ``valid`` is False on rows without a feature, which are zero.
    """
    settings = config.settings
    photos = _batch(images, valid_hw)
    scales = _usable_scales(settings.scales, max(photos.images.shape[1:3]))
    levels = [_level_candidates(params, photos, scale, config) for scale in scales]
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *levels)
    best = top_candidates(joined, settings.max_features)
    valid = above(
        best.scores, where=jnp.isfinite(best.scores), threshold=settings.threshold, quantile=settings.quantile
    )
    descriptors = describe(best.features, params["head"])
    rows = {"keypoints": best.keypoints, "scales": best.scales, "scores": best.scores, "descriptors": descriptors}
    padded = {name: _padded_rows(array, valid, settings.max_features) for name, array in rows.items()}
    return LocalFeatures(**padded, image_size=photos.valid_hw, valid=_padded_rows(valid, valid, settings.max_features))


def dense_maps(
    params: Params,
    images: Num[Array | np.ndarray, "b H W 3"],
    valid_hw: Int[Array | np.ndarray, "b 2"],
    *,
    config: ProgramConfig,
    last: str | None = None,
) -> dict[str, Float[Array, "b _h _w _c"]]:
    """The named feature maps of a padded batch at its own size; differentiable.

    Args:
        params, images, valid_hw, config: as in ``extract``.
        last: the deepest map wanted; layers behind it are not computed. None for all maps.

    Returns:
        The maps up to ``last``, float32 or bfloat16 as ``precision`` says, [B, h, w, C], zero outside each photo.
    """
    last = last or config.backbone.map_names[-1]
    maps, _ = _scaled_maps(params, jnp.asarray(images), jnp.asarray(valid_hw, jnp.int32), 1.0, last, config)
    return maps


class DenseLevel(NamedTuple):
    """One named map at one scale of the pyramid.

    Attributes:
        features: float32, the map.
        usable: True on cells inside the photo that show something; see ``texture``.
        size: int32, the cells (height, width) that the photo fills.
    """

    features: Float[Array, "b h w c"]
    usable: Bool[Array, "b h w"]
    size: Int[Array, "b 2"]


def dense_levels(
    params: Params,
    images: Num[Array | np.ndarray, "b H W 3"],
    valid_hw: Int[Array | np.ndarray, "b 2"],
    *,
    config: ProgramConfig,
    name: str,
    scales: Sequence[float],
) -> list[DenseLevel]:
    """The map ``name`` of a padded batch at each of ``scales``; arguments as in ``extract``."""
    photos = _batch(images, valid_hw)
    levels = []
    for scale in scales:
        cells = _cells(params, photos, scale, name, config)
        size = config.backbone.map_size(scaled_size(photos.valid_hw, scale), name)
        levels.append(DenseLevel(cells.features, cells.usable, size))
    return levels


class _Batch(NamedTuple):
    """Padded photos, their (height, width), and where they show something."""

    images: Num[Array, "b H W 3"]
    valid_hw: Int[Array, "b 2"]
    content: Content


def _batch(images: Num[Array | np.ndarray, "b H W 3"], valid_hw: Int[Array | np.ndarray, "b 2"]) -> _Batch:
    images, valid_hw = jnp.asarray(images), jnp.asarray(valid_hw, jnp.int32)
    return _Batch(images, valid_hw, find_content(images.astype(jnp.float32), valid_hw))


def _usable_scales(scales: Sequence[float], longest: int) -> list[float]:
    """The scales at which a canvas with this longest side can hold a feature; at least the largest one."""
    return [scale for scale in scales if longest * scale >= _SMALLEST_SIDE] or [max(scales)]


def _scaled_maps(
    params: Params, images: Array, valid_hw: Array, scale: float, last: str, config: ProgramConfig
) -> tuple[dict[str, Array], Array]:
    """The maps up to ``last`` of photos resized by ``scale``, and the (height, width) of the resized photos."""
    resized, scaled_hw = resize(images, valid_hw, scale)
    maps = feature_maps(
        params["backbone"],
        resized,
        scaled_hw,
        config=config.backbone,
        last=last,
        precision=config.settings.precision,
    )
    return maps, scaled_hw


class _Cells(NamedTuple):
    """The cells of one map at one scale.

    Attributes:
        features: the map.
        centres: (x, y) of each cell's centre, in pixels of the given images.
        usable: cells that may become a feature.
        pitch: distance (x, y) between neighbouring cells, in pixels of the given images.
    """

    features: Float[Array, "b h w c"]
    centres: Float[Array, "b h w 2"]
    usable: Bool[Array, "b h w"]
    pitch: Float[Array, "b 2"]


def _cells(params: Params, photos: _Batch, scale: float, name: str, config: ProgramConfig) -> _Cells:
    """The cells of the map ``name`` of photos resized by ``scale``."""
    maps, scaled_hw = _scaled_maps(params, photos.images, photos.valid_hw, scale, name, config)
    features = maps[name].astype(jnp.float32)
    height, width = features.shape[1:3]
    network = config.backbone.network
    ratio = (photos.valid_hw / jnp.maximum(scaled_hw, 1))[:, ::-1]
    centres = (cell_centres(network, name, scaled_hw, (height, width)) + 0.5) * ratio[:, None, None] - 0.5
    usable = valid_cells(config.backbone.map_size(scaled_hw, name), height, width)
    usable &= (scaled_hw.min(axis=-1) >= _SMALLEST_SIDE)[:, None, None]
    usable &= has_content(photos.content, centres)
    return _Cells(features, centres, usable, receptive_field(network, name).stride * ratio)


def _level_candidates(params: Params, photos: _Batch, scale: float, config: ProgramConfig) -> Candidates:
    """The best cells of one scale."""
    cells = _cells(params, photos, scale, config.layer, config)
    batch, height, width, _ = cells.features.shape
    scores = score(cells.features, params["head"], config.settings.scorer)
    detected, offsets = _detect(cells._replace(usable=cells.usable & (scores > 0)), photos.valid_hw, config)
    keypoints = _moved(cells, offsets)
    scores, best = lax.top_k(
        jnp.where(detected, scores, -jnp.inf).reshape(batch, -1), min(config.settings.max_features, height * width)
    )
    take = jax.vmap(lambda array, rows: array.reshape(-1, 2)[rows])
    positions = jnp.stack([best // width, best % width], axis=-1) + take(offsets, best)
    box = photos.content.box
    return Candidates(
        scores=scores,
        keypoints=jnp.clip(take(keypoints, best), box[:, None, 0], box[:, None, 1]),
        scales=jnp.full(scores.shape, scale, jnp.float32),
        features=sample(cells.features, positions),
    )


def _detect(
    cells: _Cells, valid_hw: Int[Array, "b 2"], config: ProgramConfig
) -> tuple[Bool[Array, "b h w"], Float[Array, "b h w 2"]]:
    """Which cells may become features, and how far (row, column) in cells their keypoints lie from their centres."""
    if config.settings.detection == "cells":
        return cells.usable, jnp.zeros((*cells.usable.shape, 2))
    is_peak, offsets = peaks(jnp.linalg.norm(cells.features, axis=-1), where=cells.usable)
    return is_peak & clear_of_border(_moved(cells, offsets), valid_hw, cells.pitch), offsets


def _moved(cells: _Cells, offsets: Float[Array, "b h w 2"]) -> Float[Array, "b h w 2"]:
    """The centres (x, y) moved by offsets (row, column) in cells."""
    return cells.centres + offsets[..., ::-1] * cells.pitch[:, None, None]


def _padded_rows(rows: Array, where: Bool[Array, "b n"], count: int) -> Array:
    """Rows [b, n, ...], zero outside ``where``, with zero rows behind them up to ``count``."""
    kept = jnp.where(where.reshape(where.shape + (1,) * (rows.ndim - 2)), rows, jnp.zeros((), rows.dtype))
    missing = count - rows.shape[1]
    return jnp.pad(kept, ((0, 0), (0, missing)) + ((0, 0),) * (rows.ndim - 2)) if missing else kept
