"""Chooses the default map threshold, without the test photos of any benchmark.

    python -m benchmarks.map_threshold --json benchmarks/results/map_threshold.json

Photos: ``cub10`` and ``coco128`` in the data folder.

In three cases w* has not seen the photos, and in two of them not even their kind of object: w* of five CUB classes on
the train photos of the sixth (each class in turn), w* of coco128 on the CUB train photos, and w* of each half of
coco128 on the other half. In each case, a threshold is allowed if it is at most two standard errors worse than the best
one. The default is the middle of the thresholds that all three cases allow.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Float
from tyro.conf import arg

import localization
from benchmarks import results_file
from benchmarks.command_line import run
from benchmarks.datasets import data_folder
from benchmarks.localization_quality import fit_squashed
from localization.evaluation import datasets, evaluation
from localization.evaluation.metrics import THRESHOLDS, threshold_curve
from localization.evaluation.protocols import FULL, FittingPhotos

Ious = Float[np.ndarray, "photos t"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Chooses the threshold of each layer.

    Attributes:
        data: folder of the photos with ground truth (default: $DELF_SHARED).
        json: also write the results to this file.
        layers: layers whose threshold is chosen.
    """

    data: Path | None = None
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    layers: tuple[str, ...] = ("conv5", "conv4")


def main(options: Options) -> list[dict[str, Any]]:
    """Chooses and prints the threshold of each layer. Returns one row per layer."""
    data = data_folder(options.data)
    rows = []
    for layer in options.layers:
        cases = _cases(data, layer)
        allowed = {name: _range(indistinguishable(ious)) for name, ious in cases.items()}
        chosen = middle([indistinguishable(ious) for ious in cases.values()])
        best = {name: threshold_curve(ious).best() for name, ious in cases.items()}
        rows.append({"layer": layer, "threshold": chosen, "allowed": allowed, "best": best})
        print(f"{layer}: {chosen:.2f}")
        for name, (low, high) in allowed.items():
            print(f"    {name:36} best {best[name][0]:.1%} at {best[name][1]:.2f}, allowed {low:.2f} to {high:.2f}")
    if options.json is not None:
        results_file.write(options.json, "map_threshold", rows, {"data": "cub10 train photos, coco128"})
    return rows


def indistinguishable(ious: Ious) -> Bool[np.ndarray, " t"]:
    """The thresholds whose fraction of right boxes is within two standard errors of the best one."""
    accuracy = (ious >= 0.5).mean(axis=0)
    best = float(accuracy.max())
    return accuracy >= best - 2 * math.sqrt(best * (1 - best) / len(ious)) - 1e-9


def middle(allowed: Sequence[Bool[np.ndarray, " t"]]) -> float:
    """The middle of the thresholds that all cases allow, or else of those that most cases allow."""
    votes = np.sum(allowed, axis=0)
    return float(np.median(THRESHOLDS[votes == votes.max()]))


def _cases(data: Path, layer: str) -> Mapping[str, Ious]:
    coco = [photo for photo in datasets.read(data / "coco128") if photo.boxes]
    train = [photo for photo in datasets.read(data / "cub10") if photo.train]
    elsewhere = fit_squashed(coco, layer)
    kinds = sorted({str(photo.label) for photo in train})
    groups = {kind: [photo._replace(label=None) for photo in train if photo.label == kind] for kind in kinds}
    fitted = {kind: fit_squashed(group, layer) for kind, group in groups.items()}
    others: list[Ious] = []
    strangers: list[Ious] = []
    for kind, group in groups.items():
        rest = functools.reduce(operator.add, (predictor for name, predictor in fitted.items() if name != kind))
        measured = evaluation.evaluate(rest, group, further={"elsewhere": elsewhere.direction()})
        by_method = {m.method: m.ious for m in measured.methods}
        others.append(by_method["foreground"])
        strangers.append(by_method["elsewhere"])
    halves = [
        evaluation.evaluate(_fit_whole(coco[half::2], layer), coco[1 - half :: 2], protocol=FULL).methods[0].ious
        for half in (0, 1)
    ]
    return {
        "five CUB classes on the sixth": np.concatenate(others),
        "coco128 on CUB": np.concatenate(strangers),
        "half of coco128 on the other": np.concatenate(halves),
    }


def _fit_whole(photos: Sequence[datasets.AnnotatedPhoto], layer: str) -> localization.Predictor:
    encoder = localization.backbone_encoder("delf-r50", layer=layer)
    return localization.fit(FittingPhotos(photos, side=None), encoder=encoder, max_points=0)


def _range(allowed: Bool[np.ndarray, " t"]) -> tuple[float, float]:
    return float(THRESHOLDS[allowed].min()), float(THRESHOLDS[allowed].max())


if __name__ == "__main__":
    run(main, Options, __doc__)
