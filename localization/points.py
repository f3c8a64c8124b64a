"""The training positions that explanations point at: unit features, norms, where they are, and pictures of photos.

At most ``max_points`` are kept, chosen by a hash of photo and cell: a uniform sample that does not depend on the order
of photos or on how they were split over processes, so that samples of shards merge into the sample of the whole.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int, UInt64

from delf_jax import model_file
from delf_jax.errors import PredictorError

_FEATURES, _COLUMNS, _PHOTOS = "units.npy", "columns.safetensors", "photos.parquet"


class FittedPhoto(NamedTuple):
    """A training photo.

    Attributes:
        name: its path, or the key it was given under.
        size: (height, width) in pixels of the upright original.
        cells: (height, width) of its feature map.
        label: its class, if one was given.
        thumbnail: JPEG of the photo, or None.
    """

    name: str
    size: tuple[int, int]
    cells: tuple[int, int]
    label: str | None = None
    thumbnail: bytes | None = None


@dataclasses.dataclass(frozen=True)
class Points:
    """Kept training positions, in order of their hash.

    Attributes:
        unit: float16 [n, C], unit features; may be a memory map.
        norm: float32 [n], r_i.
        photo: int32 [n], index into ``photos``.
        cell: int32 [n, 2], (row, column) in the photo's feature map.
        photos: all photos fitted, also those of which no position was kept.
        max_points: the bound that the sample was drawn under.
    """

    unit: Float[np.ndarray, "n c"]
    norm: Float[np.ndarray, " n"]
    photo: Int[np.ndarray, " n"]
    cell: Int[np.ndarray, "n 2"]
    photos: Sequence[FittedPhoto]
    max_points: int

    def __len__(self) -> int:
        return len(self.norm)

    def __add__(self, other: "Points") -> "Points":
        """The sample of both sets of photos. PredictorError when a photo is in both."""
        if twice := {p.name for p in self.photos} & {p.name for p in other.photos}:
            raise PredictorError(
                f"{min(twice)}: this photo is in both predictors; merge predictors of different photos"
            )
        joined = Points(
            unit=np.concatenate([self.unit, other.unit]),
            norm=np.concatenate([self.norm, other.norm]),
            photo=np.concatenate([self.photo, other.photo + len(self.photos)]),
            cell=np.concatenate([self.cell, other.cell]),
            photos=[*self.photos, *other.photos],
            max_points=min(self.max_points, other.max_points),
        )
        return joined.sampled()

    def without(self, names: set[str]) -> "Points":
        """The points of all other photos. Forgetting leaves room that only fitting again would fill."""
        keep = [i for i, photo in enumerate(self.photos) if photo.name not in names]
        renumbered = np.full(len(self.photos), -1, np.int32)
        renumbered[keep] = np.arange(len(keep))
        rows = renumbered[self.photo] >= 0
        return dataclasses.replace(
            self,
            unit=self.unit[rows],
            norm=self.norm[rows],
            photo=renumbered[self.photo[rows]],
            cell=self.cell[rows],
            photos=[self.photos[i] for i in keep],
        )

    def sampled(self) -> "Points":
        """The ``max_points`` positions of the smallest hash, in its order."""
        used, place = np.unique(self.photo, return_inverse=True)
        seeds = np.array([_seed(self.photos[i].name) for i in used], np.uint64)
        order = np.argsort(_hash(seeds[place], self.cell), kind="stable")[: self.max_points]
        return dataclasses.replace(
            self, unit=self.unit[order], norm=self.norm[order], photo=self.photo[order], cell=self.cell[order]
        )

    def positions(self, rows: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k 2"]:
        """(x, y) of points in pixels of their upright original photos; map corners lie on photo corners."""
        sizes = np.array([self.photos[i].size for i in self.photo[rows]], np.float64).reshape(-1, 2)
        cells = np.array([self.photos[i].cells for i in self.photo[rows]], np.float64).reshape(-1, 2)
        yx = self.cell[rows] * (sizes - 1) / np.maximum(cells - 1, 1)
        return yx[:, ::-1]

    def save(self, folder: Path) -> None:
        """Writes the points into an existing folder."""
        np.save(folder / _FEATURES, self.unit, allow_pickle=False)
        columns = {"norm": self.norm, "photo": self.photo, "cell": self.cell}
        model_file.write(folder / _COLUMNS, columns, {"kind": "representer points", "max_points": self.max_points})
        table = {
            "name": [p.name for p in self.photos],
            "height": [p.size[0] for p in self.photos],
            "width": [p.size[1] for p in self.photos],
            "cell_rows": [p.cells[0] for p in self.photos],
            "cell_columns": [p.cells[1] for p in self.photos],
            "label": pa.array([p.label for p in self.photos], pa.string()),
            "thumbnail": pa.array([p.thumbnail for p in self.photos], pa.binary()),
        }
        pq.write_table(pa.table(table), folder / _PHOTOS)

    @classmethod
    def open(cls, folder: Path) -> "Points":
        """Reads what ``save`` wrote; features stay on disk until they are used."""
        description, columns = model_file.read(folder / _COLUMNS)
        photos = [
            FittedPhoto(
                row["name"],
                (row["height"], row["width"]),
                (row["cell_rows"], row["cell_columns"]),
                row["label"],
                row["thumbnail"],
            )
            # Arrow's own threads may outlive the interpreter, and the process then aborts at its exit.
            for row in pq.ParquetFile(folder / _PHOTOS).read(use_threads=False).to_pylist()
        ]
        unit = np.load(folder / _FEATURES, mmap_mode="r", allow_pickle=False)
        return cls(unit, columns["norm"], columns["photo"], columns["cell"], photos, description["max_points"])


class PointCollector:
    """Gathers the points of a stream of photos in memory bounded by twice ``max_points``, and the photos' names."""

    def __init__(self, max_points: int) -> None:
        self.max_points = max_points
        self._photos: list[FittedPhoto] = []
        self._pictured: set[int] = set()
        self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self._rows = 0

    def add(self, photo: FittedPhoto, unit: Float[np.ndarray, "h w c"], norms: Float[np.ndarray, "h w"]) -> None:
        """Adds all positions of one photo."""
        h, w, _ = unit.shape
        index = len(self._photos)
        self._photos.append(photo)
        if photo.thumbnail is not None:
            self._pictured.add(index)
        cells = np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"), axis=-1).reshape(-1, 2)
        columns = unit.reshape(h * w, -1).astype(np.float16), norms.reshape(-1).astype(np.float32), cells
        if h * w > self.max_points:  # no more than this of one photo can be in the sample
            seeds = np.full(h * w, _seed(photo.name), np.uint64)
            chosen = np.argsort(_hash(seeds, cells), kind="stable")[: self.max_points]
            columns = columns[0][chosen], columns[1][chosen], cells[chosen]
        kept, lengths, places = columns
        self._waiting.append((kept, lengths, np.full(len(kept), index, np.int32), places.astype(np.int32)))
        self._rows += len(kept)
        if self._rows > 2 * self.max_points:
            self._compact()

    def finish(self) -> Points:
        """The points of everything added, at least one photo."""
        return self._compact()

    def _compact(self) -> Points:
        unit, norm, photo, cell = (np.concatenate(parts) for parts in zip(*self._waiting))
        points = Points(unit, norm, photo, cell, self._photos, self.max_points).sampled()
        # A picture is shown beside a kept position only, and would be most of what a photo takes.
        kept = set(points.photo.tolist())
        for index in self._pictured - kept:
            self._photos[index] = self._photos[index]._replace(thumbnail=None)
        self._pictured &= kept
        self._waiting = [(points.unit, points.norm, points.photo, points.cell)]
        self._rows = len(points)
        return points


def thumbnail(pixels: np.ndarray, side: int) -> bytes:
    """JPEG of a uint8 RGB photo, longest side at most ``side`` pixels."""
    scale = min(1.0, side / max(pixels.shape[:2]))
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return data.tobytes()


def _seed(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _hash(seeds: UInt64[np.ndarray, " n"], cells: Int[np.ndarray, "n 2"]) -> UInt64[np.ndarray, " n"]:
    """One mixing step of splitmix64 over (photo, row, column)."""
    with np.errstate(over="ignore"):
        z = seeds + (cells[:, 0].astype(np.uint64) << np.uint64(32)) + cells[:, 1].astype(np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
