"""Keeps features on disk between runs. The key is the method, its settings and weights, and the photo's content."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from delf_jax.features import LocalFeatures
from delf_jax.interchange.arrays import read_npz, write_npz


class Extract(Protocol):
    """Computes the features of photos, in the given order."""

    def __call__(self, photos: Sequence[Path], /) -> list[LocalFeatures]: ...


def cached_features(
    extract: Extract, photos: Sequence[Path], *, description: Mapping[str, Any], folder: Path, batch: int = 64
) -> list[LocalFeatures]:
    """Features of every photo; only those that are not in ``folder`` yet are extracted.

    Args:
        extract: called with the missing photos, ``batch`` at a time, so that an interrupted run loses little.
        photos: paths.
        description: everything on which the features depend besides the photo, as JSON values.
        folder: the cache; made if needed.

    Raises:
        ImageError: from ``extract``, names a photo that cannot be used.
    """
    keys = [photo_key(photo) for photo in photos]
    return cached_by_key(
        lambda rows: extract([photos[row] for row in rows]), keys, description=description, folder=folder, batch=batch
    )


def cached_by_key(
    extract: Callable[[Sequence[int]], list[LocalFeatures]],
    keys: Sequence[str],
    *,
    description: Mapping[str, Any],
    folder: Path,
    batch: int = 64,
) -> list[LocalFeatures]:
    """As ``cached_features``, for anything with a key: ``extract`` gets the positions of the missing ``keys``."""
    kept = folder / hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
    kept.mkdir(parents=True, exist_ok=True)
    files = [kept / f"{key}.npz" for key in keys]
    missing = [row for row, file in enumerate(files) if not file.exists()]
    for start in range(0, len(missing), batch):
        rows = missing[start : start + batch]
        for row, features in zip(rows, extract(rows), strict=True):
            write_npz(files[row], features)
    return [read_npz(file) for file in files]


def photo_key(photo: Path) -> str:
    """A hash of the content, because names and times change when photos are copied."""
    return hashlib.sha256(photo.read_bytes()).hexdigest()[:24]


def strongest(features: LocalFeatures, count: int) -> LocalFeatures:
    """The first ``count`` features of a photo; they have the highest scores."""
    return features.take(slice(count))
