"""Reads TensorFlow checkpoints (``.index`` and ``.data-*`` files, also inside SavedModels) without TensorFlow.

The index is a sorted string table as LevelDB writes it: blocks of prefix-compressed keys, each followed by a byte for
its compression and a masked CRC32C. Its values are ``BundleEntryProto`` messages, which tell where in the data files a
tensor is. TensorFlow 2 numbers the tensors, and stores beside them a graph of the objects that own them.
Sources: LevelDB's table_format.md; TensorFlow's tensor_bundle.proto and trackable_object_graph.proto.
"""

import math
import os
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import google_crc32c
import ml_dtypes
import numpy as np

from delf_jax.errors import ModelError, reason_of
from delf_jax.files.protobuf import message_class, parse

# Of TensorFlow's published schemas, what leads to the numeric tensors.
_SCHEMA = """
syntax = "proto3";
message BundleHeaderProto {
  int32 num_shards = 1;
  int32 endianness = 2;
}
message Dim { int64 size = 1; }
message TensorShapeProto { repeated Dim dim = 2; }
message BundleEntryProto {
  int32 dtype = 1;
  TensorShapeProto shape = 2;
  int32 shard_id = 3;
  int64 offset = 4;
  int64 size = 5;
  fixed32 crc32c = 6;
  repeated bytes slices = 7;
}
message ObjectReference {
  int32 node_id = 1;
  string local_name = 2;
}
message SerializedTensor { string checkpoint_key = 3; }
message TrackableObject {
  repeated ObjectReference children = 1;
  repeated SerializedTensor attributes = 2;
}
message TrackableObjectGraph { repeated TrackableObject nodes = 1; }
"""
_HEADER = message_class(_SCHEMA, "BundleHeaderProto")
_ENTRY = message_class(_SCHEMA, "BundleEntryProto")
_GRAPH = message_class(_SCHEMA, "TrackableObjectGraph")
_TABLE_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES, _TRAILER_BYTES = 48, 5
_GRAPH_KEY = b"_CHECKPOINTABLE_OBJECT_GRAPH"
# Lists that Keras stores beside the attributes; in them a variable has only a number.
_LISTS = {"variables", "trainable_variables", "non_trainable_variables", "keras_api"}
# Numbers of types.proto. Strings and resources are not weights.
_TYPES = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    9: np.dtype("<i8"),
    10: np.dtype("?"),
    14: np.dtype(ml_dtypes.bfloat16),
    17: np.dtype("<u2"),
    19: np.dtype("<f2"),
    22: np.dtype("<u4"),
    23: np.dtype("<u8"),
}


