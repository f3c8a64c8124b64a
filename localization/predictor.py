"""The foreground predictor: it localizes, explains, merges and forgets. ``predictor_files`` keeps it in a folder."""

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from delf_jax.errors import ImageError, PredictorError
from delf_jax.files.changer import Version, only_changer
from localization import predictor_files
from localization.encoders.base import DenseFeatures, Encoder, Source
from localization.encoders.choosing import as_encoder, open_encoder
from localization.encoders.extractor_encoder import run_at_scales
from localization.foreground import closed_form, solvers
from localization.foreground.closed_form import Solution
from localization.foreground.solvers import FiniteSolution, Loss
from localization.foreground.statistics import Statistics, differing, unit_features
from localization.localizing import (
    Classify,
    Localization,
    localization_of,
    map_in_pixels,
    map_of_class,
    maps_of_classes,
    predicted_class,
)
from localization.maps.activation import require_channels
from localization.maps.cells import Place, cells_of
from localization.predictor_files import PredictorParts
from localization.representers import found_scores
from localization.representers.explain import Explainer, Explanation, SearchMethod
from localization.representers.points import Points
from localization.representers.values import PointRanking

# Share of a map's maximum that counts as object. It was chosen without the test photos of any benchmark: the middle of
# the thresholds that are at most two standard errors worse than the best one in each of three cases, namely w* of five
# CUB classes on the training photos of the sixth (each in turn), w* of coco128 on the CUB training photos, and w* of
# one half of coco128 on the other. For conv5 those are .12 to .36; for conv4, in which object and background hardly
# differ, .01. `python -m benchmarks.map_threshold` chooses it again.
MAP_THRESHOLD = {"conv4": 0.01}
DEFAULT_MAP_THRESHOLD = 0.24
# Levels that differ by less differ by rounding.
_SAME_LEVEL = 1e-4


