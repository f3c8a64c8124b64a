"""Measures localization on annotated photos: class-agnostic and for each class, always beside the baselines."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from delf_jax.errors import ImageError, PredictorError
from localization.encoders.base import DenseFeatures, EncodedPhoto
from localization.encoders.extractor_encoder import run_at_scales
from localization.evaluation import metrics
from localization.evaluation.annotated_photo import AnnotatedPhoto
from localization.evaluation.frames import same_shape
from localization.evaluation.metrics import THRESHOLDS, PixelCounts, ThresholdCurve, threshold_curve
from localization.evaluation.protocols import OFFICIAL_FINE_GRAINED, Protocol
from localization.foreground.classes import Classifier, mean_feature, nearest_mean
from localization.localizing import cosines_at_scales, mean_over_scales
from localization.maps.activation import stretch, upsample
from localization.predictor import Predictor


class MethodResult(NamedTuple):
    """The results of one method.

    Attributes:
        method: ``foreground``, ``class`` (w* of the photo's true class), ``activation sum`` (CAAM), ``centre``, or the
            name of a further direction.
        ious: [photos, thresholds], IoU of the box of each photo with its best true box.
        pixels: values of the map on object and background pixels, of the photos that have a true mask.
    """

    method: str
    ious: Float[np.ndarray, "photos t"]
    pixels: PixelCounts


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything measured on one set of photos.

    Attributes:
        methods: the results of each method.
        areas: share of the photo, as the protocol shows it, that its largest true box covers.
        scores: largest cosine with w* of each photo.
        masks: number of photos that had a true mask.
        classes: index of the true class of each photo; -1 without classes.
        logits: logits [photos, classes] of each classifier by its name; empty without classes.
        failed: photos that could not be read, or whose true boxes or mask cannot be theirs.
    """

    methods: Sequence[MethodResult]
    areas: Float[np.ndarray, " photos"]
    scores: Float[np.ndarray, " photos"]
    masks: int
    classes: Int[np.ndarray, " photos"]
    logits: Mapping[str, Float[np.ndarray, "photos k"]]
    failed: Sequence[ImageError]

    def curve(self, method: str) -> ThresholdCurve:
        """Share of photos whose box is right, over thresholds: GT-Known, or CorLoc if photos have several objects."""
        return threshold_curve(self._method(method).ious)

    def top_k_curve(self, method: str, k: int, classifier: str = "nearest mean") -> ThresholdCurve:
        """Top-k Loc over thresholds: the box is right and the true class is among the k most likely ones.

        Raises:
            PredictorError: there is no such classifier.
        """
        return threshold_curve(self._method(method).ious, where=self.known(k, classifier))

    def known(self, k: int, classifier: str = "nearest mean") -> Bool[np.ndarray, " photos"]:
        """Whether the true class of each photo is among the k most likely ones."""
        if classifier not in self.logits:
            raise PredictorError(
                f"Top-k Loc needs a predictor that was fitted with classes, and the classifier {classifier!r}"
            )
        return metrics.in_top_k(self.logits[classifier], self.classes, k)

    def by_area(self, method: str, threshold: float, parts: int = 3) -> list[float]:
        """Accuracy in ``parts`` groups of photos by true box area, smallest first; fewer groups of fewer photos."""
        column = int(np.argmin(np.abs(THRESHOLDS - threshold)))
        order = np.array_split(np.argsort(self.areas, kind="stable"), min(parts, len(self.areas)))
        return [float((self._method(method).ious[rows, column] >= 0.5).mean()) for rows in order]

    def pixels(self, method: str) -> PixelCounts:
        """Values of the map on object and background pixels."""
        return self._method(method).pixels

    def _method(self, method: str) -> MethodResult:
        for evaluated in self.methods:
            if evaluated.method == method:
                return evaluated
        raise PredictorError(f"{method!r} was not evaluated; these were: {', '.join(e.method for e in self.methods)}")


def evaluate(
    predictor: Predictor,
    photos: Sequence[AnnotatedPhoto],
    *,
    protocol: Protocol = OFFICIAL_FINE_GRAINED,
    classifiers: Mapping[str, Classifier] | None = None,
    further: Mapping[str, Float[np.ndarray, " c"]] | None = None,
    scales: Sequence[float] = (1.0,),
) -> Evaluation:
    """Localizes annotated photos and compares the results with the truth, by the rules of a protocol.

    Args:
        predictor: if it has classes, the maps of the true classes are evaluated too, unless no photo is of one of them
            (zero-shot). The ``max_side`` of its extractor must be at least the protocol's crop.
        photos: photos without a true box are left out.
        classifiers: classifiers of the mean features into the fitted classes, for Top-k Loc, by name; ``nearest mean``
            is added if classes were fitted.
        further: other directions [C] of the same features, by name, which are evaluated too.
        scales: as in ``Predictor.localize_stream``.

    Raises:
        PredictorError: the extractor's ``max_side`` is below the crop, a class was not fitted, a classifier has other
            classes, or no photo can be evaluated.
    """
    crop = getattr(protocol, "crop", 0)
    limit = predictor.statistics.encoder.get("max_side", crop)
    if limit < crop:
        raise PredictorError(f"the encoder reduces photos to {limit} pixels; the protocol needs {crop}")
    names = sorted(predictor.statistics.classes)
    if not any(photo.label in predictor.statistics.classes for photo in photos):
        names = []
    classifiers = dict(classifiers or {})
    if len(names) > 1:
        classifiers = {"nearest mean": nearest_mean(predictor.statistics), **classifiers}
    if strange := [name for name, classifier in classifiers.items() if list(classifier.names) != names]:
        raise PredictorError(f"{strange[0]}: its classes are not those that were fitted; fit both on the same labels")
    directions = {"foreground": predictor.direction(), **(further or {})}
    stacked = np.stack([*directions.values(), *(predictor.direction(name) for name in names)])
    comparison = _Comparison(list(directions), names, protocol)
    sizes: dict[int, tuple[int, int]] = {}
    failed: list[ImageError] = []
    prepared = _prepared(photos, protocol, sizes, failed)
    rows: dict[int, dict[str, Any]] = {}
    arguments = {"directions": stacked}
    for number, encoded, row in run_at_scales(predictor.running_encoder, _coarse_maps, arguments, prepared, scales):
        if isinstance(encoded, ImageError):
            failed.append(encoded)
            continue
        try:
            rows[number] = comparison.compare(row, photos[number], encoded, sizes[number])
        except ImageError as error:
            failed.append(error)
    if not rows:
        raise PredictorError("nothing to evaluate: no photo with a true box could be read")
    return _joined([rows[number] for number in sorted(rows)], comparison, classifiers, failed)


def _joined(
    rows: Sequence[Mapping[str, Any]],
    comparison: "_Comparison",
    classifiers: Mapping[str, Classifier],
    failed: Sequence[ImageError],
) -> Evaluation:
    """The evaluation of all photos from the row of each, which ``_Comparison.compare`` made."""
    means = np.stack([row["mean"] for row in rows])
    return Evaluation(
        methods=[
            MethodResult(method, np.stack([row["ious"][method] for row in rows]), comparison.pixels[method])
            for method in rows[0]["ious"]
        ],
        areas=np.array([row["area"] for row in rows]),
        scores=np.array([row["score"] for row in rows]),
        masks=comparison.masks,
        classes=np.array([row["class"] for row in rows]),
        logits={name: classifier.logits(means) for name, classifier in classifiers.items()},
        failed=failed,
    )


def _prepared(
    photos: Sequence[AnnotatedPhoto], protocol: Protocol, sizes: dict[int, tuple[int, int]], failed: list[ImageError]
) -> Iterator[tuple[int, np.ndarray]]:
    for number, photo in enumerate(photos):
        if not photo.boxes:
            continue
        try:
            loaded = photo.load()
        except ImageError as error:
            failed.append(error)
            continue
        sizes[number] = loaded.original_size
        yield number, protocol.prepare(loaded.pixels)


def _coarse_maps(arguments: Any, dense: DenseFeatures) -> dict[str, Any]:
    cosines, level = cosines_at_scales(dense, arguments["directions"])
    sums, _ = mean_over_scales(dense, lambda features: jnp.sum(features.astype(jnp.float32), axis=-1))
    return {
        "cosines": cosines,
        "sum": sums,
        "mean": mean_feature(dense),
        "cells_hw": level.cells_hw,
        "grid": level.grid,
    }


class _Comparison:
    """Compares maps with the truth about their photos; counts pixels on the way."""

    def __init__(self, directions: Sequence[str], classes: Sequence[str], protocol: Protocol) -> None:
        self.directions = directions
        self.classes = classes
        self.protocol = protocol
        self.masks = 0
        methods = [*directions, "activation sum", *(["class"] if classes else []), "centre"]
        self.pixels = {method: PixelCounts() for method in methods}

    def compare(
        self, row: dict[str, Any], photo: AnnotatedPhoto, encoded: EncodedPhoto, original: tuple[int, int]
    ) -> dict[str, Any]:
        """IoUs, area and score of one photo from its row of ``_coarse_maps``."""
        protocol, size = self.protocol, encoded.size
        truth = protocol.true_boxes(photo.boxes, original, size)
        mask = _true_mask(photo, original)
        mask = None if mask is None else protocol.true_mask(mask, size)
        self.masks += mask is not None
        coarse = {name: row["cosines"][..., i] for i, name in enumerate(self.directions)}
        coarse["activation sum"] = row["sum"]
        if photo.label in self.classes:
            coarse["class"] = row["cosines"][..., len(self.directions) + self.classes.index(photo.label)]
        elif self.classes:
            which = "it has no class" if photo.label is None else f"its class {photo.label!r} was not fitted"
            raise PredictorError(f"{photo.path}: {which}; fit with all classes or none")
        ious, score, grid = {}, 0.0, protocol.grid(row["grid"], row["cells_hw"], size)
        for method, values in coarse.items():
            maps = stretch(values, row["cells_hw"])
            pixels = np.asarray(upsample(maps.activation, row["cells_hw"], grid, np.array(size), size))
            found = protocol.found_boxes(pixels, (float(maps.low), float(maps.high)), THRESHOLDS)
            ious[method] = np.array([self._best_iou(box, truth) for box in found])
            self._count(method, pixels, mask)
            if method == "foreground":
                score = float(maps.peak)
        # The box is the same at every threshold.
        ious["centre"] = np.full(len(THRESHOLDS), self._best_iou(metrics.centre_box(size[1], size[0]), truth))
        self._count("centre", metrics.centre_map(*size), mask)
        extra = 1 if protocol.convention == "inclusive" else 0
        areas = (truth[:, 2:] - truth[:, :2] + extra).prod(axis=1) / (size[0] * size[1])
        known = self.classes.index(photo.label) if photo.label in self.classes else -1
        return {"ious": ious, "mean": row["mean"], "area": float(areas.max()), "score": score, "class": known}

    def _count(self, method: str, pixels: Float[np.ndarray, "h w"], mask: UInt8[np.ndarray, "h w"] | None) -> None:
        if mask is not None:
            self.pixels[method].add(np.clip(pixels, 0, 1), mask)

    def _best_iou(self, box: Sequence[float] | None, truth: Float[np.ndarray, "n 4"]) -> float:
        if box is None:
            return 0.0
        convention = self.protocol.convention
        return float(metrics.box_iou(np.array([box[:4]], np.float64), truth, convention=convention).max())


def _true_mask(photo: AnnotatedPhoto, original: tuple[int, int]) -> UInt8[np.ndarray, "H W"] | None:
    """The true mask of a photo of size (height, width); None without one, or if no object is drawn in it.

    Raises:
        ImageError: it has another shape than the photo.
    """
    mask = None if photo.mask is None else photo.mask()
    if mask is None or not np.any(mask == 1):
        return None
    if not same_shape(mask.shape, original):
        sizes = f"{mask.shape[1]} x {mask.shape[0]} pixels, the photo {original[1]} x {original[0]}"
        raise ImageError(str(photo.path), f"its true mask has {sizes}; put the right one there")
    return mask


def summary(
    measured: Evaluation, method: str, *, default_threshold: float, chosen_on: Evaluation | None = None
) -> dict[str, Any]:
    """The results of a method as one row, with each accuracy at the chosen map threshold and at the default one.

    Args:
        default_threshold: a threshold that was chosen without these photos.
        chosen_on: photos on which the threshold is chosen; None chooses it on the measured photos: an oracle.
    """
    curve, chosen = measured.curve(method), (chosen_on or measured).curve(method)
    fixed = method == "centre"
    _, threshold = chosen.best()
    row: dict[str, Any] = {
        "method": method,
        "accuracy": curve.at(threshold),
        "threshold": None if fixed else threshold,
        "threshold_from": None if fixed else "validation" if chosen_on else "oracle",
        "accuracy_default": curve.at(default_threshold),
        "default_threshold": None if fixed else default_threshold,
        "max_box_acc_v2": {
            "official": metrics.max_box_acc_v2(curve, convention="official", chosen_on=chosen),
            "wsolevaluation": metrics.max_box_acc_v2(curve, convention="wsolevaluation", chosen_on=chosen),
        },
        "by_area": measured.by_area(method, threshold),
        "by_area_default": measured.by_area(method, default_threshold),
        "pxap": measured.pixels(method).pxap() if measured.masks else None,
        "piou": measured.pixels(method).piou() if measured.masks else None,
    }
    for classifier in measured.logits:
        row[classifier] = {
            f"top{k}{suffix}": measured.top_k_curve(method, k, classifier).at(at)
            for k in (1, 5)
            for suffix, at in (("", threshold), ("_default", default_threshold))
        }
    return row