class _Entry(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    is_partitioned: bool


class TensorBundle(Mapping[str, np.ndarray]):
    """The numeric tensors of a checkpoint, by name; each is read and checked against its CRC32C when asked for.

    A tensor of TensorFlow 2 is named by the attributes that lead to it
    ("model/backbone/conv1/kernel").

    Attributes:
        prefix: the files' common name.
        objects: attributes that lead to each object of TensorFlow 2, with and without tensors.
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        """Reads the index.

        Args:
            prefix: the files' common name, without ``.index``.

        Raises:
            ModelError: a file is missing, damaged, or written on a big-endian machine.
        """
        self.prefix = os.fspath(prefix)
        path = f"{self.prefix}.index"
        try:
            with open(path, "rb") as file:
                rows = dict(_table(file.read()))
            self._shards = _shards(rows.pop(b""))
            graph = rows.pop(_GRAPH_KEY, None)
            owned, self.objects = ({}, []) if graph is None else _owners(self._read_string(_entry(graph)))
            entries = {key.decode(): _entry(value) for key, value in rows.items()}
        except OSError as error:
            raise ModelError(_unreadable(path, error)) from error
        except (ValueError, IndexError, KeyError, struct.error) as error:
            message = f"{path}: damaged, or not of a TensorFlow checkpoint ({error}); get it again"
            raise ModelError(message) from error
        self._entries = {owned.get(key, key): entry for key, entry in entries.items() if entry.dtype != object}

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._entries[name]
        if entry.is_partitioned:
            raise ModelError(f"{self.prefix}: {name} is stored in slices; save the checkpoint without partitioning")
        path, data = self._read(entry)
        if len(data) != math.prod(entry.shape) * entry.dtype.itemsize:
            raise ModelError(f"{path}: ends inside {name}; get it again")
        if _masked_crc(data) != entry.checksum:
            raise ModelError(f"{path}: {name} does not match its checksum; the file is damaged, get it again")
        return np.frombuffer(data, entry.dtype).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return self._entries[name].shape

    def _read(self, entry: _Entry) -> tuple[str, bytes]:
        path = f"{self.prefix}.data-{entry.shard:05d}-of-{self._shards:05d}"
        try:
            with open(path, "rb") as file:
                if entry.offset + entry.size > os.fstat(file.fileno()).st_size:
                    return path, b""  # reading would first allocate all of that memory
                file.seek(entry.offset)
                return path, file.read(entry.size)
        except OSError as error:
            raise ModelError(_unreadable(path, error)) from error

    def _read_string(self, entry: _Entry) -> bytes:
        """A scalar string: its length, the length's CRC32C, its bytes."""
        _, data = self._read(entry)
        length, place = _varint(data, 0)
        return data[place + 4 : place + 4 + length]


def _unreadable(path: str, error: OSError) -> str:
    return f"{path}: cannot be read ({reason_of(error)}); a checkpoint is its .index and all its .data files"


def _shards(header: bytes) -> int:
    """How many data files there are."""
    message = parse(_HEADER, header)
    if message.endianness:
        raise ValueError("written on a big-endian machine")
    if message.num_shards < 1:
        raise ValueError("it names no data files")
    return int(message.num_shards)


def _owners(data: bytes) -> tuple[dict[str, str], list[str]]:
    """{key of a tensor: the attributes that lead to it by the shortest way}, and the attributes of all objects."""
    nodes = parse(_GRAPH, data).nodes
    names: dict[str, str] = {}
    seen, waiting = {0}, [(0, "")]
    for node, path in waiting:  # grows while it is walked: breadth first
        for attribute in nodes[node].attributes:
            names.setdefault(attribute.checkpoint_key, path)
        for child in nodes[node].children:
            if child.node_id not in seen and child.local_name not in _LISTS:
                seen.add(child.node_id)
                waiting.append((child.node_id, f"{path}/{child.local_name}".lstrip("/")))
    return names, [path for _, path in waiting]


def _entry(data: bytes) -> _Entry:
    """Where a tensor is; its dtype is ``object`` if it holds no numbers."""
    message = parse(_ENTRY, data)
    shape = tuple(dim.size for dim in message.shape.dim)
    if min(message.offset, message.size, message.shard_id, *shape) < 0:
        raise ValueError("a tensor has a negative size or place")
    return _Entry(
        dtype=_TYPES.get(message.dtype, np.dtype(object)),
        shape=shape,
        shard=message.shard_id,
        offset=message.offset,
        size=message.size,
        checksum=message.crc32c,
        is_partitioned=bool(message.slices),
    )


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a sorted string table."""
    if len(data) < _FOOTER_BYTES or struct.unpack("<Q", data[-8:])[0] != _TABLE_MAGIC:
        raise ValueError("its end is not that of a sorted string table")
    footer = data[-_FOOTER_BYTES:]
    _, place = _handle(footer, 0)  # of the meta index, which is not needed
    handle, _ = _handle(footer, place)
    for _, value in _block(data, *handle):
        yield from _block(data, *_handle(value, 0)[0])


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the place behind them."""
    offset, place = _varint(data, place)
    size, place = _varint(data, place)
    return (offset, size), place


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of one block; a key shares its first bytes with the key before it."""
    content = data[offset : offset + size]
    trailer = data[offset + size : offset + size + _TRAILER_BYTES]
    kind, checksum = struct.unpack("<BI", trailer)
    if _masked_crc(content + trailer[:1]) != checksum:
        raise ValueError("a block does not match its checksum")
    if kind != 0:
        raise ValueError("a block is compressed; TensorFlow does not write such blocks")
    (restarts,) = struct.unpack("<I", content[-4:])
    end = len(content) - 4 * (restarts + 1)
    key, place = b"", 0
    while place < end:
        shared, place = _varint(content, place)
        unshared, place = _varint(content, place)
        length, place = _varint(content, place)
        key = key[:shared] + content[place : place + unshared]
        place += unshared
        yield key, content[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """The variable-length integer that begins at ``place``, and the place behind it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise ValueError("an integer of more than 64 bits")


def _masked_crc(data: bytes) -> int:
    """CRC32C, rotated and shifted as LevelDB stores it."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
