"""Localization measured on photos whose truth is known: class-agnostic and per class, always beside the baselines."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from delf_jax.errors import ImageError, PredictorError
from localization.encoders.encoders import Dense, Seen, run_at_scales
from localization.evaluation import metrics
from localization.evaluation.datasets import Annotated
from localization.evaluation.metrics import THRESHOLDS, PixelCounts, ThresholdCurve, threshold_curve
from localization.evaluation.protocols import OFFICIAL_FINE_GRAINED, Protocol
from localization.foreground.classes import Classifier, mean_feature, nearest_mean
from localization.localizing import cosines_at_scales, mean_over_scales
from localization.maps.activation import stretch, upsample
from localization.maps.boxes import largest_boxes
from localization.predictor import Predictor


class Evaluated(NamedTuple):
    """What one method reached.

    Attributes:
        method: ``foreground``, ``class`` (w* of the photo's true class), ``activation sum`` (CAAM), ``centre``, or the
            name of a further direction.
        ious: [photos, thresholds], IoU of each photo's largest box with its best true box.
        pixels: map values on true and false pixels of the photos that have masks.
    """

    method: str
    ious: Float[np.ndarray, "photos t"]
    pixels: PixelCounts


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Everything measured on one set of photos.

    Attributes:
        methods: what each reached.
        areas: share of the photo as shown that its largest true box covers.
        scores: largest cosine with w* of each photo.
        masks: photos that had a true mask.
        classes: index of each photo's true class.
        logits: of each classifier [photos, classes]; empty without classes.
        failed: photos that could not be read.
    """

    methods: Sequence[Evaluated]
    areas: Float[np.ndarray, " photos"]
    scores: Float[np.ndarray, " photos"]
    masks: int
    classes: Int[np.ndarray, " photos"]
    logits: Mapping[str, Float[np.ndarray, "photos k"]]
    failed: Sequence[ImageError]

    def curve(self, method: str) -> ThresholdCurve:
        """Share of photos whose box is right, over thresholds: GT-Known, or CorLoc with several objects a photo."""
        return threshold_curve(self._method(method).ious)

    def top_k_curve(self, method: str, k: int, classifier: str = "nearest mean") -> ThresholdCurve:
        """Top-k Loc over thresholds: the box is right and the true class is among the k likeliest.

        Raises:
            PredictorError: that classifier was not asked.
        """
        return threshold_curve(self._method(method).ious, where=self.known(k, classifier))

    def known(self, k: int, classifier: str = "nearest mean") -> Bool[np.ndarray, " photos"]:
        """Whether each photo's true class is among the k likeliest."""
        if classifier not in self.logits:
            raise PredictorError(
                f"Top-k Loc needs a predictor that was fitted with classes, and {classifier!r} of them"
            )
        return metrics.in_top_k(self.logits[classifier], self.classes, k)

    def by_area(self, method: str, threshold: float, parts: int = 3) -> list[float]:
        """Accuracy in equal parts of the photos by true box area, smallest first; fewer where photos are fewer."""
        column = int(np.argmin(np.abs(THRESHOLDS - threshold)))
        order = np.array_split(np.argsort(self.areas, kind="stable"), min(parts, len(self.areas)))
        return [float((self._method(method).ious[rows, column] >= 0.5).mean()) for rows in order]

    def pixels(self, method: str) -> PixelCounts:
        """Map values on true and false pixels."""
        return self._method(method).pixels

    def _method(self, method: str) -> Evaluated:
        for evaluated in self.methods:
            if evaluated.method == method:
                return evaluated
        raise PredictorError(f"{method!r} was not evaluated; these were: {', '.join(e.method for e in self.methods)}")


def evaluate(
    predictor: Predictor,
    photos: Sequence[Annotated],
    *,
    protocol: Protocol = OFFICIAL_FINE_GRAINED,
    classifiers: Mapping[str, Classifier] | None = None,
    further: Mapping[str, Float[np.ndarray, " c"]] | None = None,
    scales: Sequence[float] = (1.0,),
) -> Evaluation:
    """Localizes annotated photos under a protocol, with boxes and IoU in its convention.

    Args:
        predictor: with classes, the per-class maps are evaluated too, unless no photo is of these classes (zero-shot).
            Its extractor's ``max_side`` must be at least the protocol's crop, or the crop would be reduced.
        photos: with at least one true box each; others are left out.
        classifiers: of the mean features into the fitted classes, for Top-k Loc; ``nearest mean`` is always there when
            classes were fitted.
        further: other directions of the same features to evaluate along the way, by name.
        scales: as in ``Predictor.localize_stream``.

    Raises:
        PredictorError: the extractor's ``max_side`` is below the crop, or a classifier has other classes.
    """
    crop = getattr(protocol, "crop", 0)
    limit = predictor.statistics.encoder.get("max_side", crop)
    if limit < crop:
        raise PredictorError(f"the encoder reduces photos to {limit} pixels; the protocol needs {crop}")
    names = sorted(predictor.statistics.classes)
    if not any(photo.label in predictor.statistics.classes for photo in photos):
        names = []
    if len(names) > 1:
        classifiers = {"nearest mean": nearest_mean(predictor.statistics), **(classifiers or {})}
    directions = {"foreground": predictor.direction(), **(further or {})}
    stacked = np.stack([*directions.values(), *(predictor.direction(name) for name in names)])
    if strange := [name for name, classifier in (classifiers or {}).items() if list(classifier.names) != names]:
        raise PredictorError(f"{strange[0]}: its classes are not those that were fitted; fit both on the same labels")
    truth = _Truth(list(directions), names, protocol)
    sizes: dict[int, tuple[int, int]] = {}
    failed: list[ImageError] = []
    shown = _shown(photos, protocol, sizes, failed)
    rows: dict[int, dict[str, Any]] = {}
    arguments = {"directions": stacked}
    for number, seen, row in run_at_scales(predictor.running_encoder, _coarse_maps, arguments, shown, scales):
        if isinstance(seen, ImageError):
            failed.append(seen)
        else:
            rows[number] = truth.compare(row, photos[number], seen, sizes[number])
    if not rows:
        raise PredictorError("nothing to evaluate: no photo with a true box could be read")
    order = sorted(rows)
    return Evaluation(
        methods=[
            Evaluated(name, np.stack([rows[i]["ious"][name] for i in order]), truth.pixels[name])
            for name in rows[order[0]]["ious"]
        ],
        areas=np.array([rows[i]["area"] for i in order]),
        scores=np.array([rows[i]["score"] for i in order]),
        masks=truth.masks,
        classes=np.array([rows[i]["class"] for i in order]),
        logits={name: c.logits(np.stack([rows[i]["mean"] for i in order])) for name, c in (classifiers or {}).items()},
        failed=failed,
    )


def _shown(
    photos: Sequence[Annotated], protocol: Protocol, sizes: dict[int, tuple[int, int]], failed: list[ImageError]
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
        yield number, protocol.shown(loaded.pixels)


def _coarse_maps(arguments: Any, dense: Dense) -> dict[str, Any]:
    cosines, cells_hw = cosines_at_scales(dense, arguments["directions"])
    sums, _ = mean_over_scales(dense, lambda features: jnp.sum(features.astype(jnp.float32), axis=-1))
    return {"cosines": cosines, "sum": sums, "mean": mean_feature(dense), "cells_hw": cells_hw}


class _Truth:
    """Compares maps with what is true of their photos, and counts pixels as it goes."""

    def __init__(self, directions: Sequence[str], classes: Sequence[str], protocol: Protocol) -> None:
        self.directions = directions
        self.classes = classes
        self.protocol = protocol
        self.masks = 0
        methods = [*directions, "activation sum", *(["class"] if classes else []), "centre"]
        self.pixels = {method: PixelCounts() for method in methods}

    def compare(self, row: dict[str, Any], photo: Annotated, seen: Seen, original: tuple[int, int]) -> dict[str, Any]:
        """IoUs, area and score of one photo out of its row of ``_coarse_maps``."""
        protocol, size = self.protocol, seen.size
        truth = protocol.true_boxes(photo.boxes, original, size)
        mask = None if photo.mask is None else protocol.true_mask(photo.mask(), size)
        self.masks += mask is not None
        coarse = {name: row["cosines"][..., i] for i, name in enumerate(self.directions)}
        coarse["activation sum"] = row["sum"]
        if photo.label in self.classes:
            coarse["class"] = row["cosines"][..., len(self.directions) + self.classes.index(photo.label)]
        elif self.classes:
            raise PredictorError(
                f"{photo.path}: its class {photo.label!r} was not fitted; fit with all classes or none"
            )
        ious, score = {}, 0.0
        for method, values in coarse.items():
            maps = stretch(values, row["cells_hw"])
            pixels = np.asarray(upsample(maps.activation, row["cells_hw"], np.array(size), size))
            found = [protocol.found_box(box, size) for box in largest_boxes(pixels, THRESHOLDS)]
            ious[method] = np.array([self._best_iou(box, truth) for box in found])
            self._count(method, pixels, mask)
            if method == "foreground":
                score = float(maps.peak)
        # Half the area at the centre, the same box at every threshold.
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


def summary(
    measured: Evaluation, method: str, *, default_threshold: float, chosen_on: Evaluation | None = None
) -> dict[str, Any]:
    """One row of figures: every accuracy at the chosen threshold and at the default one, each labelled.

    Args:
        default_threshold: used without looking at these photos.
        chosen_on: photos whose best threshold is used; without them it is the best on the measured photos: an oracle.
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
