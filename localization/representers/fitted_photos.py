"""The photos that a predictor was fitted on, in a Parquet file of which only the parts that are needed are read."""

import contextlib
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int, UInt64

from delf_jax.errors import PredictorError, reason_of
from delf_jax.photos.names import path_key

_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("first_y", pa.float64()),
        ("first_x", pa.float64()),
        ("step_y", pa.float64()),
        ("step_x", pa.float64()),
        ("label", pa.string()),
        ("thumbnail", pa.binary()),
    ]
)
_READ_ROWS = 1024
_GROUP_BYTES, _ROW_BYTES = 1 << 20, 300  # a row as Python objects, without its thumbnail


class FittedPhoto(NamedTuple):
    """A training photo.

    Attributes:
        name: its path, or the key that it was given with.
        size: (height, width) in pixels of the upright original.
        first: (y, x) of the centre of cell (0, 0) of its feature map, in pixels of the upright original.
        step: (y, x), pixels between the centres of neighbouring cells.
        label: its class, if one was given.
        thumbnail: JPEG of the photo, or None.
    """

    name: str
    size: tuple[int, int]
    first: tuple[float, float]
    step: tuple[float, float]
    label: str | None = None
    thumbnail: bytes | None = None

    def position(self, cell: Int[np.ndarray, "2"]) -> tuple[float, float]:
        """(x, y) in pixels of the upright original of the centre of a cell (row, column)."""
        y, x = (first + int(i) * step for i, first, step in zip(cell, self.first, self.step))
        return x, y


class FittedPhotos:
    """The photos in a file, in the order in which they were fitted.

    Args:
        file: written by ``PhotoWriter``.
    """

    def __init__(self, file: BinaryIO | Path) -> None:
        # Earlier versions wrote all photos as one row group; without a buffer it would be read as a whole.
        self._file = pq.ParquetFile(file, buffer_size=1 << 16)
        described = self._file.metadata
        rows = [described.row_group(group).num_rows for group in range(described.num_row_groups)]
        self._starts = np.cumsum([0, *rows])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[FittedPhoto]:
        for batch in self._batches():
            yield from map(_of_row, batch.to_pylist())

    def take(self, places: Sequence[int] | Int[np.ndarray, " k"]) -> list[FittedPhoto]:
        """The photos at these positions, in the same order; IndexError if there is no such photo."""
        places = np.asarray(places, np.int64)
        if ((places < 0) | (places >= len(self))).any():
            raise IndexError(f"there are {len(self)} photos, and some of {places.tolist()} are not among them")
        wanted = np.unique(places)
        found: dict[int, FittedPhoto] = {}
        for group in np.unique(np.searchsorted(self._starts, wanted, side="right") - 1).tolist():
            start = self._starts[group]
            for batch in self._batches(row_groups=[group]):
                inside = wanted[(wanted >= start) & (wanted < start + len(batch))]
                rows = batch.take(pa.array(inside - start)).to_pylist()
                found.update(zip(inside.tolist(), map(_of_row, rows)))
                start += len(batch)
                if start > wanted[-1]:
                    break
        return [found[place] for place in places.tolist()]

    def names(self) -> Iterator[str]:
        """The names of all photos."""
        for batch in self._batches(columns=["name"]):
            yield from batch["name"].to_pylist()

    def labels(self) -> Iterator[str | None]:
        """The class of each photo."""
        for batch in self._batches(columns=["label"]):
            yield from batch["label"].to_pylist()

    def seeds(self) -> UInt64[np.ndarray, " n"]:
        """``path_key`` of the name of each photo."""
        return np.fromiter(map(path_key, self.names()), np.uint64, len(self))

    def _batches(self, **options: Any) -> Iterator[pa.RecordBatch]:
        # Arrow's own threads can outlive the interpreter, and the process then aborts at its exit.
        return self._file.iter_batches(_READ_ROWS, use_threads=False, **options)


class PhotoWriter:
    """Writes photos to an open file, which is complete after ``close``.

    Raises:
        OSError: the disk is full. Every method can raise it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # Statistics of the thumbnails would put some of them into the footer; JPEG does not compress further.
        self._writer = pq.ParquetWriter(file, _SCHEMA, use_dictionary=["label"], write_statistics=False)
        self._waiting: list[FittedPhoto] = []
        self._waiting_bytes = 0

    def add(self, photo: FittedPhoto) -> None:
        """Adds one photo, which is written now or with the next ones."""
        self._waiting.append(photo)
        self._waiting_bytes += _ROW_BYTES + len(photo.thumbnail or b"")
        if self._waiting_bytes >= _GROUP_BYTES:
            self._write()

    def close(self) -> None:
        """Writes the photos that are waiting and the footer; the file stays open."""
        self._write()
        self._writer.close()
        self._file.flush()

    def discard(self) -> None:
        """Closes the file and drops the photos that are waiting."""
        for closable in (self._writer, self._file):
            with contextlib.suppress(OSError):
                closable.close()

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_pylist([_to_row(photo) for photo in self._waiting], _SCHEMA))
        self._waiting, self._waiting_bytes = [], 0


class PhotoSpool:
    """Collects photos in a temporary file. The file has no name and is deleted with its last reader.

    Raises:
        PredictorError: the disk of the temporary files is full. Every method can raise it.
    """

    def __init__(self) -> None:
        with _temporary():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by discard, or with the photos)
            self._writer = PhotoWriter(self._file)
        self._count = 0
        self._discarding = weakref.finalize(self, self._writer.discard)

    def __len__(self) -> int:
        return self._count

    def add(self, photo: FittedPhoto) -> None:
        """Adds one photo."""
        with _temporary():
            self._writer.add(photo)
        self._count += 1

    def finish(self) -> FittedPhotos:
        """All photos. No photo can be added after this."""
        with _temporary():
            self._writer.close()
            photos = FittedPhotos(self._file)
        self._discarding.detach()
        weakref.finalize(photos, self._file.close)
        return photos


@contextlib.contextmanager
def _temporary() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PredictorError(
            f"{tempfile.gettempdir()}: temporary data of the fitted photos cannot be written there "
            f"({reason_of(error)}); free some space, or set TMPDIR to another folder"
        ) from error


def _to_row(photo: FittedPhoto) -> dict[str, Any]:
    return dict(zip(_SCHEMA.names, (photo.name, *photo.size, *photo.first, *photo.step, photo.label, photo.thumbnail)))


def _of_row(row: dict[str, Any]) -> FittedPhoto:
    size = row["height"], row["width"]
    if "cell_rows" in row:
        # Predictors of version 0.1 do not say where their cells lie: the outermost ones are taken to lie on the corners
        # of the photo, which is wrong by up to a cell.
        last = row["cell_rows"] - 1, row["cell_columns"] - 1
        first, step = (0.0, 0.0), ((size[0] - 1) / max(last[0], 1), (size[1] - 1) / max(last[1], 1))
    else:
        first, step = (row["first_y"], row["first_x"]), (row["step_y"], row["step_x"])
    return FittedPhoto(row["name"], size, first, step, row["label"], row["thumbnail"])
