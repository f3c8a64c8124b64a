"""How good the boxes, maps and explanations are, beside what looks at nothing.

    python -m benchmarks.localization_quality --json benchmarks/results/localization_quality.json

Six CUB classes (w* fitted on their train photos without boxes, measured on their test photos in the official crop) and
coco128 (whole photos, several objects). Every accuracy is given at the best threshold of the measured photos, which is
an oracle, and at the default one, which was chosen without them.
"""

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import arg

import localization
from benchmarks import empty_photos, explanation_quality, results_file
from benchmarks.datasets import data_folder
from delf_jax.errors import DelfError
from localization import classes, datasets, evaluation, protocols
from localization.datasets import Annotated as Photo
from localization.predictor import Predictor
from localization.protocols import FULL, OFFICIAL_FINE_GRAINED, FittingPhotos

Row = dict[str, Any]

_CROP = OFFICIAL_FINE_GRAINED.crop
_SCALES = (1.0, 1.41)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures localization and explanations on real photos.

    Attributes:
        data: folder of the photos with ground truth; default $DELF_SHARED, then ../shared/data beside the repository.
        json: write the results to this file too; after every part, so that an interrupted run leaves what it has.
        landmarks: photos of each class of landmarks/train that w* is fitted on for the zero-shot rows.
    """

    data: Path | None = None
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    landmarks: int = 20


def main(options: Options) -> list[Row]:
    """Measures all parts, prints each as it is done, and returns the rows."""
    data = data_folder(options.data)
    rows: list[Row] = []
    print(f"{'':52}oracle    at   default    at   small middle large   PxAP  PIoU", flush=True)
    for name, part in _parts(data, options):
        start = time.perf_counter()
        for row in part():
            rows.append({"part": name, **row})
            print(_line(rows[-1]), flush=True)
        print(f"    {name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        if options.json is not None:
            settings = {"data": "cub10, coco128, landmarks/train", "landmarks": options.landmarks, "scales": _SCALES}
            results_file.write(options.json, "localization_quality", rows, settings)
    return rows


def _parts(data: Path, options: Options) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    cub, coco = datasets.read(data / "cub10"), datasets.read(data / "coco128")
    train, test = [p for p in cub if p.train], [p for p in cub if not p.train]
    elsewhere = {"coco128": coco, "landmarks": _landmarks(data / "landmarks" / "train", options.landmarks)}
    predictor = fit_squashed(train, "conv5", max_points=100_000)

    yield "cub10, conv5", lambda: _conv5(predictor, train, test, elsewhere)
    yield "cub10, conv4", lambda: _measured(fit_squashed(train, "conv4"), test)
    yield "coco128, whole photos", lambda: _whole(coco)
    yield "explanations", lambda: explanation_quality.measure(predictor, train, test)
    yield f"cub10, conv5, map scales {_SCALES}", lambda: _measured(predictor, test, scales=_SCALES)
    yield "cub10, conv5 at stride 1", lambda: _measured(fit_squashed(train, "conv5", stride=1), test)
    yield "empty photos", lambda: empty_photos.measure(predictor, train, test)


def fit_squashed(
    photos: Sequence[Photo],
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


def _conv5(predictor: Predictor, train: Sequence[Photo], test: Sequence[Photo], elsewhere: dict[str, Any]) -> list[Row]:
    labels = {str(p.path): str(p.label) for p in train}
    means = classes.mean_features(
        FittingPhotos(train, side=OFFICIAL_FINE_GRAINED.fit_side), encoder=predictor.running_encoder
    )
    further = {
        f"zero-shot, w* of {n}": fit_squashed(p, "conv5", labelled=False).direction() for n, p in elsewhere.items()
    }
    return _measured(
        predictor, test, classifiers={"linear probe": classes.linear_probe(means, labels)}, further=further
    )


def _whole(coco: Sequence[Photo]) -> list[Row]:
    predictor = localization.fit(
        FittingPhotos(coco, side=None), encoder=localization.backbone_encoder("delf-r50", layer="conv5"), max_points=0
    )
    return _measured(predictor, coco, protocol=FULL)


def _measured(predictor: Predictor, photos: Sequence[Photo], **options: Any) -> list[Row]:
    measured = evaluation.evaluate(predictor, photos, **options)
    protocol: protocols.Protocol = options.get("protocol", OFFICIAL_FINE_GRAINED)
    common = {"photos": len(measured.areas), "protocol": protocol.name, "measure": protocol.measure}
    return [
        common | evaluation.summary(measured, m.method, default_threshold=predictor.map_threshold)
        for m in measured.methods
    ]


def _landmarks(folder: Path, count: int) -> list[Photo]:
    """The first photos of each class, so that no landmark outweighs the others."""
    kinds = sorted(path for path in folder.iterdir() if path.is_dir())
    return [Photo(path, []) for kind in kinds for path in itertools.islice(sorted(kind.iterdir()), count)]


def _line(row: Row) -> str:
    title = f"{row['part']}: {row['method']}"
    if "accuracy" not in row:
        figures = {name: value for name, value in row.items() if name not in ("part", "method")}
        return f"{title:52}" + "  ".join(
            f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {v}" for n, v in figures.items()
        )
    at = [f"{row[n]:5.2f}" if row[n] is not None else "    -" for n in ("threshold", "default_threshold")]
    pixels = [f"{row[n]:6.1%}" if row[n] is not None else "     -" for n in ("pxap", "piou")]
    area = " ".join(f"{share:6.1%}" for share in row["by_area"])
    line = f"{title:52}{row['accuracy']:6.1%} {at[0]}   {row['accuracy_default']:6.1%} {at[1]}   {area}   "
    line += " ".join(pixels)
    for classifier in ("nearest mean", "linear probe"):
        if classifier in row:
            tops = "  ".join(f"{name} {share:.1%}" for name, share in row[classifier].items())
            line += f"\n{'':6}classes by {classifier}: {tops}"
    return line


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except (DelfError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
