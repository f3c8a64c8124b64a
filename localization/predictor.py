"""The foreground predictor: fitted statistics, thresholds and points; localizes, explains, merges, saves."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from delf_jax.errors import ImageError, PredictorError
from delf_jax.files import atomic, json_files, model_file
from delf_jax.files.folder import is_inside
from localization.encoders.encoders import Dense, Encoder, Source, as_encoder, open_encoder, run_at_scales
from localization.foreground import solvers
from localization.foreground.solvers import FiniteSolution, Loss
from localization.foreground.statistics import Solution, Statistics
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
from localization.representers.explain import Explainer, Explanation, Index, Ranking, cells_of
from localization.representers.points import Points

# Share of a map's maximum that counts as object, chosen without the test photos of any benchmark: the middle of the
# thresholds that lose no more than two standard errors against the best one in each of three cases, namely w* of five
# CUB classes on the train photos of a sixth (each in turn), w* of coco128 on the CUB train photos, and w* of one half
# of coco128 on the other. For conv5 those are .12 to .36; for conv4, whose object and background hardly differ, .01.
# `python -m benchmarks.map_threshold` does it again.
MAP_THRESHOLD = {"conv4": 0.01}
DEFAULT_MAP_THRESHOLD = 0.24

_STATISTICS, _OPTIMUM, _MANIFEST, _POINTS = "statistics.safetensors", "optimum.safetensors", "manifest.json", "points"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Predictor:
    """Finds the objects that its training photos have in common against their backgrounds.

    Attributes:
        statistics: running sums over the training photos.
        points: training positions for explanations, or None.
        map_threshold: share of a map's maximum above which a pixel belongs to an object.
        found_threshold: raw score above which a photo holds an object: 0, the bisector of object and background, until
            ``calibration.calibrated`` raises it for the direction of all classes together.
        optimum: a direction at finite regularisation that replaces the closed form, or None.
        encoder: computes features; None opens the one that the statistics name when it is first needed.
    """

    statistics: Statistics
    points: Points | None = None
    map_threshold: float = DEFAULT_MAP_THRESHOLD
    found_threshold: float = 0.0
    optimum: FiniteSolution | None = None
    encoder: Encoder | None = None

    @functools.cached_property
    def solution(self) -> Solution:
        """The foreground direction and its threshold: the closed form unless ``refitted``."""
        return self.optimum or self.statistics.solve()

    @functools.cached_property
    def running_encoder(self) -> Encoder:
        """The encoder, opened if need be; ModelError or PredictorError when it cannot be."""
        if self.encoder is None:
            return open_encoder(self.statistics.encoder)
        encoder = as_encoder(self.encoder)
        if dict(encoder.description) != dict(self.statistics.encoder):
            raise PredictorError(
                f"this predictor was fitted on {dict(self.statistics.encoder)}, not on {dict(encoder.description)}"
            )
        return encoder

    def direction(self, label: str | None = None) -> Float[np.ndarray, " c"]:
        """float32 [C], the unit vector w*, of one class if ``label`` names one."""
        solution = self.solution if label is None else self.statistics.solve(label=label)
        return solution.w.astype(np.float32)

    def localize(self, photos: Iterable[Source], **options: Any) -> list[Localization]:
        """``localize_stream`` for a list of photos, in their order.

        Raises:
            ImageError: names the first photo that cannot be used.
        """
        results: dict[int, Localization] = {}
        for number, result in self.localize_stream(enumerate(photos), **options):
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
        """Map, boxes and masks of a stream of (key, photo) pairs, out of order, in bounded memory.

        Args:
            photos: what ``fit`` takes, with keys that come back with the results.
            label: use this class's predictor; the ``found_threshold`` is the same for all classes.
            classifier: predicts each photo's class, whose predictor is then used: a ``classes.Classifier`` of the
                features, or any function of uint8 images [1, h, w, 3] to logits [1, classes] in alphabetical order.
            threshold: instead of ``map_threshold``.
            edges: move mask outlines to the photo's edges (GrabCut), and boxes with them.
            scales: the map is the mean of the cosines at these scales of the photo, on the grid of the largest.
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
        for key, seen, row in rows:
            if isinstance(seen, ImageError):
                yield key, seen
                continue
            if classifier is not None:
                label = predicted_class(classifier, names, seen, row)
                row = map_of_class(row, names.index(label), seen.size)
            yield (
                key,
                localization_of(
                    seen,
                    row,
                    threshold=threshold,
                    found_threshold=self.found_threshold,
                    edges=edges,
                    label=label,
                ),
            )

    def explain(
        self,
        photo: Source,
        where: tuple[float, float] | tuple[float, float, float, float] | None = None,
        *,
        top: int = 10,
        ranking: Ranking = "centred",
        per_photo: int | None = 1,
        index: Index | None = None,
    ) -> Explanation:
        """The training positions that make a place of a photo foreground, and those that hold it back.

        Args:
            photo: what ``fit`` takes.
            where: (x, y) in pixels of the upright original photo, a box [x0, y0, x1, y1] of edges, or None for all.
            top, ranking, per_photo: see ``localization.representers.explain.Explainer.explain``.
            index: see ``Explainer``; for a single question ``exact`` is always the quickest.

        Raises:
            PredictorError: fitted without points.
            ImageError: the photo cannot be used.
        """
        explainer = self.explainer if index is None else self._explainer(index)
        ((_, seen, row),) = self.running_encoder.run(_units, {}, [("photo", photo)])
        if isinstance(seen, ImageError):
            raise seen
        cells = int(row["cells_hw"][0]), int(row["cells_hw"][1])
        unit = row["unit"][: cells[0], : cells[1]]
        require_channels(unit.shape[-1], len(self.solution.w))
        query = unit[cells_of(where, cells, seen.original_size)].reshape(-1, unit.shape[-1])
        return explainer.explain(query, top=top, ranking=ranking, per_photo=per_photo)

    @functools.cached_property
    def explainer(self) -> Explainer:
        """The points with their importance, ready for queries; PredictorError when it was fitted without points."""
        return self._explainer(None)

    def _explainer(self, index: Index | None) -> Explainer:
        if self.points is None:
            raise PredictorError("this predictor was fitted without points; fit it with max_points above 0 to explain")
        total = self.statistics.total
        return Explainer(self.points, self.solution, mean_unit=total.unit / total.count, index=index)

    def refitted(self, loss: Loss, *, weight: float) -> "Predictor":
        """This predictor with w at finite regularisation (see ``foreground.solvers``), fitted to its points.

        Directions of single classes stay in closed form.
        """
        if self.points is None:
            raise PredictorError("this predictor was fitted without points; fit it with max_points above 0 first")
        kept, step = self.points, 8192

        def passes() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for start in range(0, len(kept), step):
                yield kept.unit[start : start + step], kept.norm[start : start + step]

        optimum = solvers.solve(passes, self.statistics.solve(), loss=loss, weight=weight)
        return dataclasses.replace(self, optimum=optimum)

    def calibrated(self, empty_scores: Iterable[float], *, false_alarms: float = 0.05) -> "Predictor":
        """This predictor with the ``found_threshold`` that only a share ``false_alarms`` of empty photos exceed.

        Args:
            empty_scores: ``Localization.score`` of photos without an object.
        """
        scores = np.asarray(list(empty_scores), np.float64)
        if not len(scores):
            raise PredictorError("no scores of empty photos to calibrate on")
        threshold = float(np.quantile(scores, 1 - false_alarms, method="higher"))
        return dataclasses.replace(self, found_threshold=threshold)

    def __add__(self, other: "Predictor") -> "Predictor":
        """The predictor of both sets of photos, with points only if both have them.

        The map threshold is this one's. The found threshold is the higher one until it is calibrated again: w* moves.

        Raises:
            PredictorError: of different encoders or norm caps, refitted, or with points of the same photo.
        """
        if self.optimum or other.optimum:
            raise PredictorError("only closed-form predictors add up; merge those first and refit the result")
        statistics = self.statistics + other.statistics
        return dataclasses.replace(
            self,
            statistics=statistics,
            points=self.points + other.points if self.points and other.points else None,
            found_threshold=max(self.found_threshold, other.found_threshold),
        )

    def __sub__(self, other: "Predictor") -> "Predictor":
        """Forgets the photos that ``other`` was fitted on."""
        if self.optimum or other.optimum:
            raise PredictorError("only closed-form predictors subtract; forget first and refit the result")
        rest = self.points
        if rest and other.points:
            rest = rest - other.points
        elif rest:
            raise PredictorError("cannot tell which points to forget; fit the photos to be forgotten with points too")
        return dataclasses.replace(self, statistics=self.statistics - other.statistics, points=rest)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a folder, whole or not at all, with a manifest of checksums, in the place of an older predictor.

        Raises:
            PredictorError: there is something else.
        """
        check_free(path)
        with atomic.replacing_folder(path) as folder:
            self.statistics.save(folder / _STATISTICS)
            optimum = None
            if self.optimum:
                fields = dataclasses.asdict(self.optimum)
                model_file.write(folder / _OPTIMUM, {"w": fields.pop("w")}, {"kind": "foreground optimum"} | fields)
                optimum = _OPTIMUM
            if self.points:
                (folder / _POINTS).mkdir()
                self.points.save(folder / _POINTS)
            files = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
            manifest = {
                "kind": "predictor",
                "version": _VERSION,
                "map_threshold": self.map_threshold,
                "found_threshold": self.found_threshold,
                "optimum": optimum,
                "points": bool(self.points),
                "files": {name: _checksum(folder / name) for name in files},
            }
            atomic.write_bytes(folder / _MANIFEST, json.dumps(manifest, indent=1).encode())

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, encoder: Any = None) -> "Predictor":
        """Reads what ``save`` wrote.

        Args:
            encoder: needed only where the predictor was fitted on a function of yours.

        Raises:
            PredictorError: missing, damaged, or newer than this version reads.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        damaged = damaged_files(folder, manifest)
        if damaged:
            raise PredictorError(f"{path}: {damaged[0]} is missing or damaged; fit the predictor again")
        optimum = None
        if manifest["optimum"]:
            description, tensors = model_file.read(folder / manifest["optimum"])
            names = {field.name for field in dataclasses.fields(FiniteSolution)}
            optimum = FiniteSolution(w=tensors["w"], **{k: v for k, v in description.items() if k in names})
        return cls(
            Statistics.open(folder / _STATISTICS),
            points=Points.open(folder / _POINTS) if manifest["points"] else None,
            map_threshold=manifest["map_threshold"],
            found_threshold=manifest["found_threshold"],
            optimum=optimum,
            encoder=None if encoder is None else as_encoder(encoder),
        )


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """The manifest of a predictor folder; PredictorError when there is none that this version reads."""
    try:
        manifest = json_files.loads_object((folder / _MANIFEST).read_bytes())
        kind, version = manifest["kind"], manifest["version"]
        files = manifest["files"] if kind == "predictor" else {}
        if not isinstance(version, int) or not isinstance(files, dict) or not all(is_inside(name) for name in files):
            raise ValueError("its version is no number, or it lists no files, or one that lies elsewhere")
        if kind == "predictor" and version <= _VERSION:
            thresholds = manifest["map_threshold"], manifest["found_threshold"]
            if manifest["optimum"] not in (None, *files) or not all(isinstance(t, (int, float)) for t in thresholds):
                raise ValueError("its optimum is no file of it, or a threshold is no number")
            if manifest["points"] not in (True, False):
                raise ValueError("it does not say whether it has points")
    except OSError as error:
        raise PredictorError(f"{folder}: no predictor there ({error.strerror}); make one with fit-localizer") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PredictorError(f"{folder}: its manifest is damaged; fit the predictor again") from error
    if kind != "predictor":
        raise PredictorError(f"{folder}: this is a {kind!r}, not a predictor")
    if version > _VERSION:
        raise PredictorError(f"{folder}: written by a newer version of delf-jax; update delf-jax")
    return manifest


def check_free(path: str | os.PathLike[str]) -> None:
    """Raises PredictorError where a predictor saved here would take the place of something that is none."""
    folder = Path(path)
    if not folder.exists() or (folder.is_dir() and not os.listdir(folder)):
        return
    try:
        read_manifest(folder)
    except PredictorError:
        raise PredictorError(f"{folder}: there is something else than a predictor; choose another name") from None


def damaged_files(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Files of the manifest that are missing or whose checksum differs."""
    return [
        name
        for name, checksum in manifest["files"].items()
        if not (folder / name).is_file() or _checksum(folder / name) != checksum
    ]


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _units(arguments: Any, dense: Dense) -> dict[str, Any]:
    features = dense.features.astype(jnp.float32)
    norms = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return {"unit": features / jnp.maximum(norms, 1e-12), "cells_hw": dense.cells_hw}
