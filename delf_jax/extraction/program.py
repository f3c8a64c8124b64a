"""The extraction program: padded photos -> local features, as pure functions of one configuration and parameters.

    pixels -> pyramid on one canvas -> backbone -> attention -> peaks -> top-k over all scales -> descriptors

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

from delf_jax.extraction.atlas import Atlas, lay_out, pack
from delf_jax.extraction.attention import score
from delf_jax.extraction.descriptors import describe
from delf_jax.extraction.keypoints import BORDER_CELLS, Candidates, above, clear_of_border, peaks, sample
from delf_jax.extraction.pyramid import Size, canvas_size, scaled_size
from delf_jax.extraction.texture import Content, find_content, has_content
from delf_jax.features import Domain, LocalFeatures
from delf_jax.models.architectures import network_of
from delf_jax.models.backbone import BackboneConfig, feature_maps, normalised
from delf_jax.models.receptive_field import cell_offset, receptive_field
from delf_jax.models.regions import Regions
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
    pixels = atlas_pixels(images, valid_hw, config=config)
    features = atlas_map(params, pixels, valid_hw, canvas=_size_of(images), config=config)
    return select(params, features, images, valid_hw, config=config)


def atlas_pixels(
    images: Num[Array | np.ndarray, "b H W 3"], valid_hw: Int[Array | np.ndarray, "b 2"], *, config: ProgramConfig
) -> Float[Array, "b h w 3"]:
    """The first stage of ``extract``: every photo at all scales, side by side; see ``atlas``."""
    return _pixels(images, valid_hw, _usable_scales(_size_of(images), config), config)


def atlas_map(
    params: Params,
    pixels: Float[Array, "b h w 3"],
    valid_hw: Int[Array | np.ndarray, "b 2"],
    *,
    canvas: Size,
    config: ProgramConfig,
) -> Float[Array, "b _h _w c"]:
    """The second stage of ``extract``: the map ``config.layer`` of all scales; ``canvas`` is the images' (H, W)."""
    _, regions = _places(canvas, valid_hw, _usable_scales(canvas, config), config)
    return _maps(params, pixels, regions, config.layer, config)[config.layer]


def select(
    params: Params,
    features: Float[Array, "b h w c"],
    images: Num[Array | np.ndarray, "b H W 3"],
    valid_hw: Int[Array | np.ndarray, "b 2"],
    *,
    config: ProgramConfig,
) -> LocalFeatures:
    """The last stage of ``extract``: the best cells of the map and their descriptors."""
    settings = config.settings
    photos = _batch(images, valid_hw)
    cells = _cells(photos, features, _usable_scales(_size_of(images), config), config)
    best, domain = _best_cells(params, photos, cells, config)
    valid = jnp.isfinite(best.scores)
    descriptors = describe(best.features, params["head"])
    rows = {"keypoints": best.keypoints, "scales": best.scales, "scores": best.scores, "descriptors": descriptors}
    padded: dict[str, Any] = {name: _padded_rows(array, valid, settings.max_features) for name, array in rows.items()}
    valid = _padded_rows(valid, valid, settings.max_features)
    return LocalFeatures(**padded, image_size=photos.valid_hw, valid=valid, domain=domain)


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
    valid_hw = jnp.asarray(valid_hw, jnp.int32)
    return _maps(params, normalised(images, valid_hw, config.backbone), valid_hw, last, config)


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
    photos, config = _batch(images, valid_hw), dataclasses.replace(config, layer=name)
    pixels = _pixels(images, valid_hw, scales, config)
    _, regions = _places(_size_of(images), valid_hw, scales, config)
    cells = _cells(photos, _maps(params, pixels, regions, name, config)[name], scales, config)
    levels = []
    for index, slot in enumerate(cells.regions.slots):
        part = (slice(None), slice(slot.top, slot.top + slot.height), slice(slot.left, slot.left + slot.width))
        features = cells.features[part].astype(jnp.float32)
        levels.append(DenseLevel(features, cells.usable[part], cells.regions.sizes[:, index]))
    return levels


class _Batch(NamedTuple):
    """Padded photos, their (height, width), and where they show something."""

    images: Num[Array, "b H W 3"]
    valid_hw: Int[Array, "b 2"]
    content: Content


def _batch(images: Num[Array | np.ndarray, "b H W 3"], valid_hw: Int[Array | np.ndarray, "b 2"]) -> _Batch:
    images, valid_hw = jnp.asarray(images), jnp.asarray(valid_hw, jnp.int32)
    return _Batch(images, valid_hw, find_content(images.astype(jnp.float32), valid_hw))


