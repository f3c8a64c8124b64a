"""Photos in shards: uncompressed tar files as WebDataset writes them, and Parquet files with a column of photos.

The name of a photo in a shard is ``SHARD::MEMBER``, for example ``/data/00007.tar::cat/12.jpg``. Shards are never
unpacked: photos are read from their place. The members of a Parquet file are its rows. Their names are the paths that
stand beside the photos in one struct, or come from a column of names; if these are not all there and all different,
they are row numbers. If several columns may be the photos, one is named: ``SHARD::COLUMN``, ``SHARD::COLUMN::MEMBER``.
"""

import functools
import os
import re
import tarfile
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from delf_jax.errors import ImageError, one_line
from delf_jax.photos.names import is_photo_name

_SHARD = re.compile(r".*\.(tar|parquet)", re.IGNORECASE | re.DOTALL)
_MEMBER = re.compile(r"(.*?\.(?:tar|parquet))::(.+)", re.IGNORECASE | re.DOTALL)
_COLUMN = re.compile(r"(.*\.parquet)::(.+)", re.IGNORECASE | re.DOTALL)
_PHOTOS = {"image", "img", "photo", "picture", "jpg", "jpeg", "png", "webp"}
_NAMES = ("path", "file_name", "filename", "image_path", "key", "__key__", "name", "image_id", "id")
_lock = threading.Lock()


class Member(NamedTuple):
    """A photo in a shard: its address, bytes (of the whole shard in a Parquet file), and time of last change in ns."""

    address: str
    size: int
    mtime_ns: int


def is_shard(name: str) -> bool:
    """Whether a file name is that of a shard."""
    return _SHARD.fullmatch(name) is not None


def is_member(name: str) -> bool:
    """Whether a name is that of a photo in a shard."""
    return _MEMBER.fullmatch(name) is not None


def split_column(name: str) -> tuple[str, str | None]:
    """``SHARD.parquet::COLUMN`` in its two parts; any other name, and None.

    >>> split_column("a/*.parquet::image"), split_column("a.tar")
    (('a/*.parquet', 'image'), ('a.tar', None))
    """
    match = _COLUMN.fullmatch(name)
    return (match[1], match[2]) if match else (name, None)


def members(shard: str, *, size: int, mtime_ns: int, column: str | None = None) -> Iterator[Member | ImageError]:
    """The photos in a shard, in its order, or an ImageError; only the headers of a tar file are read.

    Args:
        shard: path or fsspec address.
        size, mtime_ns: bytes and time of last change of the shard.
        column: the column of photos in a Parquet file; None if there is no doubt.
    """
    try:
        if shard.lower().endswith(".tar"):
            for name, place in _tar_places(shard, size, mtime_ns).items():
                if place is None:
                    yield ImageError(f"{shard}::{name}", "is in the shard twice; rename one of the two")
                else:
                    yield Member(f"{shard}::{name}", place.size, place.mtime_ns or mtime_ns)
        else:
            before = f"{shard}::{column}::" if column else f"{shard}::"
            for name in _rows(shard, size, mtime_ns, column).numbers:
                yield Member(before + name, size, mtime_ns)
    except _InDoubt as error:
        yield ImageError(
            shard, f"{' and '.join(error.columns)} may all be its photos; name one, as in {shard}::{error.columns[0]}"
        )
    except _WrongColumn as error:
        yield ImageError(shard, str(error))
    except (OSError, tarfile.TarError, pa.ArrowException, ValueError, OverflowError) as error:
        reason = one_line(error)
        yield ImageError(
            shard, f"is not a readable shard ({reason}); give an uncompressed .tar, or .parquet with photos"
        )


def read(name: str) -> bytes:
    """The bytes of a photo in a shard.

    Raises:
        FileNotFoundError: there is no such shard, or no such photo in it.
        OSError: the shard cannot be read.
    """
    match = _MEMBER.fullmatch(name)
    assert match is not None
    shard, member = match.groups()
    filesystem, path = fsspec.core.url_to_fs(shard)
    info = filesystem.info(path)
    identity = (shard, int(info["size"] or 0), str(info.get("mtime") or info.get("LastModified") or ""))
    try:
        if shard.lower().endswith(".tar"):
            place = _tar_places(*identity).get(member)
            if place is None:
                raise FileNotFoundError(name)
            with filesystem.open(path, "rb") as file:
                file.seek(place.offset)
                data: bytes = file.read(place.size)
                return data
        column, separator, key = member.partition("::")
        if not separator or column not in _columns(*identity):
            column, key = "", member
        number = _rows(*identity, column or None).numbers.get(key)
        if number is None:
            raise FileNotFoundError(name)
        return _photo_of_row(*identity, column or None, number)
    except _WrongColumn as error:
        raise OSError(str(error)) from None
    except (tarfile.TarError, pa.ArrowException, ValueError, OverflowError) as error:
        raise OSError(f"its shard is damaged: {error}") from None


class _Place(NamedTuple):
    offset: int
    size: int
    mtime_ns: int


