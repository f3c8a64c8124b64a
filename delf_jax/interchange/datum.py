"""Arrays in the official DELF code's ``.datum`` files (datum.proto): PCA matrices, and global descriptors.

``.delg_global`` files hold the same message. Decoding is pure; only ``read_datum`` and ``write_datum`` touch files.
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from delf_jax.errors import FileFormatError, reason_of
from delf_jax.files import atomic
from delf_jax.files.protobuf import message_class, parse

DATUM_SCHEMA = """
message DatumShape { repeated int64 dim = 1 [packed = true]; }
message FloatList { repeated float value = 1 [packed = true]; }
message Uint32List { repeated uint32 value = 1 [packed = true]; }
message DatumProto {
  optional DatumShape shape = 1;
  optional FloatList float_list = 2;
  optional Uint32List uint32_list = 3;
}
"""
_DATUM = message_class(DATUM_SCHEMA, "DatumProto")


def decode_datum(data: bytes, *, name: str = "a .datum") -> np.ndarray:
    """The array in the bytes of a ``.datum`` file: uint32 if the file holds integers, otherwise float32.

    Args:
        name: what errors call the bytes.

    Raises:
        FileFormatError: the bytes are damaged or not a DatumProto.
    """
    try:
        return array_of(parse(_DATUM, data))
    except ValueError as error:
        raise FileFormatError(f"{name}: damaged or not a .datum file ({error}); get it again") from None


def array_of(datum: Any) -> np.ndarray:
    """The array of a DatumProto message; ValueError if its shape and its values do not fit."""
    if datum.HasField("uint32_list"):
        values = np.array(datum.uint32_list.value, np.uint32)
    else:
        values = np.array(datum.float_list.value, np.float32)
    shape = list(datum.shape.dim)
    if not all(0 <= size < 2**31 for size in shape) or math.prod(shape) != len(values):
        raise ValueError(f"{len(values)} values do not have the shape {shape[:8]}")
    return values.reshape(shape)


def encode_datum(array: np.ndarray) -> bytes:
    """The bytes of a ``.datum`` file: unsigned integers as uint32, everything else as float32."""
    datum = _DATUM()
    fill_datum(datum, array)
    return bytes(datum.SerializeToString())


def fill_datum(datum: Any, array: np.ndarray) -> None:
    """Puts an array into a DatumProto message.

    Raises:
        FileFormatError: it holds integers of more than 32 bits.
    """
    datum.shape.dim.extend(array.shape)
    if np.issubdtype(array.dtype, np.unsignedinteger):
        if array.size and array.max() >= 2**32:
            raise FileFormatError(f"a .datum holds integers below 2^32, not {array.max()}; save floats instead")
        values, numbers = datum.uint32_list, array
    else:
        values, numbers = datum.float_list, np.asarray(array, np.float32)
    values.SetInParent()
    values.value.extend(numbers.ravel().tolist())


def read_datum(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of a ``.datum`` or ``.delg_global`` file, as ``decode_datum``.

    Raises:
        FileFormatError: the file is missing, damaged or not a DatumProto.
    """
    return decode_datum(read_file(path), name=os.fspath(path))


def write_datum(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Writes ``encode_datum`` of an array as a file that appears whole or not at all."""
    atomic.write_bytes(path, encode_datum(array))


def read_file(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a file; FileFormatError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FileFormatError(f"{os.fspath(path)}: cannot be read ({reason_of(error)})") from None
