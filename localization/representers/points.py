"""The representer points: unit features, norms and places of training positions, and thumbnails of their photos.

At most ``max_points`` are kept, those with the smallest hash of photo and cell. This is a uniform sample that does not
depend on the order of the photos or on how they were split over processes. So the samples of parts merge into the
sample of the whole.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from delf_jax.errors import PredictorError
from delf_jax.files import model_file
from delf_jax.photos.load import reduced_size
from delf_jax.photos.names import path_key
from localization.representers.fitted_photos import FittedPhoto, FittedPhotos, PhotoSpool, PhotoWriter

_FEATURES, _COLUMNS, _PHOTOS = "units.npy", "columns.safetensors", "photos.parquet"


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
    """Kept training positions, in order of their hash.

    Attributes:
        unit: float16 [n, C], unit features; may be a memory map.
        norm: float32 [n], r_i.
        photo: int32 [n], index into ``photos``.
        cell: int32 [n, 2], (row, column) in the photo's feature map.
        photos: all training photos, including those of which no position was kept; they stay on disk.
        max_points: the limit that the sample was drawn with.
    """

    unit: Float[np.ndarray, "n c"]
    norm: Float[np.ndarray, " n"]
    photo: Int[np.ndarray, " n"]
    cell: Int[np.ndarray, "n 2"]
    photos: FittedPhotos
    max_points: int

    def __len__(self) -> int:
        return len(self.norm)

    def __add__(self, other: "Points") -> "Points":
        """The sample of both sets of photos; PredictorError if a photo is in both."""
        if twice := _first_name(self.photos, np.isin(self.photos.seeds(), other.photos.seeds())):
            raise PredictorError(f"{twice}: this photo is in both predictors; merge predictors of different photos")
        collector = PointCollector(min(self.max_points, other.max_points))
        collector.extend(self)
        collector.extend(other)
        return collector.finish()

    def __sub__(self, other: "Points") -> "Points":
        """The points of the photos that are not in ``other``, which can be fewer than ``max_points``.

        Raises:
            PredictorError: a photo of ``other`` is not among these.
        """
        here, there = self.photos.seeds(), other.photos.seeds()
        if strange := _first_name(other.photos, ~np.isin(there, here)):
            raise PredictorError(f"{strange}: cannot be forgotten, this predictor was not fitted on it")
        collector = PointCollector(self.max_points)
        collector.extend(self, keep=~np.isin(here, there))
        return collector.finish()

    def save(self, folder: Path) -> None:
        """Writes the points into an existing folder, with thumbnails of the photos that have a point."""
        np.save(folder / _FEATURES, self.unit, allow_pickle=False)
        columns = {"norm": self.norm, "photo": self.photo, "cell": self.cell}
        model_file.write(folder / _COLUMNS, columns, {"kind": "representer points", "max_points": self.max_points})
        pictured = _marked(self.photo, len(self.photos))
        with open(folder / _PHOTOS, "wb") as file:
            writer = PhotoWriter(file)
            for photo, has_points in zip(self.photos, pictured):
                writer.add(photo if has_points else photo._replace(thumbnail=None))
            writer.close()

    @classmethod
    def open(cls, folder: Path) -> "Points":
        """Opens what ``save`` wrote; features and photos stay on disk until they are used."""
        description, columns = model_file.read(folder / _COLUMNS)
        unit = np.load(folder / _FEATURES, mmap_mode="r", allow_pickle=False)
        photos = FittedPhotos(folder / _PHOTOS)
        return cls(unit, columns["norm"], columns["photo"], columns["cell"], photos, description["max_points"])


class _Columns(NamedTuple):
    """Columns of positions that may be kept: those of ``Points``, and the hashes."""

    unit: Float[np.ndarray, "n c"]
    norm: Float[np.ndarray, " n"]
    photo: Int[np.ndarray, " n"]
    cell: Int[np.ndarray, "n 2"]
    hashes: UInt64[np.ndarray, " n"]

    def smallest(self, most: int) -> "_Columns":
        """The ``most`` positions with the smallest hashes, in the order of the hashes."""
        order = np.argsort(self.hashes, kind="stable")[:most]
        return _Columns(*(column[order] for column in self))


class PointCollector:
    """Samples the points of a stream of photos; ``max_points`` bounds its memory, and the photos are kept on disk."""

    def __init__(self, max_points: int) -> None:
        self.max_points = max_points
        self._photos = PhotoSpool()
        self._columns: _Columns | None = None  # room for up to twice max_points
        self._count = 0  # of the rows in use
        self._highest = np.iinfo(np.uint64).max  # of the hashes that can still be in the sample

    def add(
        self,
        photo: FittedPhoto,
        unit: Float[np.ndarray, "h w c"],
        norms: Float[np.ndarray, "h w"],
        *,
        picture: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        """Adds all positions of one photo.

        Args:
            photo: the photo, without its thumbnail.
            unit, norms: its unit features and their norms.
            picture: makes the thumbnail; called only if a position may be kept.
        """
        h, w, _ = unit.shape
        cells = np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"), axis=-1).reshape(-1, 2)
        hashes = _hash(np.full(h * w, path_key(photo.name), np.uint64), cells)
        rows = np.flatnonzero(hashes <= self._highest)
        self._keep(
            _Columns(
                unit.reshape(h * w, -1)[rows].astype(np.float16, copy=False),
                norms.reshape(-1)[rows].astype(np.float32, copy=False),
                np.full(len(rows), len(self._photos), np.int32),
                cells[rows].astype(np.int32),
                hashes[rows],
            )
        )
        # A thumbnail is shown only beside a kept position, and takes most of the space of a photo.
        self._photos.add(photo._replace(thumbnail=picture()) if len(rows) else photo)

    def extend(self, points: Points, *, keep: Bool[np.ndarray, " photos"] | None = None) -> None:
        """Adds the points of other photos; if ``keep`` is given, only those of the photos where it is True."""
        if keep is None:
            keep = np.ones(len(points.photos), bool)
        hashes = _hash(points.photos.seeds()[points.photo], points.cell)
        rows = np.flatnonzero(keep[points.photo] & (hashes <= self._highest))
        index = (len(self._photos) + np.cumsum(keep) - 1).astype(np.int32)
        photos = index[points.photo[rows]]
        self._keep(_Columns(points.unit[rows], points.norm[rows], photos, points.cell[rows], hashes[rows]))
        pictured = _marked(points.photo[rows], len(points.photos))
        for photo, kept, has_points in zip(points.photos, keep, pictured):
            if kept:
                self._photos.add(photo if has_points else photo._replace(thumbnail=None))

    def finish(self) -> Points:
        """The points of all photos that were added, which must be at least one."""
        unit, norm, photo, cell, _ = self._sample()
        return Points(unit, norm, photo, cell, self._photos.finish(), self.max_points)

    def _keep(self, rows: _Columns) -> None:
        rows = rows.smallest(self.max_points)
        if self._count + len(rows.hashes) > 2 * self.max_points:
            sample = self._sample()
            self._count, self._highest = 0, sample.hashes[-1]
            self._append(sample)
        self._append(rows)

    def _append(self, rows: _Columns) -> None:
        start, self._count = self._count, self._count + len(rows.hashes)
        if self._columns is None:
            self._columns = rows
        room = len(self._columns.hashes)
        if self._count > room:
            longer = min(max(self._count, 2 * room), 2 * self.max_points)
            self._columns = _Columns(*(_lengthened(column, longer) for column in self._columns))
        for column, added in zip(self._columns, rows):
            column[start : self._count] = added

    def _sample(self) -> _Columns:
        assert self._columns is not None
        return _Columns(*(column[: self._count] for column in self._columns)).smallest(self.max_points)


def thumbnail(pixels: np.ndarray | None, side: int) -> bytes | None:
    """JPEG of a uint8 RGB photo, reduced to a longest side of ``side`` pixels; None without a photo or if side is 0."""
    if pixels is None or not side:
        return None
    size = reduced_size(pixels.shape[:2], side)
    small = pixels if size == pixels.shape[:2] else cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return data.tobytes()


def _lengthened(column: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([column, np.empty((count - len(column), *column.shape[1:]), column.dtype)])


def _marked(places: Int[np.ndarray, " k"], count: int) -> Bool[np.ndarray, " count"]:
    marked = np.zeros(count, bool)
    marked[places] = True
    return marked


def _first_name(photos: FittedPhotos, which: Bool[np.ndarray, " n"]) -> str | None:
    """The first name, in alphabetical order, of the photos where ``which`` is True; None if there are none."""
    return min((name for name, marked in zip(photos.names(), which) if marked), default=None)


def _hash(seeds: UInt64[np.ndarray, " n"], cells: Int[np.ndarray, "n 2"]) -> UInt64[np.ndarray, " n"]:
    """Hashes of (photo, row, column): the mixing step of splitmix64."""
    with np.errstate(over="ignore"):
        z = seeds + (cells[:, 0].astype(np.uint64) << np.uint64(32)) + cells[:, 1].astype(np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
