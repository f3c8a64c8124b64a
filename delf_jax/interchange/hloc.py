"""Features and matches in HDF5 files as hloc (Hierarchical-Localization) reads and writes them.

A feature file has a group for each photo, named like the photo below its root: ``keypoints`` float32 [n, 2] (x, y) with
the origin at the centre of the top-left pixel, as here; ``descriptors`` [D, n]; ``scores`` [n]; ``scales`` [n];
``image_size`` (width, height). A match file has a group A/B for each pair, slashes in the names turned to hyphens:
``matches0`` [n], for each row of A the row of B or -1, and ``matching_scores0``. Sources: hloc's extract_features.py,
match_features.py, utils/parsers.py and utils/io.py. Needs h5py, of the extra ``[sfm]``.
"""

import os
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np

from delf_jax.errors import FileFormatError, one_line
from delf_jax.features import LocalFeatures
from delf_jax.files import atomic
from delf_jax.interchange.pairs import PairMatches

# Uncertainty of a keypoint in pixels, at the size that features are computed at. hloc verifies matches within four
# times as many pixels.
UNCERTAINTY = 2.0


def write_features(path: str | os.PathLike[str], photos: Iterable[tuple[str, LocalFeatures]], *, max_side: int) -> None:
    """Writes a feature file that appears whole or not at all.

    Args:
        photos: (name below the root, features); one photo is in memory at a time.
        max_side: longest side in pixels that the features were computed at; it decides the keypoints' ``uncertainty``.

    Raises:
        FileFormatError: h5py is not installed, or a name comes twice.
    """
    with atomic.replacing(path) as aside, _h5py().File(aside, "w", libver="latest") as file:
        for name, features in photos:
            group = _new_group(file, name)
            height, width = features.image_size
            group["keypoints"] = np.asarray(features.keypoints, np.float32)
            group["keypoints"].attrs["uncertainty"] = UNCERTAINTY * max(1.0, max(height, width) / max_side)
            group["descriptors"] = np.asarray(features.descriptors, np.float16).T
            group["scores"] = np.asarray(features.scores, np.float32)
            group["scales"] = np.asarray(features.scales, np.float32)
            group["image_size"] = np.array([width, height], np.int64)


def read_features(path: str | os.PathLike[str]) -> dict[str, LocalFeatures]:
    """The photos of a feature file, by name; of ours or another extractor's. Features keep the order of the rows.

    Descriptors become unit-length float32 rows; scales are 1 if the file has none.

    Raises:
        FileFormatError: h5py is not installed, or the file is missing, damaged, or lacks what hloc needs.
    """
    found: dict[str, LocalFeatures] = {}

    def visit(name: str, group: Any) -> None:
        if not isinstance(group, h5py.Group) or "keypoints" not in group:
            return
        keypoints = np.asarray(group["keypoints"], np.float32).reshape(-1, 2)
        descriptors = np.asarray(group["descriptors"], np.float32).T
        descriptors = descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-12)
        ones = np.ones(len(keypoints), np.float32)
        scores, scales = (np.asarray(group[key], np.float32) if key in group else ones for key in ("scores", "scales"))
        width, height = (int(side) for side in np.asarray(group["image_size"]).reshape(2))
        if not len(keypoints) == len(descriptors) == len(scores) == len(scales):
            raise ValueError(f"{name} has columns of different lengths")
        found[name] = LocalFeatures(keypoints, scales, scores, descriptors, image_size=(height, width))

    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from None
    return found


def write_matches(path: str | os.PathLike[str], pairs: Iterable[tuple[PairMatches, int]]) -> None:
    """Writes a match file that appears whole or not at all.

    Args:
        pairs: (matches, number of features of the first photo). hloc gives them to COLMAP, which verifies them with
            the cameras. Scores are (1 + cosine) / 2.

    Raises:
        FileFormatError: h5py is not installed, or a pair comes twice.
    """
    with atomic.replacing(path) as aside, _h5py().File(aside, "w", libver="latest") as file:
        for pair, count in pairs:
            partners, scores = np.full(count, -1, np.int32), np.zeros(count, np.float16)
            partners[pair.rows[:, 0]] = pair.rows[:, 1]
            scores[pair.rows[:, 0]] = (1 + pair.similarities) / 2
            group = _new_group(file, pair_name(pair.a, pair.b))
            group["matches0"], group["matching_scores0"] = partners, scores


def read_matches(path: str | os.PathLike[str], a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
    """The matches of two photos, written in either order: (rows int32 [m, 2], scores float32 [m]).

    Raises:
        FileFormatError: h5py is not installed, the file is missing or damaged, or the pair is not in it.
    """
    try:
        with _h5py().File(path, "r") as file:
            turned = pair_name(a, b) not in file
            key = pair_name(b, a) if turned else pair_name(a, b)
            if key not in file:
                raise FileFormatError(f"{os.fspath(path)}: has no matches of {a} and {b}; match this pair first")
            partners = np.asarray(file[key]["matches0"], np.int32).reshape(-1)
            scores = np.asarray(file[key]["matching_scores0"], np.float32).reshape(-1)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from None
    rows = np.flatnonzero(partners >= 0)
    matches = np.stack([rows, partners[rows]], axis=1).astype(np.int32)
    return (matches[:, ::-1] if turned else matches), scores[rows]


def pair_name(a: str, b: str) -> str:
    """The group of a pair in a match file.

    >>> pair_name("db/1.jpg", "query/2.jpg")
    'db-1.jpg/query-2.jpg'
    """
    return f"{a.replace('/', '-')}/{b.replace('/', '-')}"


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError:
        raise FileFormatError("hloc's files need h5py; install it with `pip install delf-jax[sfm]`") from None
    return h5py


def _new_group(file: Any, name: str) -> Any:
    try:
        return file.create_group(name)
    except ValueError:
        raise FileFormatError(f"{name}: comes twice; give every photo a name of its own") from None


def _damaged(path: str | os.PathLike[str], error: Exception) -> FileFormatError:
    if isinstance(error, FileNotFoundError):
        return FileFormatError(f"{os.fspath(path)}: there is no such file")
    reason = one_line(error)
    return FileFormatError(f"{os.fspath(path)}: damaged or not a file as hloc writes it ({reason}); write it again")
