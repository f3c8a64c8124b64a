"""The local features of all photos of an index, in flat arrays on the disk."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from delf_jax.errors import SearchIndexError, one_line
from delf_jax.features import Domain, LocalFeatures, are_domains
from delf_jax.files import json_files
from delf_jax.files.growing_array import GrowingArray

_ARRAYS = ("image_sizes", "offsets", "domains", "keypoints", "scales", "scores", "descriptors")
_FEATURES: dict[str, type[np.generic]] = {
    "keypoints": np.float32,
    "scales": np.float32,
    "scores": np.float32,
    "descriptors": np.float16,
}


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoColumns:
    """Features of p photos, n in all; photo i owns the rows ``offsets[i]`` to ``offsets[i + 1]``.

    In an opened index the arrays over features are mapped from their files: only the rows that are used are read.

    Attributes:
        names: p names.
        image_sizes: int32 [p, 2], (height, width) of the upright original photos.
        offsets: int64 [p + 1].
        domains: float32 [p, 6], the ``Domain`` of each photo; NaN where it is not known.
        keypoints: float32 [n, 2], (x, y) in pixels of the upright original photo.
        scales: float32 [n].
        scores: float32 [n].
        descriptors: float16 [n, d], unit length up to rounding.
    """

    SMALL_FILES: ClassVar = ("names.json", "image_sizes.npy", "offsets.npy")

    names: tuple[str, ...]
    image_sizes: Int[np.ndarray, "p 2"]
    offsets: Int[np.ndarray, " p+1"]
    domains: Float[np.ndarray, "p 6"]
    keypoints: Float[np.ndarray, "n 2"]
    scales: Float[np.ndarray, " n"]
    scores: Float[np.ndarray, " n"]
    descriptors: Float[np.ndarray, "n d"]

    @classmethod
    def gather(cls, photos: Iterable[tuple[str, LocalFeatures]]) -> "PhotoColumns":
        """Joins photos in memory, one at a time; at the end it holds the features twice for a while.

        Raises:
            SearchIndexError: a name comes twice, dimensions differ, or no photo has a feature.
        """
        parts: dict[str, list[np.ndarray]] = {column: [] for column in _FEATURES}
        table = IndexedPhotoList()
        for name, features in photos:
            table.add(name, features)
            if len(features):
                for column, dtype in _FEATURES.items():
                    parts[column].append(np.asarray(getattr(features, column), dtype))
        table.require_features()
        joined = {column: np.concatenate(parts.pop(column)) for column in _FEATURES}
        return cls(
            names=tuple(table.sizes),
            image_sizes=table.image_sizes,
            offsets=table.offsets,
            domains=table.domains,
            **joined,
        )

    def __iter__(self) -> Iterator[tuple[str, LocalFeatures]]:
        """Photos in order, as ``gather`` takes them."""
        return ((name, self.features(photo)) for photo, name in enumerate(self.names))

    def features(self, photo: int) -> LocalFeatures:
        """The features of the photo with this number; its descriptors stay float16."""
        rows = slice(self.offsets[photo], self.offsets[photo + 1])
        height, width = self.image_sizes[photo]
        return LocalFeatures(
            self.keypoints[rows],
            self.scales[rows],
            self.scores[rows],
            self.descriptors[rows],
            (int(height), int(width)),
            domain=Domain(*self.domains[photo].tolist()) if np.isfinite(self.domains[photo]).all() else None,
        )

    def photo_of(self, rows: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        """Which photo owns each row."""
        return np.searchsorted(self.offsets, rows, side="right") - 1

    def rows_of(self, photos: Bool[np.ndarray, " p"]) -> Int[np.ndarray, " r"]:
        """The rows of the photos marked True, ascending."""
        return np.flatnonzero(np.repeat(photos, np.diff(self.offsets)))

    def save(self, folder: Path) -> None:
        """Writes one .npy file for each column, and the names as JSON."""
        for column in _ARRAYS:
            np.save(folder / f"{column}.npy", getattr(self, column), allow_pickle=False)
        (folder / "names.json").write_text(json.dumps(self.names))

    @classmethod
    def open(cls, folder: Path) -> "PhotoColumns":
        """Reads what ``save`` or a ``ColumnWriter`` wrote; SearchIndexError if files are damaged or inconsistent."""
        try:
            names = json_files.loads((folder / "names.json").read_bytes())
            # Mapped before they are read: a header that claims too many rows then fails without using memory.
            columns: dict[str, np.ndarray] = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in _ARRAYS
                if name != "domains" or (folder / "domains.npy").exists()
            }
            # Indexes of earlier versions do not know the domains of their photos.
            columns.setdefault("domains", np.full((len(names), len(Domain._fields)), np.nan, np.float32))
            _require_fit(names, columns)
            columns |= {name: np.array(columns[name]) for name in _ARRAYS if name not in _FEATURES}
        except Exception as error:  # NumPy's parser of headers raises errors of many kinds
            reason = one_line(error)
            raise SearchIndexError(f"{folder}: its columns are damaged ({reason}); build the index again") from None
        return cls(tuple(names), **columns)


def _require_fit(names: Any, columns: Mapping[str, np.ndarray]) -> None:
    offsets, rows = columns["offsets"], len(columns["scores"])
    shapes = {
        "image_sizes": ("<i4", (len(names), 2)),
        "offsets": ("<i8", (len(names) + 1,)),
        "domains": ("<f4", (len(names), len(Domain._fields))),
        "keypoints": ("<f4", (rows, 2)),
        "scales": ("<f4", (rows,)),
        "scores": ("<f4", (rows,)),
        "descriptors": ("<f2", (rows, columns["descriptors"].shape[-1])),
    }
    for name, (kind, shape) in shapes.items():
        if columns[name].dtype.str != kind or columns[name].shape != shape:
            raise ValueError(f"{name} is {columns[name].dtype} {columns[name].shape}")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("the names are not a list of texts")
    if not (np.isnan(columns["domains"]).all(axis=1) | are_domains(columns["domains"])).all():
        raise ValueError("a domain is no place of a photo")
    if offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) < 0).any():
        raise ValueError("the offsets do not ascend from 0 to the number of features")


class IndexedPhotoList:
    """Names, sizes and numbers of features of the photos of a stream, without the features.

    Attributes:
        sizes: (height, width) of each photo, by name.
        features: number of features so far.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, tuple[int, int]] = {}
        self.features = 0
        self._counts: list[int] = []
        self._domains: list[Domain | None] = []
        self._dimension: int | None = None

    def add(self, name: str, features: LocalFeatures) -> None:
        """Adds one photo; SearchIndexError if its name or its dimension does not fit those before it."""
        if name in self.sizes:
            raise SearchIndexError(f"{name}: comes twice; give every photo a name of its own")
        if len(features):
            self._dimension = self._dimension or features.descriptors.shape[1]
            require_dimension_of_others(name, features, self._dimension)
        self.sizes[name] = (int(features.image_size[0]), int(features.image_size[1]))
        self._counts.append(len(features))
        self._domains.append(features.domain)
        self.features += len(features)

    def require_features(self) -> None:
        """Raises SearchIndexError if no photo has a feature."""
        if not self.features:
            found = f"none of the {len(self.sizes)} photos has a feature" if self.sizes else "there are no photos"
            raise SearchIndexError(f"nothing to index: {found}; extract photos that show something")

    @property
    def image_sizes(self) -> Int[np.ndarray, "p 2"]:
        """int32 [p, 2], (height, width)."""
        return np.array(list(self.sizes.values()), np.int32).reshape(-1, 2)

    @property
    def offsets(self) -> Int[np.ndarray, " n"]:
        """int64 [p + 1], the row at which the features of each photo begin."""
        return np.cumsum([0, *self._counts], dtype=np.int64)

    @property
    def domains(self) -> Float[np.ndarray, "p 6"]:
        """float32 [p, 6]; NaN where a domain is not known."""
        unknown = Domain(*[np.nan] * len(Domain._fields))
        return np.array([domain or unknown for domain in self._domains], np.float32).reshape(-1, len(unknown))


