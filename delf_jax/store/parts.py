"""A part of a feature store: a Parquet file with the features of some photos, one row for each photo."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from delf_jax.features import Domain, LocalFeatures, are_domains
from delf_jax.files import json_files

UNREADABLE = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError)
"""What may be raised when a damaged part is read."""

_FLOATS = pa.list_(pa.field("element", pa.float32()))
SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "size": pa.int64(),
        "mtime_ns": pa.int64(),
        "content_hash": pa.string(),
        "height": pa.int32(),
        "width": pa.int32(),
        "keypoints": _FLOATS,
        "scales": _FLOATS,
        "scores": _FLOATS,
        "descriptors": pa.list_(pa.field("element", pa.float16())),
        "model": pa.string(),
        "domain": _FLOATS,
    }
)
"""The columns of a part; ``encode`` says what they hold."""


class StoredPhoto(NamedTuple):
    """A photo of a store.

    Attributes:
        path: absolute path, or fsspec address.
        size: bytes of the file.
        mtime_ns: its modification time in nanoseconds since 1970; 0 if the file system does not have it.
        content_hash: sha256 of the file's bytes in hexadecimal.
        features: its local features. The store has the descriptors as float16; here they are float32 of unit length.
    """

    path: str
    size: int
    mtime_ns: int
    content_hash: str
    features: LocalFeatures


def encode(
    photos: Sequence[StoredPhoto], *, dimension: int, fingerprint: str, origin: Mapping[str, Any] | None = None
) -> bytes:
    """The Parquet file of ``photos``. Its metadata has ``origin``, what made them.

    Columns: path, size, mtime_ns, content_hash, height, width, keypoints (x, y, x, y, ...), scales, scores, descriptors
    (float16, ``dimension`` values for each feature, one feature after another), model and domain (``Domain``, or
    nothing). A photo has as many features as ``scores`` has values. Flat lists are written and read several times
    faster than lists of lists.
    """
    features = [photo.features for photo in photos]

    def lists(values: list[Any], dtype: type) -> pa.ListArray:
        flat: list[np.ndarray] = [np.asarray(v, dtype).ravel() for v in values]
        offsets = np.concatenate([[0], np.cumsum([len(v) for v in flat])])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.concatenate(flat)))

    table = pa.table(
        {
            "path": pa.array([photo.path for photo in photos], pa.string()),
            "size": pa.array([photo.size for photo in photos], pa.int64()),
            "mtime_ns": pa.array([photo.mtime_ns for photo in photos], pa.int64()),
            "content_hash": pa.array([photo.content_hash for photo in photos], pa.string()),
            "height": pa.array([f.image_size[0] for f in features], pa.int32()),
            "width": pa.array([f.image_size[1] for f in features], pa.int32()),
            "keypoints": lists([f.keypoints for f in features], np.float32),
            "scales": lists([f.scales for f in features], np.float32),
            "scores": lists([f.scores for f in features], np.float32),
            "descriptors": lists([f.descriptors for f in features], np.float16),
            "model": pa.array([fingerprint] * len(photos), pa.string()),
            "domain": lists([f.domain or () for f in features], np.float32),
        }
    ).replace_schema_metadata({"delf_jax": json.dumps({"dimension": dimension, **(origin or {})})})
    sink = pa.BufferOutputStream()
    # Descriptors hardly compress, and compressing takes longer than writing.
    pq.write_table(table, sink, compression="none", use_dictionary=["model"], write_statistics=False)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode(
    data: bytes, *, dimension: int, skip: frozenset[int] = frozenset(), as_kept: bool = False
) -> Iterator[StoredPhoto]:
    """The photos of a part, without the rows in ``skip``; raises one of ``UNREADABLE`` if it is damaged.

    Descriptors become float32 of unit length. With ``as_kept`` they stay float16, to be written again.
    """
    # Arrow's threads may outlive the interpreter and abort it at exit (apache/arrow#34314).
    file = pq.ParquetFile(pa.BufferReader(data))
    _require_honest(file, len(data))
    table = file.read(use_threads=False).combine_chunks()
    if "domain" not in table.column_names:  # a part of an earlier version
        table = table.append_column(SCHEMA.field("domain"), pa.array([[]] * len(table), _FLOATS))
    for field in SCHEMA:
        column = table.column(field.name)
        if str(column.type) != str(field.type) or column.null_count:
            raise ValueError(f"its column {field.name} is not of the type {field.type}, or has gaps")
    scalars = {name: table.column(name).to_pylist() for name in ("path", "size", "mtime_ns", "content_hash")}
    heights, widths = table.column("height").to_pylist(), table.column("width").to_pylist()
    ends, scores = _lists(table, "scores", 1)
    columns = [
        _lists(table, name, width) for name, width in (("scales", 1), ("keypoints", 2), ("descriptors", dimension))
    ]
    if not all(np.array_equal(ends, column_ends) for column_ends, _ in columns):
        raise ValueError("its columns have different lengths")
    scales, keypoints, descriptors = (values for _, values in columns)
    known, domains = _lists(table, "domain", len(Domain._fields))
    if not are_domains(domains).all() or (np.diff(known) > 1).any():
        raise ValueError("its column domain does not hold one domain for each photo")
    for row in range(len(table)):
        if row in skip:
            continue
        here = slice(ends[row], ends[row + 1])
        features = LocalFeatures(
            keypoints[here],
            scales[here, 0],
            scores[here, 0],
            descriptors[here] if as_kept else _unit(descriptors[here]),
            image_size=(heights[row], widths[row]),
            domain=Domain(*domains[known[row]].tolist()) if known[row] < known[row + 1] else None,
        )
        yield StoredPhoto(**{name: values[row] for name, values in scalars.items()}, features=features)


def identities(file: Any) -> dict[str, list[Any]]:
    """The columns path, size, mtime_ns and content_hash of a part, from an open file. Features are not read."""
    table = pq.ParquetFile(file).read(["path", "size", "mtime_ns", "content_hash"], use_threads=False)
    columns: dict[str, list[Any]] = table.to_pydict()
    return columns


def origin(data: bytes) -> dict[str, Any]:
    """What made a part: the fingerprint, the dimension, and the ``origin`` that ``encode`` was given.

    Raises the same as ``decode``, and ValueError if the part has no photos.
    """
    file = pq.ParquetFile(pa.BufferReader(data))
    _require_honest(file, len(data))
    kept = json_files.loads_object(file.schema_arrow.metadata[b"delf_jax"])
    models = file.read(["model"], use_threads=False).column("model")
    if not len(models):
        raise ValueError("it has no photos")
    return {"fingerprint": models[0].as_py(), **kept}


def _unit(descriptors: np.ndarray) -> np.ndarray:
    unit = descriptors.astype(np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    return unit


def _lists(table: pa.Table, name: str, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The offsets of the rows' lists, in units of ``width``, and all values [n, width]."""
    column = table.column(name)
    if len(column) == 0:
        return np.zeros(1, np.int64), np.zeros((0, width), np.float32)
    chunk = column.chunk(0)
    offsets = chunk.offsets.to_numpy()
    if (offsets % width).any():
        raise ValueError(f"its column {name} has a row that is no multiple of {width}")
    return offsets // width, chunk.values.to_numpy().reshape(-1, width)


def _require_honest(file: pq.ParquetFile, size: int) -> None:
    """Raises ValueError for a file that claims to become far larger in memory than it is, before its data are read."""
    described = file.metadata
    # Not for each column: PyArrow ends the process if the statistics of one are damaged.
    uncompressed = sum(described.row_group(group).total_byte_size for group in range(described.num_row_groups))
    if uncompressed > size or 4 * described.num_rows > size:
        raise ValueError("it claims more rows or values than it has bytes for")
