"""Queries that show nothing of what an index holds: the strangers on which the acceptance threshold is calibrated.

Photos of landmarks are in four regions. Those of one region are searched among photos of the next one only. So every
answer is wrong, no two queries share a pair of photos, and two regions can check what was calibrated on the other two.
Each photo is three queries: itself and its two halves. None of the photos is a query or a stranger of
``benchmarks.accuracy``.
"""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import datasets
from delf_jax.features import Domain, LocalFeatures
from delf_jax.photos.names import is_photo_name
from delf_jax.settings import ExtractionSettings

REGIONS = ("Delhi", "India", "Porto", "elsewhere")
PARTS = range(3)
_DELHI = {"alai_darwaza", "alai_minar", "humayun_s_tomb", "india_gate", "iron_pillar", "jamali_kamali_tomb"}
_DELHI |= {"lotus_temple", "qutub_minar"}
_NARROW = 224


@dataclasses.dataclass(frozen=True)
class Stranger:
    """A query.

    Attributes:
        photo: where it comes from.
        part: 0 for the whole photo, 1 and 2 for its halves, left and right or upper and lower.
    """

    photo: Path
    part: int = 0

    @property
    def site(self) -> str:
        """The landmark."""
        return self.photo.parent.name


def photos_by_region(data: Path) -> dict[str, tuple[Path, ...]]:
    """The photos of each region, in a fixed random order.

    They are the landmarks in the searched photos of ``benchmarks.accuracy``, and all narrow photos of landmarks, which
    have few features.
    """
    found: dict[str, set[Path]] = {region: set() for region in REGIONS}
    narrow = [photo for photo in sorted((data / "landmarks").rglob("*.*")) if _width(photo) <= _NARROW]
    for photo in (*narrow, *datasets.landmark_distractors(data)):
        found[_region(photo)].add(photo)
    return {region: _shuffled(sorted(photos)) for region, photos in found.items()}


def part_of(features: LocalFeatures, part: int) -> LocalFeatures:
    """The features of a query: all (part 0), or those of the left (1) or right half, or upper or lower if upright."""
    if part == 0:
        return features
    height, width = features.image_size
    axis = 0 if width >= height else 1
    middle = (width if axis == 0 else height) / 2 - 0.5
    rows = (features.keypoints[:, axis] < middle) == (part == 1)
    whole = features.domain or Domain.whole(features.image_size, ExtractionSettings.max_side)
    low, high = ("x0", "x1") if axis == 0 else ("y0", "y1")
    half = whole._replace(**{high if part == 1 else low: middle})
    share = (getattr(half, high) - getattr(half, low)) / (getattr(whole, high) - getattr(whole, low))
    return dataclasses.replace(features.take(rows), domain=half._replace(area=whole.area * share))


def _region(photo: Path) -> str:
    country, _, landmark = photo.parent.name.partition("__")
    if country == "indian_monuments":
        return "Delhi" if landmark in _DELHI else "India"
    return "Porto" if country == "porto" else "elsewhere"


def _width(photo: Path) -> int:
    if not is_photo_name(photo.name):
        return _NARROW + 1
    with Image.open(photo) as opened:
        return opened.width


def _shuffled(photos: list[Path]) -> tuple[Path, ...]:
    return tuple(photos[i] for i in np.random.default_rng(0).permutation(len(photos)))
