"""Is attention high on the landmark? Compares scores inside and outside of the landmark's box.

    python -m benchmarks.attention_quality --head HEAD ... --pictures DIR

Photos: ``landmarks`` with ``boxes.csv`` in the data folder.

It uses each photo of ``landmarks/boxes.csv`` whose box covers at most 60 % of it, at its own size. Every scorer of
every head ranks the same conv4 cells. The comparison is fair only for heads that were not trained on these landmarks:
the boxes are of the three ``porto__`` classes.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from tyro.conf import arg

from benchmarks import attention_pictures, datasets, raw_features, results_file
from benchmarks.command_line import run
from benchmarks.raw_features import RawFeatures
from delf_cli.environment import start_jax
from delf_jax.extraction.head import Head
from delf_jax.features import LocalFeatures
from delf_jax.loading import model_paths
from delf_jax.photos.load import frame_of
from delf_jax.settings import Scorer
from localization.evaluation import datasets as annotated

LARGEST_BOX = 0.6


class BoxedPhoto(NamedTuple):
    """A photo and the box [x0, y0, x1, y1] of its landmark, in pixel edges."""

    path: Path
    box: tuple[float, float, float, float]


class Quality(NamedTuple):
    """How well one scorer separates a landmark from its surroundings (mean over photos).

    Attributes:
        r_precision: share of the K best cells that lie in the box, which holds K cells.
        auc: chance that a cell inside scores above one outside.
    """

    r_precision: float
    auc: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures attention against landmark boxes.

    Attributes:
        head: head files to judge; default the packaged one.
        data: folder of the photos with ground truth (default: $DELF_SHARED).
        json: also write the results to this file.
        cache: folder where features are kept between runs.
        pictures: draw the strongest features of every scorer on ten photos into this folder.
    """

    head: tuple[Path, ...] = ()
    data: Path | None = None
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    cache: Path = Path(".cache/accuracy")
    pictures: Annotated[Path | None, arg(metavar="DIR")] = None


def main(options: Options) -> list[dict[str, Any]]:
    """Measures every scorer of every head, prints the table, and returns its rows."""
    data = datasets.data_folder(options.data)
    photos = boxed_photos(data)
    raw = RawFeatures(detection="cells", scales=(1.0,))
    cells = raw.cached([photo.path for photo in photos], options.cache)
    rows = []
    heads = {path: Head.open(path) for path in options.head or (model_paths("delf-r50")[1],)}
    for path, head in heads.items():
        for scorer in head.scorers:
            quality = judge(photos, cells, head, scorer)
            rows.append({"head": path.name, "scorer": scorer, "photos": len(photos), **quality._asdict()})
            print(f"{path.name} {scorer}: R-precision {quality.r_precision:.3f}, AUC {quality.auc:.3f}", flush=True)
    if options.json is not None:
        results_file.write(options.json, "attention_quality", rows, {"largest_box": LARGEST_BOX})
    if options.pictures is not None:
        attention_pictures.write(options.pictures, pictured(data, photos), list(heads.values()), options.cache)
    return rows


def pictured(data: Path, photos: Sequence[BoxedPhoto]) -> list[Path]:
    """Ten photos for the pictures: five buildings in San Francisco behind cars and people, and five with boxes."""
    streets = datasets.buildings(data).queries
    return [*streets[:: len(streets) // 5][:5], *(photo.path for photo in photos[:: len(photos) // 5][:5])]


def boxed_photos(data: Path, *, largest: float = LARGEST_BOX) -> list[BoxedPhoto]:
    """The photos of ``landmarks/boxes.csv`` whose box covers at most ``largest`` of the photo.

    Raises:
        FileNotFoundError: the data folder has no such list.
    """
    listed = data / "landmarks" / "boxes.csv"
    if not listed.is_file():
        raise FileNotFoundError(f"{listed}: no such list of boxes; --data must name the folder that holds landmarks/")
    found = []
    for photo in annotated.read(listed):
        height, width = frame_of(photo.path).upright_size
        for x0, y0, x1, y1 in photo.boxes:
            if (x1 - x0) * (y1 - y0) <= largest * width * height:
                found.append(BoxedPhoto(photo.path, (x0, y0, x1, y1)))
    return found


def judge(photos: Sequence[BoxedPhoto], cells: Sequence[LocalFeatures], head: Head, scorer: Scorer) -> Quality:
    """The mean over photos that have cells inside and outside of their box; ``cells`` are raw features."""
    arrays = head.arrays()
    found = []
    for photo, raw in zip(photos, cells, strict=True):
        inside = in_box(raw.keypoints, photo.box)
        if inside.any() and not inside.all():
            scores = raw_features.score(raw, arrays, scorer)
            found.append((r_precision(scores, inside), roc_auc(scores, inside)))
    return Quality(*np.mean(found, axis=0).tolist())


def in_box(points: Float[np.ndarray, "n 2"], box: Sequence[float]) -> Bool[np.ndarray, " n"]:
    """Whether points (x, y) lie in a box of pixel edges. (0, 0) is the centre of the top-left pixel."""
    edges = np.asarray(points) + 0.5
    return np.asarray(((edges > box[:2]) & (edges < box[2:])).all(axis=1))


def r_precision(scores: Float[np.ndarray, " n"], relevant: Bool[np.ndarray, " n"]) -> float:
    """R-precision: the fraction of relevant ones among the K highest scores, if K are relevant.

    >>> r_precision(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
    0.5
    """
    best = np.argsort(-scores, kind="stable")[: relevant.sum()]
    return float(relevant[best].mean())


def roc_auc(scores: Float[np.ndarray, " n"], relevant: Bool[np.ndarray, " n"]) -> float:
    """Area under the ROC curve: probability that a relevant score is above an irrelevant one. Ties count half.

    >>> roc_auc(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
    0.5
    """
    _, place, ties = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[place]
    count = int(relevant.sum())
    wins = ranks[relevant].sum() - count * (count + 1) / 2
    return float(wins / (count * (len(scores) - count)))


if __name__ == "__main__":
    start_jax()
    run(main, Options, __doc__)