def _size_of(images: Num[Array | np.ndarray, "b H W 3"]) -> Size:
    return images.shape[1], images.shape[2]


def _usable_scales(canvas: Size, config: ProgramConfig) -> list[float]:
    """The scales at which a canvas of this size can hold a feature; at least the largest one."""
    scales = config.settings.scales
    return [scale for scale in scales if max(canvas) * scale >= _SMALLEST_SIDE] or [max(scales)]


def _places(
    canvas: Size, valid_hw: Int[Array | np.ndarray, "b 2"], scales: Sequence[float], config: ProgramConfig
) -> tuple[Atlas, Regions]:
    """The atlas for photos on canvases of this size, and where the levels of each photo lie on it, in pixels."""
    stride = receptive_field(config.backbone.network, config.layer).stride
    atlas = pack(tuple(canvas_size(canvas, scale) for scale in scales), stride)
    valid_hw = jnp.asarray(valid_hw, jnp.int32)
    return atlas, Regions(jnp.stack([scaled_size(valid_hw, scale) for scale in scales], axis=1), atlas.slots)


def _pixels(
    images: Num[Array | np.ndarray, "b H W 3"],
    valid_hw: Int[Array | np.ndarray, "b 2"],
    scales: Sequence[float],
    config: ProgramConfig,
) -> Float[Array, "b h w 3"]:
    """What the network sees of the photos at each of ``scales``, on the atlas for the map ``config.layer``."""
    atlas, _ = _places(_size_of(images), valid_hw, scales, config)
    valid_hw = jnp.asarray(valid_hw, jnp.int32)
    photos = normalised(images, valid_hw, config.backbone)
    return lay_out(photos, valid_hw, scales, atlas, dtype=jnp.dtype(config.settings.precision))


def _maps(
    params: Params, images: Array, regions: Regions | Array, last: str, config: ProgramConfig
) -> dict[str, Array]:
    """The maps up to ``last``; arguments as in ``feature_maps``."""
    return feature_maps(
        params["backbone"], images, regions, config=config.backbone, last=last, precision=config.settings.precision
    )


class _Cells(NamedTuple):
    """The cells of one map at all scales.

    Attributes:
        regions: where the levels of the pyramid lie, in cells.
        features: the map.
        centres: (x, y) of each cell's centre, in pixels of the given images.
        usable: cells that may become a feature.
        pitch: distance (x, y) between neighbouring cells, in pixels of the given images.
        scales: the scale of each cell's level.
    """

    regions: Regions
    features: Float[Array, "b h w c"]
    centres: Float[Array, "b h w 2"]
    usable: Bool[Array, "b h w"]
    pitch: Float[Array, "b h w 2"]
    scales: Float[np.ndarray, "h w"]


def _cells(photos: _Batch, features: Array, scales: Sequence[float], config: ProgramConfig) -> _Cells:
    """Where the cells of the map ``config.layer`` lie in the photos."""
    network, name = config.backbone.network, config.layer
    height, width = features.shape[1:3]
    stride = receptive_field(network, name).stride
    _, levels = _places(_size_of(photos.images), photos.valid_hw, scales, config)
    cells = levels
    for layer in network_of(network).layers_to(network, name):
        cells = cells.after(layer)
    place = cells.places(height, width)
    # Where cell (0, 0) of the canvas would lie if it belonged to the level: (y, x) in pixels of the level.
    corner = cell_offset(network, name, levels.sizes) - stride * np.array([slot[:2] for slot in cells.slots])
    ratio = photos.valid_hw[:, None] / jnp.maximum(levels.sizes, 1)
    ratio_of = ratio[:, place]
    grid = stride * np.array(np.mgrid[:height, :width]).transpose(1, 2, 0)
    centres = ((grid + corner[:, place] + 0.5) * ratio_of - 0.5)[..., ::-1]
    is_large = (levels.sizes.min(axis=-1) >= _SMALLEST_SIDE)[:, place]
    usable = cells.mask(height, width) & is_large & has_content(photos.content, centres)
    scale_of = np.array(scales, np.float32)[place]
    return _Cells(cells, features, centres, usable, stride * ratio_of[..., ::-1], scale_of)


