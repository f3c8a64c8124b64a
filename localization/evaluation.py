"""Localization benchmarks: the official crop protocol, class-agnostic and per class, always beside the baselines."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from delf_jax.errors import ImageError, PredictorError
from delf_jax.images import load_photo
from localization import metrics
from localization.boxes import largest_box
from localization.classes import mean_feature, nearest_mean
from localization.datasets import Annotated, Edges
from localization.encoders import Dense, squash
from localization.maps import cosine_map, stretch, upsample
from localization.metrics import THRESHOLDS, ThresholdCurve, threshold_curve
from localization.predictor import Predictor


class CropProtocol(NamedTuple):
    """Resize((resize, resize)) squashed, then the central ``crop`` x ``crop`` (localization spec 1.6).

    wsolevaluation truncates true boxes where the official code rounds them, and keeps found boxes inside the photo.
    """

    resize: int
    crop: int
    wsolevaluation: bool = False


OFFICIAL_FINE_GRAINED = CropProtocol(480, 448)
OFFICIAL_IMAGENET = CropProtocol(256, 224)
WSOLEVALUATION = CropProtocol(224, 224, wsolevaluation=True)
FIT_SIDE = 224


class Squashed(Mapping[str, np.ndarray]):
    """Annotated photos as the official code fits them, by path: squashed to ``side`` x ``side``, read when needed."""

    def __init__(self, photos: Sequence[Annotated], *, side: int = FIT_SIDE) -> None:
        self._photos = {str(photo.path): photo for photo in photos}
        self._side = side

    def __getitem__(self, name: str) -> np.ndarray:
        return squash(load_photo(self._photos[name].path, max_side=None).pixels, self._side)

    def __iter__(self) -> Iterator[str]:
        return iter(self._photos)

    def __len__(self) -> int:
        return len(self._photos)


def crop_photo(pixels: UInt8[np.ndarray, "H W 3"], protocol: CropProtocol) -> UInt8[np.ndarray, "s s 3"]:
    """The photo as the protocol shows it to the encoder."""
    margin = (protocol.resize - protocol.crop) // 2
    return squash(pixels, protocol.resize)[margin : margin + protocol.crop, margin : margin + protocol.crop]


def crop_box(box: Edges, image_size: tuple[int, int], protocol: CropProtocol) -> Edges:
    """A true box in the crop's pixel indices: scaled, shifted, rounded and clipped to [0, crop - 1] (spec 1.6)."""
    height, width = image_size
    scale = np.array([protocol.resize / width, protocol.resize / height] * 2)
    to_integer = np.trunc if protocol.wsolevaluation else np.round
    moved = to_integer(np.asarray(box) * scale - (protocol.resize - protocol.crop) / 2)
    x0, y0, x1, y1 = np.clip(moved, 0, protocol.crop - 1)
    return float(x0), float(y0), float(x1), float(y1)