class _Column(NamedTuple):
    """A column of bytes, or of structs with a field of bytes."""

    name: str
    field: str | None

    @property
    def path(self) -> str:
        return f"{self.name}.{self.field}" if self.field else self.name


class _Rows(NamedTuple):
    """Row numbers of a Parquet file by name, its column of photos, and the first row of each row group."""

    numbers: dict[str, int]
    column: _Column
    begins: list[int]


class _WrongColumn(ValueError):
    """A Parquet file has no such column of photos."""


class _InDoubt(_WrongColumn):
    """Several columns may be the photos."""

    def __init__(self, columns: list[str]) -> None:
        super().__init__(f"name its column of photos: {', '.join(columns)}")
        self.columns = columns


def _locked(function: Any) -> Any:
    """Caches the last eight results; several threads that ask for the same result compute it once."""
    cached = functools.lru_cache(maxsize=8)(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        with _lock:
            return cached(*arguments)

    return call


@_locked
def _tar_places(shard: str, size: int, changed: Any) -> dict[str, _Place | None]:
    """Where each photo is; None for a name that is there twice."""
    places: dict[str, _Place | None] = {}
    with fsspec.open(shard, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for entry in archive:
            if entry.isreg() and not entry.issparse() and is_photo_name(os.path.basename(entry.name)):
                place = _Place(entry.offset_data, entry.size, int(entry.mtime * 1e9))
                places[entry.name] = None if entry.name in places else place
    return places


@_locked
def _rows(shard: str, size: int, changed: Any, wanted: str | None) -> _Rows:
    with fsspec.open(shard, "rb") as file:
        parquet = pq.ParquetFile(file)
        column = _photo_column(_columns_of_bytes(parquet.schema_arrow), wanted)
        names = _row_names(parquet, column)
        begins = [0]
        for group in range(parquet.num_row_groups):
            begins.append(begins[-1] + parquet.metadata.row_group(group).num_rows)
        return _Rows({name: number for number, name in enumerate(names)}, column, begins)


@_locked
def _columns(shard: str, size: int, changed: Any) -> frozenset[str]:
    with fsspec.open(shard, "rb") as file:
        return frozenset(_columns_of_bytes(pq.ParquetFile(file).schema_arrow))


def _columns_of_bytes(schema: pa.Schema) -> dict[str, _Column]:
    """The columns of bytes, and the structs with bytes, as in data sets of Hugging Face, by the names they go by."""
    found = {}
    for field in schema:
        if _is_bytes(field.type):
            found[str(field.name)] = _Column(field.name, None)
        elif pa.types.is_struct(field.type):
            inner = [str(one.name) for one in field.type if _is_bytes(one.type)]
            for name in inner:
                label = str(field.name) if len(inner) == 1 or name == "bytes" else f"{field.name}.{name}"
                found[label] = _Column(field.name, name)
    return found


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _photo_column(columns: dict[str, _Column], wanted: str | None) -> _Column:
    if not columns:
        raise ValueError("it has no column of bytes")
    if wanted is not None:
        if wanted not in columns:
            raise _WrongColumn(f"it has no column {wanted} of bytes, but {', '.join(columns)}")
        return columns[wanted]
    likely = [name for name in columns if name.lower() in _PHOTOS]
    if len(columns) > 1 and len(likely) != 1:
        raise _InDoubt(likely or list(columns))
    return columns[likely[0]] if likely else next(iter(columns.values()))


def _row_names(parquet: pq.ParquetFile, column: _Column) -> list[str]:
    """A name for each row: of the first source that names all rows differently, or the row numbers."""
    schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
    sources = [_Column(name, None) for name in _NAMES if name in schema.names and _is_name(schema.field(name).type)]
    if column.field:
        beside = {str(one.name): one.type for one in schema.field(column.name).type}
        sources = [_Column(column.name, name) for name in _NAMES if _is_name(beside.get(name))] + sources
    for source in sources:
        values = _read(parquet.read, source).to_pylist()
        names = [str(value) for value in values if value not in (None, "")]
        if len(set(names)) == rows:
            return names
    return [str(number) for number in range(rows)]


def _is_name(kind: pa.DataType | None) -> bool:
    types = pa.types
    return kind is not None and bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_integer(kind)
    )


def _read(read: Any, column: _Column, *arguments: int) -> pa.ChunkedArray:
    values = read(*arguments, columns=[column.path], use_threads=False).column(0)
    return pc.struct_field(values, column.field) if column.field else values


def _photo_of_row(shard: str, size: int, changed: Any, wanted: str | None, number: int) -> bytes:
    rows = _rows(shard, size, changed, wanted)
    group = next(g for g, begin in enumerate(rows.begins[1:]) if number < begin)
    with _lock:
        photos = _photos_of_group(shard, size, changed, rows.column, group)
    data = photos[number - rows.begins[group]].as_py()
    return b"" if data is None else bytes(data)


@functools.lru_cache(maxsize=2)
def _photos_of_group(shard: str, size: int, changed: Any, column: _Column, group: int) -> pa.ChunkedArray:
    with fsspec.open(shard, "rb") as file:
        return _read(pq.ParquetFile(file).read_row_group, column, group)
