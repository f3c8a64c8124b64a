"""Boxes of w* and of other methods, from the same feature maps of whole photos with one or several objects."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from benchmarks.localization_peers import Ddt, lost_box, tokencut_box
from delf_jax.errors import ImageError
from localization.encoders.base import DenseFeatures, Encoder
from localization.evaluation import detection, metrics
from localization.evaluation.annotated_photo import AnnotatedPhoto
from localization.grid import Grid
from localization.maps.activation import upsample
from localization.maps.boxes import largest_boxes
from localization.predictor import Predictor

Boxes = Float[np.ndarray, "n 5"]

_SHARES = np.arange(1, 21) / 20
_RANDOM = 10


class PhotoMap(NamedTuple):
    """The feature map of a photo that its encoder sees at ``size`` (height, width)."""

    features: Float[np.ndarray, "h w c"]
    grid: Grid
    size: tuple[int, int]


def measure(predictor: Predictor, photos: Sequence[AnnotatedPhoto]) -> list[dict[str, Any]]:
    """CorLoc of the best box of each method, and average precision and recall of all its boxes.

    Methods with one box a photo have the share of the photo that it covers as its score. The centred box marked as an
    oracle has the best size for these photos.

    Args:
        predictor: its encoder computes the feature maps; its default finds the boxes of w*.
        photos: photos without a true box are left out.
    """
    photos = [photo for photo in photos if photo.boxes]
    pixels = {number: photo.load().pixels for number, photo in enumerate(photos)}
    sizes = [(photo.shape[0], photo.shape[1]) for photo in pixels.values()]
    truth = [np.array(photo.boxes, np.float64) for photo in photos]
    found = {"w*": [np.array(one.boxes, np.float64).reshape(-1, 5) for one in predictor.localize(pixels.values())]}
    maps = [one for _, one in sorted(feature_maps(predictor.running_encoder, pixels).items())]
    for name, method in _methods(maps, predictor.map_threshold).items():
        found[name] = [_in_original(method(one), one.size, size) for one, size in zip(maps, sizes)]
    generator = np.random.default_rng(0)
    found["random boxes"] = [random_boxes(generator, height, width) for height, width in sizes]
    centred = {
        share: [_in_original(metrics.centre_box(w, h, share=share), (h, w), (h, w)) for h, w in sizes]
        for share in _SHARES.tolist()
    }
    found["centre, half the area"] = centred[0.5]
    best = max(centred, key=lambda share: corloc(centred[share], truth))
    found[f"centre, {best:.2f} of the area (oracle)"] = centred[best]
    return [{"method": name, "photos": len(photos), **figures(boxes, truth)} for name, boxes in found.items()]


def figures(found: Sequence[Boxes], truth: Sequence[Float[np.ndarray, "m 4"]]) -> dict[str, float]:
    """CorLoc of the first box, average precision, and recall with 1, 3 and 10 boxes."""
    recalls = {f"recall_{most}": detection.recall(found, truth, most=most) for most in (1, 3, 10)}
    return {"corloc": corloc(found, truth), "average_precision": detection.average_precision(found, truth), **recalls}


def corloc(found: Sequence[Boxes], truth: Sequence[Float[np.ndarray, "m 4"]]) -> float:
    """The share of photos whose first box reaches an IoU of one half with any object."""
    first = [boxes[0].tolist() if len(boxes) else None for boxes in found]
    return metrics.corloc(first, [boxes.tolist() for boxes in truth], convention="edges")


def random_boxes(generator: np.random.Generator, height: int, width: int) -> Boxes:
    """Ten boxes between random corners, with random scores."""
    corners = np.sort(generator.uniform(size=(_RANDOM, 2, 2)), axis=1) * (width, height)
    return np.column_stack([corners.reshape(_RANDOM, 4), generator.uniform(size=_RANDOM)])


def feature_maps(encoder: Encoder, pixels: Mapping[int, np.ndarray]) -> dict[int, PhotoMap]:
    """The feature map of each photo."""
    maps = {}
    for number, encoded, row in encoder.run(_whole, {}, pixels.items()):
        if isinstance(encoded, ImageError):
            raise encoded
        h, w = (int(cells) for cells in row["cells_hw"])
        maps[number] = PhotoMap(np.array(row["features"][:h, :w], np.float32), row["grid"], encoded.size)
    return maps


def _methods(maps: Sequence[PhotoMap], threshold: float) -> dict[str, Callable[[PhotoMap], Sequence[float] | None]]:
    """The box of one photo by each method, in pixels as the encoder saw it; ``threshold`` cuts the map of CAAM."""
    ddt = Ddt(one.features for one in maps)

    def caam(one: PhotoMap) -> Sequence[float] | None:
        """CAAM (Baek et al., 2020): the sum of the channels, stretched to 0-1 and cut."""
        sums = one.features.sum(axis=-1)
        return _largest(one, sums - sums.min(), threshold)

    def scda(one: PhotoMap) -> Sequence[float] | None:
        """SCDA (Wei et al., TIP 2017): where the sum of the channels is above its mean."""
        sums = one.features.sum(axis=-1)
        return _largest(one, sums - sums.mean())

    return {
        "LOST": lambda one: lost_box(one.features, one.size),
        "TokenCut": lambda one: tokencut_box(one.features, one.size),
        "DDT": lambda one: _largest(one, ddt.map(one.features)),
        "CAAM": caam,
        "SCDA": scda,
    }


def _largest(one: PhotoMap, values: Float[np.ndarray, "h w"], threshold: float = 0.0) -> Sequence[float] | None:
    """The box around the largest region of values above 0, and above this share of the largest one."""
    positive = np.maximum(values, 0) / max(float(values.max()), 1e-12)
    cells = np.array(values.shape)
    pixels = np.asarray(upsample(positive, cells, one.grid, np.array(one.size), one.size))
    return largest_boxes(pixels, [threshold])[0]


def _in_original(box: Sequence[float] | None, seen: tuple[int, int], size: tuple[int, int]) -> Boxes:
    """A box of a photo that was seen at one size (height, width), in pixels of another; its score is its area."""
    if box is None:
        return np.zeros((0, 5))
    y, x = size[0] / seen[0], size[1] / seen[1]
    edges = np.array(box[:4]) * (x, y, x, y)
    return np.array([[*edges, (edges[2:] - edges[:2]).prod() / (size[0] * size[1])]])


def _whole(arguments: Any, dense: DenseFeatures) -> Any:
    return {"features": dense.features, "cells_hw": dense.cells_hw, "grid": dense.grid}
