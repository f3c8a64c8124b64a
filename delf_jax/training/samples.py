"""Labelled photos: a training set, in files or in records."""

import dataclasses
import functools
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from delf_jax.errors import ImageError, TrainingDataError, reason_of
from delf_jax.photos.find import PhotoFile, find_photos
from delf_jax.photos.load import Photo, load_photo
from delf_jax.photos.names import left_out_words

_log = logging.getLogger(__name__)


@runtime_checkable
class Samples(Protocol):
    """Photos with a class each, sorted by class and then by name; the loader reads them by position.

    Attributes:
        classes: names of the classes; a label is a position in them.
        labels: int32 [n], ascending.
        digest: identity of the list (names, labels and classes), equal for folders and for records made from them.
    """

    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def digest(self) -> str: ...

    def __len__(self) -> int: ...

    def read(self, position: int, *, max_side: int | None) -> tuple[str, Photo]:
        """Name and pixels of one photo; raises ImageError if it cannot be read."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledPhotos:
    """Samples that are photo files.

    Attributes:
        names: of the photos, relative to ``root``, or absolute paths or addresses.
        labels: int32 [n], ascending.
        classes: names of the classes, sorted.
        root: folder of relative names.
        absent: names in a list that are not on the disk.
    """

    names: Sequence[str]
    labels: np.ndarray
    classes: Sequence[str]
    root: str = ""
    absent: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.names)

    @functools.cached_property
    def digest(self) -> str:
        return digest_of(self.names, self.labels, self.classes)

    def path(self, position: int) -> str:
        """Path or address of one photo."""
        return os.path.join(self.root, self.names[position])

    def read(self, position: int, *, max_side: int | None) -> tuple[str, Photo]:
        """Name and pixels of one photo; raises ImageError if it cannot be read."""
        return self.names[position], load_photo(self.path(position), max_side=max_side)

    def take(self, positions: np.ndarray) -> "LabelledPhotos":
        """The photos at these ascending positions, with all classes kept."""
        names = [self.names[position] for position in positions]
        return dataclasses.replace(self, names=names, labels=self.labels[positions])


def from_folders(root: str | os.PathLike[str]) -> LabelledPhotos:
    """Photos in folders named after their classes, ``root/CLASS/photo.jpg``, each class searched in depth.

    Raises:
        TrainingDataError: ``root`` holds no folder with photos.
    """
    root = os.path.abspath(root)
    try:
        with os.scandir(root) as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise TrainingDataError(
            f"{root}: cannot be listed ({reason_of(error)}); name a folder of class folders"
        ) from None
    left_out: Counter[str] = Counter()
    labelled = [
        (name, os.path.relpath(path, root))
        for name in classes
        for path in _photo_paths([os.path.join(root, name)], left_out)
    ]
    _warn(left_out)
    if not labelled:
        raise TrainingDataError(f"{root}: holds no photos in class folders; put each photo in a folder of its class")
    return photo_list(labelled, root=root)


def unlabelled(paths: Iterable[str | os.PathLike[str]]) -> LabelledPhotos:
    """Photos without labels: each is a class, for self-labelled training (``delf-jax train --labels none``).

    Args:
        paths: what ``find_photos`` takes: files, folders, globs, addresses.

    Raises:
        TrainingDataError: there is no photo, or a name leads to no photo.
    """
    left_out: Counter[str] = Counter()
    found = _photo_paths(paths, left_out)
    _warn(left_out)
    if not found:
        raise TrainingDataError("no photos were named; give files, folders, globs or addresses")
    return photo_list([(path, path) for path in found])


def photo_list(labelled: Iterable[tuple[str, str]], *, root: str = "", absent: Sequence[str] = ()) -> LabelledPhotos:
    """A sorted list from (class, name of the photo) pairs."""
    pairs = sorted(labelled)
    classes = sorted({label for label, _ in pairs})
    position = {label: i for i, label in enumerate(classes)}
    labels = np.array([position[label] for label, _ in pairs], np.int32)
    return LabelledPhotos([name for _, name in pairs], labels, classes, root, absent)


def _photo_paths(names: Iterable[str | os.PathLike[str]], left_out: Counter[str]) -> list[str]:
    """Paths of all photos that these names lead to; raises TrainingDataError if a name leads to no photo."""
    paths = []
    for photo in find_photos(names, left_out=left_out):
        if isinstance(photo, ImageError):
            raise TrainingDataError(str(photo))
        assert isinstance(photo, PhotoFile)
        paths.append(photo.path)
    return paths


def _warn(left_out: Counter[str]) -> None:
    if left_out:
        _log.warning(left_out_words(left_out))


def digest_of(names: Iterable[str], labels: np.ndarray, classes: Sequence[str]) -> str:
    """SHA-256 in hexadecimal of a list: names, order and classes of the photos."""
    digest = hashlib.sha256()
    for text in (*names, "", *classes):
        digest.update(text.encode(errors="surrogateescape") + b"\0")
    digest.update(np.ascontiguousarray(labels, "<i4").tobytes())
    return digest.hexdigest()


def split(samples: LabelledPhotos, *, validation: float = 0.2) -> tuple[LabelledPhotos, LabelledPhotos]:
    """Training and validation part. The name of a photo alone decides its part (``held_out``)."""
    aside = held_out(samples.names, validation)
    return samples.take(np.flatnonzero(~aside)), samples.take(np.flatnonzero(aside))


def held_out(names: Iterable[str], share: float) -> Bool[np.ndarray, " n"]:
    """Which photos to keep aside; added photos do not change the choice of the others.

    Args:
        names: of the photos; only the file's name without extension counts, so folders may be renamed.
        share: of the photos. The official trainer keeps a fifth for validation.
    """
    return np.array([_fraction(name) < share for name in names], bool)


def _fraction(name: str) -> float:
    """A pseudo-random number in [0, 1) that depends only on the photo's id."""
    stem = os.path.splitext(os.path.basename(name))[0]
    # Not ``path_key``: it reads the bytes in the other order, which would change the photos that are kept aside.
    return int.from_bytes(hashlib.blake2b(stem.encode(errors="surrogateescape"), digest_size=8).digest()) / 2**64