def default_map_threshold(layer: str) -> float:
    """The share of a map's maximum that counts as object, for maps of this layer."""
    return MAP_THRESHOLD.get(layer, DEFAULT_MAP_THRESHOLD)


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """Finds the objects that its training photos have in common, against their backgrounds.

    Attributes:
        statistics: running sums over the training photos.
        points: training positions for explanations, or None.
        map_threshold: share of a map's maximum above which a pixel belongs to an object.
        found_threshold: raw score above which a photo holds an object. ``fit`` chooses what nearly all of its photos
            exceed; 0 is the level between foreground and background.
        optimum: a direction at finite lambda that replaces the closed form, or None.
        encoder: computes the features; if None, the encoder that the statistics name is opened when it is needed.
    """

    statistics: Statistics
    points: Points | None = None
    map_threshold: float = DEFAULT_MAP_THRESHOLD
    found_threshold: float = 0.0
    optimum: FiniteSolution | None = None
    encoder: Encoder | None = None
    _versions: dict[Path, Version] = dataclasses.field(default_factory=dict, repr=False)
    _class_thresholds: dict[str, float] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @functools.cached_property
    def solution(self) -> Solution:
        """The foreground direction and its threshold tau: the closed form unless ``refitted``."""
        return self.optimum or closed_form.solve(self.statistics)

    @functools.cached_property
    def running_encoder(self) -> Encoder:
        """The encoder, which is opened if it has to be.

        Raises:
            ModelError: the model of the encoder cannot be opened.
            PredictorError: the predictor was not fitted on this encoder, or on a function that was not given again.
        """
        if self.encoder is None:
            return open_encoder(self.statistics.encoder)
        encoder = as_encoder(self.encoder)
        if dict(encoder.description) != dict(self.statistics.encoder):
            differ = differing(self.statistics.encoder, encoder.description)
            raise PredictorError(f"this predictor was fitted on another encoder ({differ}); give it the same one again")
        return encoder

    def direction(self, label: str | None = None) -> Float[np.ndarray, " c"]:
        """The unit vector w*, float32 [C]; that of one class if ``label`` names it."""
        solution = self.solution if label is None else closed_form.solve(self.statistics, label=label)
        return solution.w.astype(np.float32)

    def found_threshold_of(self, label: str | None) -> float:
        """``found_threshold``, or that of a class: what nearly all of the class's own photos exceed with its own w*.

        A class has one of its own if all positions are points. It is not below a ``found_threshold`` that was raised,
        as by photos without the object.
        """
        if label is None or self.points is None or self._own_found_threshold is None:
            return self.found_threshold
        if label not in self._class_thresholds:
            own = found_scores.lower_bound(found_scores.photo_scores(self.points, self.direction(label), label=label))
            raised = self.found_threshold > self._own_found_threshold + _SAME_LEVEL
            self._class_thresholds[label] = max(own, self.found_threshold) if raised else own
        return self._class_thresholds[label]

    @functools.cached_property
    def _own_found_threshold(self) -> float | None:
        """What nearly all training photos exceed; None unless all of their positions are points."""
        if self.points is None or not 0 < self.statistics.total.count <= len(self.points):
            return None
        try:
            return found_scores.lower_bound(found_scores.photo_scores(self.points, self.direction()))
        except PredictorError:  # no foreground, as whoever uses it is told
            return None

    def with_own_found_threshold(self) -> "Predictor":
        """This predictor with the ``found_threshold`` of its training photos, if all of their positions are points."""
        own = self._own_found_threshold
        return self if own is None else dataclasses.replace(self, found_threshold=own)

    def localize(
        self,
        photos: Iterable[Source],
        *,
        label: str | None = None,
        classifier: Classify | None = None,
        threshold: float | None = None,
        edges: bool = False,
        scales: Sequence[float] = (1.0,),
    ) -> list[Localization]:
        """Maps, boxes and masks of photos, in their order; the options are those of ``localize_stream``.

        Raises:
            ImageError: a photo cannot be used; it names the first one.
        """
        stream = self.localize_stream(
            enumerate(photos), label=label, classifier=classifier, threshold=threshold, edges=edges, scales=scales
        )
        results: dict[int, Localization] = {}
        for number, result in stream:
            if isinstance(result, ImageError):
                raise result
            results[number] = result
        return [results[number] for number in range(len(results))]

    def localize_stream(
        self,
        photos: Iterable[tuple[Any, Source]],
        *,
        label: str | None = None,
        classifier: Classify | None = None,
        threshold: float | None = None,
        edges: bool = False,
        scales: Sequence[float] = (1.0,),
    ) -> Iterator[tuple[Any, Localization | ImageError]]:
        """Maps, boxes and masks of a stream of (key, photo) pairs, in any order and in bounded memory.

        Args:
            photos: photos as in ``fit``; each key comes back with its result.
            label: use the w* of this class, and its own ``found_threshold_of``.
            classifier: predicts the class of each photo, whose w* is then used: a ``classes.Classifier`` of the
                features, or any function of uint8 images [1, h, w, 3] to logits [1, classes] in alphabetical order.
            threshold: used instead of ``map_threshold``.
            edges: move the outlines of masks, and boxes with them, to the edges in the photo (GrabCut).
            scales: the map is the mean of the cosines at these scales of the photo, on the grid of the largest.

        Raises:
            PredictorError: an unknown class, a classifier that does not fit, or features of another encoder.
        """
        threshold = self.map_threshold if threshold is None else threshold
        if classifier is None:
            arguments: dict[str, Any] = {"w": self.direction(label)}
            rows = run_at_scales(self.running_encoder, map_in_pixels, arguments, photos, scales)
        else:
            names = sorted(self.statistics.classes)
            if not names:
                raise PredictorError("a classifier needs a predictor that was fitted with classes; fit it with labels")
            arguments = {"directions": np.stack([self.direction(name) for name in names])}
            rows = run_at_scales(self.running_encoder, maps_of_classes, arguments, photos, scales)
        for key, encoded, row in rows:
            if isinstance(encoded, ImageError):
                yield key, encoded
                continue
            if classifier is not None:
                label = predicted_class(classifier, names, encoded, row)
                row = map_of_class(row, names.index(label), encoded.size)
            yield (
                key,
                localization_of(
                    encoded,
                    row,
                    threshold=threshold,
                    found_threshold=self.found_threshold_of(label),
                    edges=edges,
                    label=label,
                ),
            )

    def explain(
        self,
        photo: Source,
        where: Place = None,
        *,
        top: int = 10,
        ranking: PointRanking = "centred",
        per_photo: int | None = 1,
        index: SearchMethod | None = None,
    ) -> Explanation:
        """The training positions that make a place of a photo foreground, and those that make it background.

        Args:
            photo: a photo as in ``fit``.
            where: (x, y) in pixels of the upright original photo, a box [x0, y0, x1, y1] of edges, or None for all.
            top, ranking, per_photo: see ``localization.representers.explain.Explainer.explain``.
            index: see ``Explainer``; ``exact`` is the fastest for a single query.

        Raises:
            PredictorError: fitted without points, or the place is outside the photo.
            ImageError: the photo cannot be used.
        """
        explainer = self.explainer if index is None else self._explainer(index)
        ((_, encoded, row),) = self.running_encoder.run(_unit_features, {}, [("photo", photo)])
        if isinstance(encoded, ImageError):
            raise encoded
        cells = int(row["cells_hw"][0]), int(row["cells_hw"][1])
        unit = row["unit"][: cells[0], : cells[1]]
        require_channels(unit.shape[-1], len(self.solution.w))
        grid = row["grid"].resized(encoded.size, encoded.original_size)
        query = unit[cells_of(where, cells, grid, encoded.original_size)].reshape(-1, unit.shape[-1])
        return explainer.explain(query, top=top, ranking=ranking, per_photo=per_photo)

    @functools.cached_property
    def explainer(self) -> Explainer:
        """Answers queries about the points; PredictorError if the predictor was fitted without points."""
        return self._explainer(None)

    def _explainer(self, index: SearchMethod | None) -> Explainer:
        if self.points is None:
            raise PredictorError("this predictor was fitted without points; fit it with max_points above 0 to explain")
        return Explainer(self.points, self.solution, mean_unit=self.statistics.total.mean_unit, index=index)

    def refitted(self, loss: Loss, *, weight: float) -> "Predictor":
        """This predictor with w at finite lambda (see ``foreground.solvers``), fitted to its points.

        The directions of single classes stay in closed form.

        Raises:
            PredictorError: fitted without points, or no convergence.
        """
        if self.points is None:
            raise PredictorError("this predictor was fitted without points; fit it with max_points above 0 first")
        points, step = self.points, 8192

        def passes() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for start in range(0, len(points), step):
                yield points.unit[start : start + step], points.norm[start : start + step]

        optimum = solvers.solve(passes, closed_form.solve(self.statistics), loss=loss, weight=weight)
        return dataclasses.replace(self, optimum=optimum).with_own_found_threshold()

    def __add__(self, other: "Predictor") -> "Predictor":
        """The predictor of both sets of photos, with points if both have them.

        The map threshold is that of ``self``. The found threshold is chosen again if all positions are points, and
        otherwise the lower one of both.

        Raises:
            PredictorError: the encoders or norm caps differ, one is refitted, or both have points of the same photo.
        """
        if self.optimum or other.optimum:
            raise PredictorError("only closed-form predictors can be added; merge those first and refit the result")
        statistics = self.statistics + other.statistics
        merged = dataclasses.replace(
            self,
            statistics=statistics,
            points=None if self.points is None or other.points is None else self.points + other.points,
            found_threshold=min(self.found_threshold, other.found_threshold),
            _versions=other._versions | self._versions,
        )
        return merged.with_own_found_threshold()

    def __sub__(self, other: "Predictor") -> "Predictor":
        """This predictor without the photos that ``other`` was fitted on.

        Raises:
            PredictorError: it was not fitted on these photos, one is refitted, or only ``self`` has points.
        """
        if self.optimum or other.optimum:
            raise PredictorError("only closed-form predictors can be subtracted; forget first and refit the result")
        rest = self.points
        if rest is not None and other.points is not None:
            rest = rest - other.points
        elif rest is not None:
            raise PredictorError("cannot tell which points to forget; fit the photos to be forgotten with points too")
        left = dataclasses.replace(self, statistics=self.statistics - other.statistics, points=rest)
        return left.with_own_found_threshold()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a folder atomically; it replaces an older predictor, and nothing else.

        Raises:
            PredictorError: the path holds something that is not a predictor, or one that others are changing, or that
                this predictor was opened from and others have changed since.
        """
        parts = PredictorParts(
            self.statistics, self.points, self.map_threshold, self.found_threshold, optimum=self.optimum
        )
        with only_changer(path, PredictorError):
            if before := self._versions.get(Path(path).resolve()):
                before.require_last(path, predictor_files.MANIFEST, PredictorError)
            predictor_files.write(path, parts)
            version = Version.of(path, predictor_files.MANIFEST)
            # Predictors made from this one keep the state that they began with.
            object.__setattr__(self, "_versions", self._versions | {version.path: version})

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, encoder: Any = None) -> "Predictor":
        """Reads what ``save`` wrote.

        Args:
            encoder: needed only if the predictor was fitted on a function of the caller.

        Raises:
            PredictorError: missing, damaged, or written by a newer version.
        """
        before = Version.of(path, predictor_files.MANIFEST)
        parts = predictor_files.read(path)
        encoder = None if encoder is None else as_encoder(encoder)
        return cls(**parts._asdict(), encoder=encoder, _versions={before.path: before})


def _unit_features(arguments: Any, dense: DenseFeatures) -> dict[str, Any]:
    return {"unit": unit_features(dense.features), "cells_hw": dense.cells_hw, "grid": dense.grid}
