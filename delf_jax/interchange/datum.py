"""Arrays in the official DELF code's ``.datum`` files (datum.proto): PCA matrices, and global descriptors.

``.delg_global`` files hold the same message. Parsing is pure; only ``read_datum`` and ``write_datum`` touch files.
"""

import math
import os
from pathlib import Path

import numpy as np

from delf_jax.errors import FileFormatError
from delf_jax.files import atomic
from delf_jax.interchange.protobuf_wire import Field, encoded, fields, integers, packed

_SHAPE, _FLOATS, _INTEGERS = 1, 2, 3
_DIM, _VALUE = 1, 1


def decode_datum(data: bytes | memoryview, *, name: str = "a .datum") -> np.ndarray:
    """The array in the bytes of a ``.datum`` file, float32 or, where it holds integers, uint32.

    Args:
        name: what errors call the bytes.

    Raises:
        FileFormatError: the bytes are damaged or no DatumProto.
    """
    try:
        return parse_datum(data)
    except ValueError as error:
        raise FileFormatError(f"{name}: damaged or not a .datum file ({error}); get it again") from None


def parse_datum(message: bytes | memoryview) -> np.ndarray:
    """The array of a DatumProto inside of another message; ValueError where it is none."""
    shape: list[int] = []
    kind = _FLOATS
    values: list[Field] = []
    for field in fields(message):
        if field.number == _SHAPE:
            shape += [size for dim in fields(field.data) if dim.number == _DIM for size in integers(dim)]
        elif field.number in (_FLOATS, _INTEGERS):
            if field.number != kind:  # one of the two: the later one counts
                kind, values = field.number, []
            values += [value for value in fields(field.data) if value.number == _VALUE]
    if kind == _FLOATS:
        array = np.frombuffer(b"".join(value.data for value in values), "<f4").astype(np.float32)
    else:
        numbers = [number for value in values for number in integers(value)]
        if max(numbers, default=0) >= 2**32:
            raise ValueError("an integer of more than 32 bits")
        array = np.array(numbers, np.uint32)
    # Sizes are signed in the schema: negative ones arrive as numbers beyond 2^63.
    if max(shape, default=0) >= 2**31 or math.prod(shape) != len(array):
        raise ValueError(f"{len(array)} values do not have the shape {shape[:8]}")
    return array.reshape(shape)


def encode_datum(array: np.ndarray) -> bytes:
    """The bytes of a ``.datum`` file: unsigned integers as uint32, all else as float32."""
    shape = encoded(_SHAPE, encoded(_DIM, packed(array.shape)))
    if np.issubdtype(array.dtype, np.unsignedinteger):
        if array.size and array.max() >= 2**32:
            raise FileFormatError(f"a .datum holds integers below 2^32, not {array.max()}; save floats instead")
        return shape + encoded(_INTEGERS, encoded(_VALUE, packed(array.ravel().tolist())))
    return shape + encoded(_FLOATS, encoded(_VALUE, np.ascontiguousarray(array, "<f4").tobytes()))


def read_datum(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of a ``.datum`` or ``.delg_global`` file, as ``decode_datum``.

    Raises:
        FileFormatError: the file is missing, damaged or no such file.
    """
    return decode_datum(read_bytes(path), name=os.fspath(path))


def write_datum(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Writes ``encode_datum`` of an array as a file that appears whole or not at all."""
    atomic.write_bytes(path, encode_datum(array))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a file; FileFormatError where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FileFormatError(f"{os.fspath(path)}: cannot be read ({error.strerror or error})") from None
