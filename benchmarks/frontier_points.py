"""The settings that ``benchmarks.frontier`` measures, and the features of each from few extractions.

Levels of the pyramid do not see each other, so one extraction at all scales holds the features of every set of scales,
and the strongest of them those of every budget.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import delf_jax
from benchmarks import datasets
from benchmarks.feature_cache import cached_features, strongest
from benchmarks.landmarks_map import DELHI
from delf_jax.features import Domain, LocalFeatures

ALL_SCALES = (0.25, 0.3536, 0.5, 0.7071, 1.0, 1.4142, 2.0)
_EXTRACTED = (384, 640, 1024)
_MORE_THAN_ANY_PHOTO_HAS = 4000

_SCALES = (
    (0.5, 0.7071, 1.0, 1.4142, 2.0),
    (0.5, 0.7071, 1.0, 1.4142),
    (0.7071, 1.0, 1.4142),
    (0.5, 0.7071, 1.0),
    (0.7071, 1.4142),
    (0.5, 1.0, 2.0),
    (1.0, 1.4142),
    (0.7071, 1.0),
    (1.0,),
    (1.4142,),
    (1.0, 2.0),
    (0.7071, 1.4142, 2.0),
    (0.7071, 1.0, 1.4142, 2.0),
    ALL_SCALES,
    (2.0,),
)


@dataclasses.dataclass(frozen=True)
class Point:
    """Settings of an extraction: ``max_side``, ``scales`` and ``max_features``."""

    max_side: int
    scales: tuple[float, ...]
    features: int = 1000


def buildings() -> list[Point]:
    """Sets of scales with 1000 features, and fewer features of the first."""
    sets = [Point(640, scales) for scales in _SCALES]
    return [*sets, *(Point(640, _SCALES[0], features) for features in (600, 300, 100))]


def phototourism() -> list[Point]:
    """Sizes of larger photos, with the first two sets of scales, and more features."""
    sizes = [Point(side, scales) for side in (1024, 640) for scales in _SCALES[:2]]
    return [*sizes, Point(1024, _SCALES[0], 2000), Point(1024, ALL_SCALES, 2000)]


def landmarks() -> list[Point]:
    """The first two sets of scales, and one between them."""
    return [Point(384, scales) for scales in (*_SCALES[:2], (0.5, 1.0, 2.0))]


def landmark_photos(data: Path) -> datasets.Experiment:
    """Photos of 28 landmarks, of which those that are not for training are searched among all and 128 other photos."""
    photos = datasets.landmark_distractors(data)
    labels = [photo.parent.name for photo in photos]
    known = datasets.among_themselves(
        "landmarks", photos, labels, others=datasets.other_things(data), overlapping=lambda a, b: {a, b} <= DELHI
    )
    rows = [row for row, photo in enumerate(known.queries) if photo.parent.parent.name == "val"]
    asked = dataclasses.replace(
        known,
        queries=tuple(known.queries[row] for row in rows),
        relevant=tuple(known.relevant[row] for row in rows),
        ignored=tuple(known.ignored[row] for row in rows),
    )
    return datasets.Experiment(asked, None, photos)


class Photos:
    """The features of photos for every point; each is extracted once for every size to which it is reduced."""

    def __init__(self, photos: Sequence[Path], cache: Path) -> None:
        """Args: the photos, and the folder where features are kept between runs."""
        self._cache = cache
        self._longest = {photo: _longest_side(photo) for photo in photos}

    def at(self, point: Point) -> dict[Path, LocalFeatures]:
        """Features of each photo by a point's settings."""
        by_side: dict[int, list[Path]] = {}
        for photo, longest in self._longest.items():
            by_side.setdefault(_reduced_to(longest, point.max_side), []).append(photo)
        found: dict[Path, LocalFeatures] = {}
        for side, photos in by_side.items():
            found |= zip(photos, _extracted(tuple(photos), side, self._cache), strict=True)
        return {photo: at_scales(one, point) for photo, one in found.items()}


@functools.cache
def _extracted(photos: tuple[Path, ...], side: int, cache: Path) -> list[LocalFeatures]:
    extractor = delf_jax.load(scales=ALL_SCALES, max_features=_MORE_THAN_ANY_PHOTO_HAS, max_side=side)
    description = {"method": "delf-jax", "weights": extractor.fingerprint, **extractor.settings.to_json()}
    return cached_features(extractor, photos, description=description, folder=cache, batch=16)


def at_scales(features: LocalFeatures, point: Point) -> LocalFeatures:
    """The strongest features of some scales, of a photo that was extracted at ``ALL_SCALES``.

    The domain stays that of all scales, which differ at the border of the photo.
    """
    relative = features.scales * Domain.whole(features.image_size, point.max_side).pixel
    nearest = np.array(ALL_SCALES)[np.abs(np.log(relative[:, None] / np.array(ALL_SCALES))).argmin(axis=1)]
    rows = np.isin(nearest, point.scales)
    return strongest(features.take(rows), point.features)


def _reduced_to(longest: int, max_side: int) -> int:
    """The smallest ``max_side`` that gives the same photo as ``max_side``, so that it is extracted once for several."""
    return min(side for side in _EXTRACTED if side >= min(longest, max_side))


def _longest_side(photo: Path) -> int:
    with Image.open(photo) as image:
        return max(image.size)