def require_dimension_of_others(name: str, features: LocalFeatures, dimension: int) -> None:
    """Raises SearchIndexError if a photo's descriptors do not have the dimension of those before it."""
    found = features.descriptors.shape[1]
    if found != dimension:
        differ = f"{found} dimensions, the photos before it {dimension}"
        raise SearchIndexError(f"{name}: its descriptors have {differ}; extract all with one model")


class ColumnWriter:
    """Writes the columns of a stream of photos into a folder; memory holds names and counts, no features.

    A context manager: it closes the files, also when the stream raises an error.
    """

    def __init__(self, folder: Path) -> None:
        self.photos = IndexedPhotoList()
        self._folder = folder
        self._files = {column: GrowingArray(folder / f"{column}.npy", dtype) for column, dtype in _FEATURES.items()}

    def add(self, name: str, features: LocalFeatures) -> None:
        """Appends one photo; SearchIndexError if its name came before or its dimension differs."""
        self.photos.add(name, features)
        if len(features):
            for column, file in self._files.items():
                file.append(np.asarray(getattr(features, column)))

    def __enter__(self) -> "ColumnWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self._files.values():
            file.close()

    def finish(self) -> PhotoColumns:
        """Completes the files and maps them; SearchIndexError if no photo had a feature."""
        self.photos.require_features()
        for file in self._files.values():
            file.finish()
        np.save(self._folder / "image_sizes.npy", self.photos.image_sizes, allow_pickle=False)
        np.save(self._folder / "offsets.npy", self.photos.offsets, allow_pickle=False)
        np.save(self._folder / "domains.npy", self.photos.domains, allow_pickle=False)
        (self._folder / "names.json").write_text(json.dumps(list(self.photos.sizes)))
        return PhotoColumns.open(self._folder)
