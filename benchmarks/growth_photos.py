"""Makes any number of photos and features from the packaged photos."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

import delf_jax
from delf_cli.demo import PHOTOS
from delf_jax.features import LocalFeatures
from delf_jax.photos.load import load_photo

TILE = (120, 160)
FEATURES = 100
DIMENSION = 128
VIEWS = 10

# Standard deviation of the noise on a unit descriptor, over its length: cosines of 0.8 between views of one point.
_NOISE = 0.75


def write_tiles(folder: Path, count: int, *, seed: int = 0) -> None:
    """Writes ``count`` JPEG files of 160 x 120 pixels: real photos, turned, resized and cut at random."""
    rng = np.random.default_rng(seed)
    sources = [load_photo(path, max_side=640).pixels for path in sorted(PHOTOS.glob("*.jpg"))]
    folder.mkdir(parents=True)
    height, width = TILE
    for number in range(count):
        source = sources[number % len(sources)]
        angle, size = rng.uniform(-20, 20), rng.uniform(0.4, 1.2)
        centre = rng.uniform(0.25, 0.75, 2) * source.shape[1::-1]
        warp = cv2.getRotationMatrix2D(centre.tolist(), angle, size)
        warp = warp + np.array([[0, 0, width / 2 - centre[0]], [0, 0, height / 2 - centre[1]]])
        tile = cv2.warpAffine(source, warp, (width, height), borderMode=cv2.BORDER_REFLECT)
        cv2.imwrite(str(folder / f"{number:06}.jpg"), tile[..., ::-1])


def real_features() -> list[LocalFeatures]:
    """Features of the packaged photos by the packaged model, at one scale. Every cell is kept, so all have enough."""
    extractor = delf_jax.load("delf-r50", scales=(1.0,), max_side=512, detection="cells")
    return extractor(sorted(PHOTOS.glob("*.jpg")))


def save_features(path: Path, features: Sequence[LocalFeatures]) -> None:
    """Writes the features of some photos to one file."""
    columns = {
        f"{name}.{number}": getattr(photo, name)
        for number, photo in enumerate(features)
        for name in ("keypoints", "scales", "scores", "descriptors", "image_size")
    }
    np.savez(path, **columns)


def open_features(path: Path) -> list[LocalFeatures]:
    """Reads what ``save_features`` wrote."""
    with np.load(path, allow_pickle=False) as columns:
        photos = 1 + max(int(name.rsplit(".", 1)[1]) for name in columns)
        names = ("keypoints", "scales", "scores", "descriptors")
        return [
            LocalFeatures(
                image_size=tuple(columns[f"image_size.{number}"].tolist()),
                **{name: columns[f"{name}.{number}"] for name in names},
            )
            for number in range(photos)
        ]


def warped(
    sources: Sequence[LocalFeatures], count: int, *, start: int = 0, seed: int = 0
) -> Iterator[tuple[str, LocalFeatures]]:
    """Photos with names and 100 features each: random features of a real photo, seen from another viewpoint.

    Keypoints are turned, resized and moved; descriptors get noise and unit length again. Photo i is of source
    ``i % len(sources)`` and depends on nothing but i and the seed.
    """
    for number in range(start, start + count):
        rng = np.random.default_rng((seed, number))
        source = sources[number % len(sources)]
        yield f"{number:07}", _seen(source.take(np.sort(rng.permutation(len(source))[:FEATURES])), rng, _NOISE)


def views_of_places(sources: Sequence[LocalFeatures], count: int) -> Iterator[tuple[str, LocalFeatures]]:
    """``VIEWS`` photos each of many places, with 100 features each; the names are PLACE/VIEW.

    A place has descriptors of a real photo at other keypoints of it, so that no two places agree. Its views are made as
    by ``warped``.
    """
    for number in range(count):
        place, view = divmod(number, VIEWS)
        rng = np.random.default_rng(place)
        source = sources[place % len(sources)]
        at, of = (rng.permutation(len(source))[:FEATURES] for _ in range(2))
        scene = dataclasses.replace(source.take(np.sort(at)), descriptors=source.descriptors[of])
        yield f"{place:06}/{view}", _seen(scene, np.random.default_rng((place, view)), _NOISE)


def _seen(source: LocalFeatures, rng: np.random.Generator, noise: float) -> LocalFeatures:
    """All features from another viewpoint: places turned, resized and moved, descriptors with noise."""
    angle, size = rng.uniform(-0.3, 0.3), rng.uniform(0.7, 1.4)
    turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = rng.standard_normal((len(source), DIMENSION), np.float32)
    descriptors = source.descriptors + noise / DIMENSION**0.5 * shift
    return LocalFeatures(
        keypoints=(source.keypoints @ turn.T + rng.uniform(-20, 20, 2)).astype(np.float32),
        scales=(source.scales / size).astype(np.float32),
        scores=source.scores,
        descriptors=descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
        image_size=source.image_size,
    )
