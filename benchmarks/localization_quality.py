"""Accuracy of boxes, maps and explanations, compared with baselines that do not look at the photo.

    python -m benchmarks.localization_quality --json benchmarks/results/localization_quality.json

Photos: ``cub10``, ``coco128`` and ``landmarks`` in the data folder.

The data are six CUB classes (w* is fitted on their train photos without boxes, and measured on their test photos in the
official crop) and coco128 (whole photos with several objects). Each accuracy is given at the best threshold on the
measured photos, which is an oracle, and at the default threshold, which was chosen without them.
"""

import dataclasses
import functools
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from tyro.conf import arg

import localization
from benchmarks import empty_photos, explanation_quality, results_file, several_objects
from benchmarks.command_line import run
from benchmarks.datasets import data_folder
from localization.evaluation import datasets, evaluation, protocols
from localization.evaluation.annotated_photo import AnnotatedPhoto
from localization.evaluation.protocols import FULL, OFFICIAL_FINE_GRAINED, FittingPhotos
from localization.foreground import classes
from localization.predictor import Predictor

Row = dict[str, Any]
Part = Literal["conv5", "whole", "several", "explanations", "conv4", "scales", "stride1", "empty"]
PARTS: tuple[Part, ...] = get_args(Part)

_CROP = OFFICIAL_FINE_GRAINED.crop
_SCALES = (1.0, 1.41)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures localization and explanations on real photos.

    Attributes:
        data: folder of the photos with ground truth (default: $DELF_SHARED).
        json: also write the results to this file, after every part. Rows of parts that are not measured stay in it.
        parts: the parts to measure.
        landmarks: photos of each class of landmarks/train that w* is fitted on for the zero-shot rows.
    """

    data: Path | None = None
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    parts: tuple[Part, ...] = PARTS
    landmarks: int = 20


def main(options: Options) -> list[Row]:
    """Measures all parts, prints each one when it is done, and returns the rows."""
    data = data_folder(options.data)
    rows = [row for row in _known_rows(options.json) if row["part"] not in options.parts]
    print(f"{'':44}oracle    at   default    at   small middle large   PxAP  PIoU", flush=True)
    measure = _Measure(data, options.landmarks)
    for name in options.parts:
        start = time.perf_counter()
        for row in getattr(measure, name)():
            rows.append({"part": name, **row})
            print(_line(rows[-1]), flush=True)
        print(f"    {name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        if options.json is not None:
            settings = {"data": "cub10, coco128, landmarks/train", "landmarks": options.landmarks, "scales": _SCALES}
            rows.sort(key=lambda row: PARTS.index(row["part"]))
            results_file.write(options.json, "localization_quality", rows, settings)
    return rows


class _Measure:
    """One method per part, which gives its rows. Results that several parts need are computed once."""

    def __init__(self, data: Path, landmarks: int) -> None:
        cub = datasets.read(data / "cub10")
        self.train, self.test = [p for p in cub if p.train], [p for p in cub if not p.train]
        self.coco = datasets.read(data / "coco128")
        self.landmarks = _landmarks(data / "landmarks" / "train", landmarks)

    @functools.cached_property
    def predictor(self) -> Predictor:
        """w* of the CUB train photos on conv5, with classes and points."""
        return fit_squashed(self.train, "conv5", max_points=100_000)

    @functools.cached_property
    def predictor_of_coco(self) -> Predictor:
        """w* of coco128, whole."""
        return fit_whole(self.coco)

    def conv5(self) -> list[Row]:
        """All methods, classes by nearest mean and linear probe, and w* of other photos."""
        labels = {str(photo.path): str(photo.label) for photo in self.train}
        photos = FittingPhotos(self.train, side=OFFICIAL_FINE_GRAINED.fit_side)
        means = classes.mean_features(photos, encoder=self.predictor.running_encoder)
        elsewhere = {"coco128": self.coco, "landmarks": self.landmarks}
        return _measured(
            self.predictor,
            self.test,
            classifiers={"linear probe": classes.linear_probe(means, labels)},
            further={f"w* of {n}": fit_squashed(p, "conv5", labelled=False).direction() for n, p in elsewhere.items()},
        )

    def whole(self) -> list[Row]:
        """coco128, fitted on the same photos. This is fair, because fitting uses no labels."""
        return _measured(self.predictor_of_coco, self.coco, protocol=FULL)

    def several(self) -> list[Row]:
        """All boxes of coco128, beside those of other methods on the same feature maps."""
        return several_objects.measure(self.predictor_of_coco, self.coco)

    def explanations(self) -> list[Row]:
        """Are the training places of explanations inside birds, and of the same class?"""
        return explanation_quality.measure(self.predictor, self.train, self.test)

    def conv4(self) -> list[Row]:
        """The finer layer."""
        return _measured(fit_squashed(self.train, "conv4"), self.test)

    def scales(self) -> list[Row]:
        """The same w* with maps averaged over two scales."""
        return _measured(self.predictor, self.test, scales=_SCALES)

    def stride1(self) -> list[Row]:
        """conv5 as fine as conv4."""
        return _measured(fit_squashed(self.train, "conv5", stride=1), self.test)

    def empty(self) -> list[Row]:
        """What is found in photos without a bird, by a predictor of whole photos."""
        return empty_photos.measure(fit_whole(self.train), self.train[::2], self.test)


def fit_squashed(
    photos: Sequence[AnnotatedPhoto],
    layer: str,
    *,
    stride: Literal[1, 2] | None = None,
    max_points: int = 0,
    labelled: bool = True,
) -> Predictor:
    """A predictor of photos as the official code fits them, on the packaged network."""
    labels = {str(p.path): p.label for p in photos if p.label is not None} if labelled else None
    return localization.fit(
        FittingPhotos(photos, side=OFFICIAL_FINE_GRAINED.fit_side),
        encoder=localization.backbone_encoder("delf-r50", layer=layer, max_side=_CROP, conv5_stride=stride),
        labels=labels or None,
        max_points=max_points,
        thumbnail_side=0,
    )


def fit_whole(photos: Sequence[AnnotatedPhoto]) -> Predictor:
    """A predictor of whole photos, as users fit them, on the packaged network."""
    encoder = localization.backbone_encoder("delf-r50", layer="conv5")
    return localization.fit(FittingPhotos(photos, side=None), encoder=encoder, thumbnail_side=0)


def _measured(predictor: Predictor, photos: Sequence[AnnotatedPhoto], **options: Any) -> list[Row]:
    measured = evaluation.evaluate(predictor, photos, **options)
    protocol: protocols.Protocol = options.get("protocol", OFFICIAL_FINE_GRAINED)
    common = {"photos": len(measured.areas), "protocol": protocol.name, "measure": protocol.measure}
    return [
        common | evaluation.summary(measured, m.method, default_threshold=predictor.map_threshold)
        for m in measured.methods
    ]


def _landmarks(folder: Path, count: int) -> list[AnnotatedPhoto]:
    """The first photos of each class, so that no landmark outweighs the others."""
    kinds = sorted(path for path in folder.iterdir() if path.is_dir())
    return [AnnotatedPhoto(path, []) for kind in kinds for path in itertools.islice(sorted(kind.iterdir()), count)]


def _known_rows(file: Path | None) -> list[Row]:
    if file is None or not file.is_file():
        return []
    known: list[Row] = json.loads(file.read_bytes())["rows"]
    return known


def _line(row: Row) -> str:
    title = f"{row['part']}: {row['method']}"
    if "accuracy" not in row:
        figures = {name: value for name, value in row.items() if name not in ("part", "method")}
        return f"{title:44}" + "  ".join(
            f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {v}" for n, v in figures.items()
        )
    at = [f"{row[n]:5.2f}" if row[n] is not None else "    -" for n in ("threshold", "default_threshold")]
    pixels = [f"{row[n]:6.1%}" if row[n] is not None else "     -" for n in ("pxap", "piou")]
    area = " ".join(f"{share:6.1%}" for share in row["by_area"])
    line = f"{title:44}{row['accuracy']:6.1%} {at[0]}   {row['accuracy_default']:6.1%} {at[1]}   {area}   "
    line += " ".join(pixels)
    for classifier in ("nearest mean", "linear probe"):
        if classifier in row:
            tops = "  ".join(f"{name} {share:.1%}" for name, share in row[classifier].items())
            line += f"\n{'':6}classes by {classifier}: {tops}"
    return line


if __name__ == "__main__":
    run(main, Options, __doc__)