class Evaluated(NamedTuple):
    """IoU of every photo's largest box with its best true box, at every map threshold.

    Attributes:
        method: ``foreground``, ``class`` (w* of the photo's true class), ``activation sum`` (CAAM) or ``centre``.
        ious: [photos, thresholds].
    """

    method: str
    ious: Float[np.ndarray, "photos t"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Everything measured on one set of photos.

    Attributes:
        methods: IoUs of each method.
        areas: share of the crop that each photo's largest true box covers.
        labels: true classes.
        predicted: classes by nearest class mean, best first, or empty without classes.
        failed: photos that could not be read.
    """

    methods: Sequence[Evaluated]
    areas: Float[np.ndarray, " photos"]
    labels: Sequence[str | None]
    predicted: Sequence[Sequence[str]]
    failed: Sequence[ImageError]

    def curve(self, method: str) -> ThresholdCurve:
        """GT-Known accuracy over thresholds."""
        return threshold_curve(self._ious(method))

    def top_k_curve(self, method: str, k: int) -> ThresholdCurve:
        """Top-k Loc over thresholds: the box is right and the true class is among the k nearest."""
        if not self.predicted:
            raise PredictorError("Top-k Loc needs a predictor that was fitted with classes")
        known = np.array([label in order[:k] for label, order in zip(self.labels, self.predicted)])
        return threshold_curve(self._ious(method), where=known)

    def by_area(self, method: str, threshold: float, parts: int = 3) -> list[float]:
        """GT-Known of equal parts of the photos by true box area, smallest first."""
        column = int(np.argmin(np.abs(THRESHOLDS - threshold)))
        order = np.array_split(np.argsort(self.areas, kind="stable"), parts)
        return [float((self._ious(method)[rows, column] >= 0.5).mean()) for rows in order]

    def _ious(self, method: str) -> Float[np.ndarray, "photos t"]:
        for evaluated in self.methods:
            if evaluated.method == method:
                return evaluated.ious
        raise PredictorError(f"{method!r} was not evaluated; these were: {', '.join(e.method for e in self.methods)}")


def evaluate(
    predictor: Predictor, photos: Sequence[Annotated], *, protocol: CropProtocol = OFFICIAL_FINE_GRAINED
) -> Evaluation:
    """Localizes annotated photos under a crop protocol, with boxes and IoU in the official, inclusive convention.

    Args:
        predictor: with classes, the per-class maps and nearest-mean classes are evaluated too. Its extractor's
            ``max_side`` must be at least the crop, or the crop would be reduced.
        photos: with at least one true box each; others are left out.

    Raises:
        PredictorError: the extractor's ``max_side`` is below the crop.
    """
    limit = predictor.statistics.encoder.get("max_side", protocol.crop)
    if limit < protocol.crop:
        raise PredictorError(f"the encoder reduces photos to {limit} pixels; the protocol needs {protocol.crop}")
    names = sorted(predictor.statistics.classes)
    classifier = nearest_mean(predictor.statistics) if len(names) > 1 else None
    directions = np.stack([predictor.direction(), *(predictor.direction(name) for name in names)])
    sizes: dict[int, tuple[int, int]] = {}
    failed: list[ImageError] = []
    crops = _crops(photos, protocol, sizes, failed)
    rows: dict[int, dict[str, Any]] = {}
    for number, seen, row in predictor.running_encoder.run(_coarse_maps, {"directions": directions}, crops):
        if isinstance(seen, ImageError):
            failed.append(seen)
        else:
            rows[number] = _photo_ious(row, photos[number], names, sizes[number], protocol)
    if not rows:
        raise PredictorError("nothing to evaluate: no photo with a true box could be read")
    order = sorted(rows)
    methods = [Evaluated(name, np.stack([rows[i]["ious"][name] for i in order])) for name in rows[order[0]]["ious"]]
    predicted = [classifier.ranked(rows[i]["mean"]) for i in order] if classifier else []
    areas = np.array([rows[i]["area"] for i in order])
    return Evaluation(methods, areas, [photos[i].label for i in order], predicted, failed)


def _crops(
    photos: Sequence[Annotated], protocol: CropProtocol, sizes: dict[int, tuple[int, int]], failed: list[ImageError]
) -> Iterator[tuple[int, np.ndarray]]:
    for number, photo in enumerate(photos):
        if not photo.boxes:
            continue
        try:
            loaded = load_photo(photo.path, max_side=None)
        except ImageError as error:
            failed.append(error)
            continue
        sizes[number] = loaded.original_size
        yield number, crop_photo(loaded.pixels, protocol)


def _coarse_maps(arguments: Any, dense: Dense) -> dict[str, Any]:
    features = dense.features.astype(jnp.float32)
    cosines = jnp.stack([cosine_map(features, w) for w in arguments["directions"]], axis=-1)
    sums = jnp.sum(features, axis=-1)
    return {"cosines": cosines, "sum": sums, "mean": mean_feature(dense), "cells_hw": dense.cells_hw}


def _photo_ious(
    row: dict[str, Any], photo: Annotated, names: Sequence[str], size: tuple[int, int], protocol: CropProtocol
) -> dict[str, Any]:
    side = protocol.crop
    truth = np.array([crop_box(box, size, protocol) for box in photo.boxes])
    coarse = {"foreground": row["cosines"][..., 0], "activation sum": row["sum"]}
    if photo.label in names:
        coarse["class"] = row["cosines"][..., 1 + names.index(photo.label)]
    elif names:
        raise PredictorError(f"{photo.path}: its class {photo.label!r} was not fitted")
    ious = {}
    for method, values in coarse.items():
        activation = stretch(values, row["cells_hw"]).activation
        pixels = np.asarray(upsample(activation, row["cells_hw"], np.array([side, side]), (side, side)))
        ious[method] = np.array([_best_iou(_found_box(pixels, t, protocol), truth) for t in THRESHOLDS])
    # Half the area at the centre, the same box at every threshold.
    ious["centre"] = np.full(len(THRESHOLDS), _best_iou(metrics.centre_box(side, side), truth))
    areas = ((truth[:, 2:] - truth[:, :2] + 1) / side).prod(axis=1)
    return {"ious": ious, "mean": row["mean"], "area": float(areas.max())}


def _found_box(pixels: Float[np.ndarray, "s s"], threshold: float, protocol: CropProtocol) -> Sequence[float] | None:
    box = largest_box(pixels, threshold)
    if protocol.wsolevaluation:
        return metrics.inclusive_box(box, *pixels.shape[::-1]) if box else (0, 0, 0, 0)
    return box


def _best_iou(box: Sequence[float] | None, truth: Float[np.ndarray, "n 4"]) -> float:
    if box is None:
        return 0.0
    return float(metrics.box_iou(np.array([box[:4]], np.float64), truth, convention="inclusive").max())
