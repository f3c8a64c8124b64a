"""Arrays in the official DELF code's ``.datum`` files (datum.proto)."""

import os
from pathlib import Path

import numpy as np

from delf_jax.errors import ModelError
from delf_jax.protobuf_wire import Field, fields, integers

_SHAPE, _FLOATS = 1, 2
_DIM, _VALUE = 1, 1


def read_datum(path: str | os.PathLike[str]) -> np.ndarray:
    """The float32 array of a ``.datum`` file.

    Raises:
        ModelError: the file is missing, damaged, or holds no floats.
    """
    try:
        parts = list(fields(Path(path).read_bytes()))
        shape = [size for part in parts if part.number == _SHAPE for dim in fields(part.data) for size in _dims(dim)]
        values = [value.data for part in parts if part.number == _FLOATS for value in fields(part.data)]
        array = np.frombuffer(b"".join(values), "<f4")
        return array.reshape(shape) if shape else array
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, IndexError, KeyError) as error:
        raise ModelError(f"{path}: damaged or not a .datum file ({error}); get it again") from error


def _dims(field: Field) -> list[int]:
    return integers(field) if field.number == _DIM else []
