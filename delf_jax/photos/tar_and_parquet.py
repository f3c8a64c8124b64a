"""Photos in shards: uncompressed tar files as WebDataset writes them, and Parquet files with a column of photos.

The name of a photo in a shard is ``SHARD::MEMBER``, for example ``/data/00007.tar::cat/12.jpg``. Shards are never
unpacked: photos are read from their place. The members of a Parquet file are its rows; their names come from a column
of names, or are row numbers if there is none.
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
_NAMES = ("path", "file_name", "key", "__key__", "name", "id")
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


def members(shard: str, *, size: int, mtime_ns: int) -> Iterator[Member | ImageError]:
    """The photos in a shard, in its order, or an ImageError; only the headers of a tar file are read.

    Args:
        shard: path or fsspec address.
        size, mtime_ns: bytes and time of last change of the shard.
    """
    try:
        if shard.lower().endswith(".tar"):
            places = _tar_places(shard, size, mtime_ns)
            for name, place in places.items():
                yield Member(f"{shard}::{name}", place.size, place.mtime_ns or mtime_ns)
        else:
            for name in _rows(shard, size, mtime_ns).numbers:
                yield Member(f"{shard}::{name}", size, mtime_ns)
    except (OSError, tarfile.TarError, pa.ArrowException, ValueError) as error:
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
        number = _rows(*identity).numbers.get(member)
        if number is None:
            raise FileNotFoundError(name)
        return _photo_of_row(*identity, number)
    except (tarfile.TarError, pa.ArrowException, ValueError) as error:
        raise OSError(f"its shard is damaged: {error}") from None


class _Place(NamedTuple):
    offset: int
    size: int
    mtime_ns: int


class _Rows(NamedTuple):
    """Row numbers of a Parquet file by name, its column of photos, and the first row of each row group."""

    numbers: dict[str, int]
    column: str
    begins: list[int]


def _locked(function: Any) -> Any:
    """Caches the last eight results; several threads that ask for the same result compute it once."""
    cached = functools.lru_cache(maxsize=8)(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        with _lock:
            return cached(*arguments)

    return call


@_locked
def _tar_places(shard: str, size: int, changed: Any) -> dict[str, _Place]:
    with fsspec.open(shard, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        return {
            entry.name: _Place(entry.offset_data, entry.size, int(entry.mtime * 1e9))
            for entry in archive
            if entry.isreg() and not entry.issparse() and is_photo_name(os.path.basename(entry.name))
        }


@_locked
def _rows(shard: str, size: int, changed: Any) -> _Rows:
    with fsspec.open(shard, "rb") as file:
        parquet = pq.ParquetFile(file)
        column = _photo_column(parquet.schema_arrow)
        named = next((name for name in _NAMES if name in parquet.schema_arrow.names), None)
        if named is None:
            names = [str(number) for number in range(parquet.metadata.num_rows)]
        else:
            names = [str(name) for name in parquet.read([named], use_threads=False).column(0).to_pylist()]
        begins = [0]
        for group in range(parquet.num_row_groups):
            begins.append(begins[-1] + parquet.metadata.row_group(group).num_rows)
        return _Rows({name: number for number, name in enumerate(names)}, column, begins)


def _photo_column(schema: pa.Schema) -> str:
    """The column of bytes, or the field of bytes inside a struct, as in data sets of Hugging Face."""
    for field in schema:
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            return str(field.name)
        if pa.types.is_struct(field.type):
            for inner in field.type:
                if pa.types.is_binary(inner.type) or pa.types.is_large_binary(inner.type):
                    return f"{field.name}.{inner.name}"
    raise ValueError("it has no column of bytes")


def _photo_of_row(shard: str, size: int, changed: Any, number: int) -> bytes:
    rows = _rows(shard, size, changed)
    group = next(g for g, begin in enumerate(rows.begins[1:]) if number < begin)
    with _lock:
        photos = _photos_of_group(shard, size, changed, rows.column, group)
    data = photos[number - rows.begins[group]].as_py()
    return b"" if data is None else bytes(data)


@functools.lru_cache(maxsize=2)
def _photos_of_group(shard: str, size: int, changed: Any, column: str, group: int) -> pa.ChunkedArray:
    with fsspec.open(shard, "rb") as file:
        photos = pq.ParquetFile(file).read_row_group(group, columns=[column], use_threads=False).column(0)
    _, _, inner = column.partition(".")
    return pc.struct_field(photos, inner) if inner else photos
