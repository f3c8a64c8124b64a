"""The map, boxes and masks of one photo: first on the encoder's device, then on the host."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from delf_jax.errors import PredictorError
from localization.encoders.base import DenseFeatures, EncodedPhoto
from localization.foreground.classes import Classifier, mean_feature
from localization.maps import boxes, grabcut
from localization.maps.activation import AnyArray, cosine_map, require_channels, resample, stretch, upsample
from localization.maps.boxes import Box

# A Classifier of the features, or any function of images to logits.
Classify = Classifier | Callable[[np.ndarray], Any]

_MINIMUM_AREA = 0.002


@dataclasses.dataclass(frozen=True, eq=False)
class Localization:
    """What was found in one photo.

    Attributes:
        found: whether the score is above the predictor's ``found_threshold``, the photo has more than one colour, and
            the map has a region.
        score: largest cosine with w*, -1 to 1, before the map was stretched.
        boxes: boxes [x0, y0, x1, y1, score] of all regions, highest score first, as pixel edges in the upright original
            photo. Empty if nothing was found.
        activation: float32 [h, w] in 0-1, the map in pixels of the photo as the encoder saw it.
        masks: bool [h, w] for each box, in the same pixels.
        image_size: (height, width) of the upright original photo.
        label: the class whose w* was used, or None.
    """

    found: bool
    score: float
    boxes: list[Box]
    activation: Float[np.ndarray, "h w"]
    masks: list[Bool[np.ndarray, "h w"]]
    image_size: tuple[int, int]
    label: str | None = None


def mean_over_scales(
    dense: DenseFeatures, map_of: Callable[[Float[Array, "b _h _w c"]], Float[Array, "b _h _w"]]
) -> tuple[Float[Array, "b h w"], DenseFeatures]:
    """The mean of ``map_of(features)`` over all scales, at the cells of the finest one.

    Returns:
        The mean, and the finest scale.
    """
    levels = [dense, *dense.other_scales]
    finest = max(levels, key=lambda level: level.features.shape[1] * level.features.shape[2])
    height, width = finest.features.shape[1:3]
    maps = [
        map_of(level.features)
        if level is finest
        else resample(
            map_of(level.features),
            level.cells_hw,
            level.grid,
            finest.grid,
            onto_hw=finest.cells_hw,
            shape=(height, width),
        )
        for level in levels
    ]
    return sum(maps[1:], maps[0]) / len(maps), finest


def map_in_pixels(arguments: Any, dense: DenseFeatures) -> dict[str, Any]:
    """The map for the direction ``arguments["w"]`` [C], upsampled to the batch's canvas; pure, for ``Encoder.run``."""
    require_channels(dense.features.shape[-1], arguments["w"].shape[-1])
    cosines, level = mean_over_scales(dense, lambda features: cosine_map(features, arguments["w"]))
    maps = stretch(cosines, level.cells_hw)
    pixels = upsample(maps.activation, level.cells_hw, level.grid, dense.image_hw, dense.canvas)
    return {"activation": pixels, "peak": maps.peak, "low": maps.low, "high": maps.high}


def maps_of_classes(arguments: Any, dense: DenseFeatures) -> dict[str, Any]:
    """Cosines with each of ``arguments["directions"]`` [K, C], and the mean feature; pure, for ``Encoder.run``."""
    cosines, level = cosines_at_scales(dense, arguments["directions"])
    return {"cosines": cosines, "mean": mean_feature(dense), "cells_hw": level.cells_hw, "grid": level.grid}


def cosines_at_scales(
    dense: DenseFeatures, directions: Float[AnyArray, "k c"]
) -> tuple[Float[Array, "b h w k"], DenseFeatures]:
    """``mean_over_scales`` of the cosines with each of K directions."""
    require_channels(dense.features.shape[-1], directions.shape[-1])
    stacked = []
    for w in jnp.asarray(directions):
        cosines, level = mean_over_scales(dense, functools.partial(cosine_map, w=w))
        stacked.append(cosines)
    return jnp.stack(stacked, axis=-1), level


def predicted_class(classify: Classify, names: list[str], encoded: EncodedPhoto, row: dict[str, Any]) -> str:
    """The most likely class of a photo.

    Raises:
        PredictorError: the class was not fitted, the number of logits is not that of the classes, or a function is to
            classify a feature map.
    """
    if isinstance(classify, Classifier):
        best = classify.ranked(row["mean"])[0]
        if best not in names:
            raise PredictorError(f"the classifier's class {best!r} was not fitted; fit with the same labels")
        return best
    if encoded.pixels is None:
        raise PredictorError("feature maps have no pixels to classify; use a Classifier of the features")
    logits = np.asarray(classify(encoded.pixels[None])).reshape(-1)
    if len(logits) != len(names):
        raise PredictorError(f"the classifier gave {len(logits)} logits for {len(names)} fitted classes")
    return names[int(logits.argmax())]


def map_of_class(row: dict[str, Any], index: int, size: tuple[int, int]) -> dict[str, Any]:
    """The row of ``map_in_pixels`` for one class, from the row of ``maps_of_classes``."""
    maps = stretch(row["cosines"][..., index], row["cells_hw"])
    pixels = upsample(maps.activation, row["cells_hw"], row["grid"], np.array(size), size)
    return {"activation": np.asarray(pixels), "peak": maps.peak, "low": maps.low, "high": maps.high}


def localization_of(
    encoded: EncodedPhoto,
    row: dict[str, Any],
    *,
    threshold: float,
    found_threshold: float,
    edges: bool,
    label: str | None,
) -> Localization:
    """Boxes and masks of one photo from its row of ``map_in_pixels``; options as in ``Predictor.localize_stream``."""
    h, w = encoded.size
    activation, score = row["activation"][:h, :w], float(row["peak"])
    if score <= found_threshold or _is_plain(encoded):
        return Localization(False, score, [], activation, [], encoded.original_size, label)
    cosines = float(row["low"]), float(row["high"])
    regions = boxes.find_regions(activation, threshold, cosines=cosines, minimum_area=_MINIMUM_AREA)
    masks = [region.mask for region in regions]
    outlines = [region.box for region in regions]
    if edges and encoded.pixels is not None:
        masks = [grabcut.refine_mask(encoded.pixels, activation, mask) for mask in masks]
        outlines = [boxes.mask_box(mask, box.score) for mask, box in zip(masks, outlines)]
    scaled = [boxes.rescale_box(box, encoded.size, encoded.original_size) for box in outlines]
    return Localization(bool(scaled), score, scaled, activation, masks, encoded.original_size, label)


def _is_plain(encoded: EncodedPhoto) -> bool:
    """Whether all pixels are equal: what the map then shows is the border of the photo."""
    return encoded.pixels is not None and bool((encoded.pixels == encoded.pixels[0, 0]).all())