def _best_cells(params: Params, photos: _Batch, cells: _Cells, config: ProgramConfig) -> tuple[Candidates, Domain]:
    """The best cells of all scales, by descending score, and where they might have been."""
    batch, height, width, _ = cells.features.shape
    scores = score(cells.features, params["head"], config.settings.scorer)
    cells = cells._replace(usable=cells.usable & (scores > 0))
    detected, offsets = _detect(cells, photos.valid_hw, config)
    keypoints = _moved(cells, offsets)
    scores, detected = scores.reshape(batch, -1), detected.reshape(batch, -1)
    kept = above(scores, where=detected, threshold=config.settings.threshold, quantile=config.settings.quantile)
    scores, best = lax.top_k(jnp.where(kept, scores, -jnp.inf), min(config.settings.max_features, height * width))
    take = jax.vmap(lambda array, rows: array.reshape(-1, 2)[rows])
    positions = jnp.stack([best // width, best % width], axis=-1) + take(offsets, best)
    box = photos.content.box
    candidates = Candidates(
        scores=scores,
        keypoints=jnp.clip(take(keypoints, best), box[:, None, 0], box[:, None, 1]),
        scales=jnp.asarray(cells.scales.reshape(-1))[best],
        features=sample(cells.features, positions),
    )
    return candidates, _domain(cells, photos.valid_hw, config)


def _domain(cells: _Cells, valid_hw: Int[Array, "b 2"], config: ProgramConfig) -> Domain:
    """The places that the cells cover which may become features, in pixels of the given images.

    The levels of the pyramid cover different places. A feature is of a level with the share that the level has of all
    cells, so at a place that all of them cover one of n features has the density sum(1 / cell area) / n.
    """
    margin = BORDER_CELLS * cells.pitch if config.settings.detection == "peaks" else 0
    low = jnp.maximum(cells.centres + 0.5 - cells.pitch / 2, margin)
    high = jnp.minimum(cells.centres + 0.5 + cells.pitch / 2, valid_hw[:, None, None, ::-1] - margin)
    cell = cells.pitch.prod(axis=-1)
    covered = jnp.where(cells.usable, jnp.maximum(high - low, 0).prod(axis=-1) / jnp.maximum(cell, 1e-6), 0)
    count, density = jnp.zeros(len(valid_hw)), jnp.zeros(len(valid_hw))
    for scale in np.unique(cells.scales):
        of_level = (covered > 0) & (cells.scales == scale)
        count += jnp.sum(covered, axis=(1, 2), where=of_level)
        density += 1 / jnp.min(cell, axis=(1, 2), where=of_level, initial=jnp.inf)
    any_place = (count > 0)[:, None]
    x0, y0 = jnp.where(any_place, jnp.min(low, axis=(1, 2), where=(covered > 0)[..., None], initial=jnp.inf), 0).T
    x1, y1 = jnp.where(any_place, jnp.max(high, axis=(1, 2), where=(covered > 0)[..., None], initial=0), 0).T
    return Domain(x0, y0, x1, y1, count / jnp.maximum(density, 1e-12), jnp.ones(len(valid_hw)))


def _detect(
    cells: _Cells, valid_hw: Int[Array, "b 2"], config: ProgramConfig
) -> tuple[Bool[Array, "b h w"], Float[Array, "b h w 2"]]:
    """Which cells may become features, and how far (row, column) in cells their keypoints lie from their centres."""
    if config.settings.detection == "cells":
        return cells.usable, jnp.zeros((*cells.usable.shape, 2))
    strength = jnp.linalg.norm(cells.features.astype(jnp.float32), axis=-1)
    is_peak, offsets = peaks(strength, where=cells.usable)
    return is_peak & clear_of_border(_moved(cells, offsets), valid_hw, cells.pitch), offsets


def _moved(cells: _Cells, offsets: Float[Array, "b h w 2"]) -> Float[Array, "b h w 2"]:
    """The centres (x, y) moved by offsets (row, column) in cells."""
    return cells.centres + offsets[..., ::-1] * cells.pitch


def _padded_rows(rows: Array, where: Bool[Array, "b n"], count: int) -> Array:
    """Rows [b, n, ...], zero outside ``where``, with zero rows behind them up to ``count``."""
    kept = jnp.where(where.reshape(where.shape + (1,) * (rows.ndim - 2)), rows, jnp.zeros((), rows.dtype))
    missing = count - rows.shape[1]
    return jnp.pad(kept, ((0, 0), (0, missing)) + ((0, 0),) * (rows.ndim - 2)) if missing else kept
