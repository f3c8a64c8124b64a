"""A million real descriptors for ``benchmarks.search``, kept on disk between runs.

Extraction finds about 150 peaks in a photo of 400 pixels, in three seconds. To get a million descriptors in minutes,
features are interpolated at random places of the map, two per cell, as at peaks. Every photo is also used in warped
copies (``delf_jax.training.augmentation.Warp``).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import delf_jax
from benchmarks.datasets import data_folder
from benchmarks.feature_cache import cached_by_key, photo_key
from delf_cli.demo import PHOTOS
from delf_jax.extraction.descriptors import describe
from delf_jax.extraction.keypoints import sample
from delf_jax.features import LocalFeatures
from delf_jax.photos.load import load_photo
from delf_jax.settings import ExtractionSettings
from delf_jax.training.augmentation import Warp

SIZE = 448
PLACES = 1200
# Views whose features are the queries, a few from each.
ASKING = 64
# Cells at the edge describe the zeros around the photo; extraction leaves them out too (``selection.clear_of_border``).
_BORDER = 1.6


class View(NamedTuple):
    """A photo seen from elsewhere; equal views are equal pixels."""

    photo: Path
    number: int


class Views(NamedTuple):
    """What is indexed, and what asks.

    Attributes:
        indexed: enough photos for the wanted descriptors.
        asking: other views; of other photos of the same landmarks, where the landmark photos are at hand.
        source: which photos these are, in words.
    """

    indexed: list[View]
    asking: list[View]
    source: str


def choose_views(descriptors: int, data: Path | None = None) -> Views:
    """Views of the landmark photos where the data folder is at hand, of the packaged photos elsewhere."""
    try:
        landmarks = data_folder(data) / "landmarks"
    except FileNotFoundError:
        landmarks = Path()
    indexed = sorted(landmarks.glob("train/*/*.jpg"))
    asking = sorted(landmarks.glob("val/*/*.jpg"))
    source = f"{len(indexed)} landmark photos, asked with {len(asking)} others"
    if not indexed or not asking:
        indexed = asking = sorted(PHOTOS.glob("*.jpg"))
        source = f"{len(indexed)} packaged photos, asked with warped copies of them"
    wanted = range(ASKING, ASKING - (-descriptors // PLACES))
    return Views(_turn_by_turn(indexed, wanted), _turn_by_turn(asking, range(ASKING)), source)


class PlaceFeatures:
    """Turns views into ``PLACES`` features each, at random places."""

    def __init__(self, model: str = "delf-r50") -> None:
        self._extractor = delf_jax.load(model, settings=ExtractionSettings(model=model, max_side=SIZE))
        self._program = jax.jit(self._features)
        self._warp = Warp(SIZE, light=0.5)

    def cached(self, views: Sequence[View], folder: Path) -> list[LocalFeatures]:
        """Features of all views, made only where ``folder`` does not hold them yet."""
        description = {
            "method": "random places",
            "fingerprint": self._extractor.fingerprint,
            "size": SIZE,
            "places": PLACES,
            "border": _BORDER,
        }
        keys = [f"{photo_key(view.photo)}-{view.number}" for view in views]
        return cached_by_key(
            lambda rows: [self(views[row]) for row in rows], keys, description=description, folder=folder
        )

    def __call__(self, view: View) -> LocalFeatures:
        """The features of a view; scores are the norms of the map there."""
        pixels = load_photo(view.photo, max_side=self._warp.max_side).pixels
        seen = self._warp(pixels, np.random.default_rng(view.number)).pixels
        found = jax.device_get(self._program(self._extractor.params, seen[None], jax.random.key(view.number)))
        keypoints, scores, descriptors = (array[0] for array in found)
        order = np.argsort(-scores, kind="stable")
        return LocalFeatures(
            keypoints[order],
            np.ones(PLACES, np.float32),
            scores[order],
            descriptors[order].astype(np.float16),
            (SIZE, SIZE),
        )

    def _features(
        self, params: Any, images: Array, key: Array
    ) -> tuple[Float[Array, "1 k 2"], Float[Array, "1 k"], Float[Array, "1 k d"]]:
        layer = self._extractor.head.layer
        valid_hw = jnp.full((1, 2), SIZE, jnp.int32)
        dense = self._extractor.dense(params, images, valid_hw, last=layer)[layer]
        height, width = dense.shape[1:3]
        high = jnp.array([height, width]) - 1 - _BORDER
        positions = jax.random.uniform(key, (1, PLACES, 2), minval=_BORDER, maxval=high)
        features = sample(dense, positions)
        keypoints = sample(self._extractor.cell_centres(valid_hw, layer, height, width), positions)
        return keypoints, jnp.linalg.norm(features, axis=-1), describe(features, params["head"])


def _turn_by_turn(photos: Sequence[Path], numbers: Sequence[int]) -> list[View]:
    """One view a number, of every photo in turn; neighbours in the list are far apart in the folder."""
    order = np.random.default_rng(0).permutation(len(photos))
    return [View(photos[order[i % len(photos)]], number) for i, number in enumerate(numbers)]


def some_of_each(views: Sequence[LocalFeatures], count: int) -> Float[np.ndarray, "q d"]:
    """``count`` float32 descriptors in random order, equally many of each view up to one."""
    rng = np.random.default_rng(0)
    share = -(-count // len(views))
    chosen = np.concatenate([rng.permutation(view.descriptors)[:share] for view in views])
    return rng.permutation(chosen)[:count].astype(np.float32)
