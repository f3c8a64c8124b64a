"""Reads pickles of plain containers, numbers, text and NumPy arrays without running what they ask for."""

import io
import os
import pickle
from typing import Any

import numpy as np

from delf_jax.import_weights.safe_pickle import require_modest

# Numbers alone: an array of objects would hold whatever the pickle makes.
_CODES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})


class UnreadablePickle(Exception):
    """A pickle that is damaged, missing, or holds more than numbers, text, containers and arrays; says which."""


def read_numpy_pickle(path: str | os.PathLike[str]) -> Any:
    """Nested dicts, lists and tuples of arrays, numbers and text, as Python 2 or 3 wrote them.

    The pickle may only name NumPy's arrays and numbers, which become records and are turned into arrays here: not even
    NumPy's own functions are called.

    Raises:
        UnreadablePickle: the file is missing, damaged, or holds anything else.
    """
    try:
        with open(path, "rb") as file:
            data = io.BytesIO(file.read())
        require_modest(data)
        return _Copier(len(data.getbuffer())).copy(_NumpyUnpickler(data).load())
    except OSError as error:
        raise UnreadablePickle(f"cannot be read ({error.strerror or error})") from error
    except UnreadablePickle:
        raise
    except Exception as error:
        # A damaged pickle raises almost anything; all of it means the same to the user.
        reason = " ".join(str(error).split())[:200]
        raise UnreadablePickle(f"damaged or not a pickle of arrays ({type(error).__name__}: {reason})") from error


class _Dtype:
    """What a pickle says about an array's type."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype:
        if self.code not in _CODES:
            raise ValueError(f"an array of type {self.code}")
        return np.dtype(self.code).newbyteorder(">" if self.order == ">" else "<")


class _Array:
    """What a pickle says about an array; ``array`` makes it one."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.type, self.is_fortran, self.data = state

    def array(self) -> np.ndarray:
        flat = np.frombuffer(_bytes(self.data), self.type.dtype())
        return flat.reshape(self.shape, order="F" if self.is_fortran else "C")


class _Scalar:
    """What a pickle says about one of NumPy's numbers."""

    def __init__(self, kind: _Dtype, data: Any) -> None:
        self.kind, self.data = kind, data

    def number(self) -> Any:
        return np.frombuffer(_bytes(self.data), self.kind.dtype())[0].item()


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes in the old protocols."""
    return str(text).encode("latin1")


def _bytes(data: Any) -> bytes:
    # Python 2's strings of bytes come as text.
    return data.encode("latin1") if isinstance(data, str) else bytes(memoryview(data))


_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy._core.multiarray", "scalar"): _Scalar,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _NumpyUnpickler(pickle.Unpickler):
    """An unpickler for which only plain containers and records of arrays exist."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise UnreadablePickle(f"holds a {module}.{name}; only arrays are read")
        return _KNOWN[module, name]


class _Copier:
    """Turns the records in nested containers into arrays, of which there cannot be more than the pickle has bytes.

    A few bytes may hold a container in itself, or one in another twice and so on: copied, they would have no end.
    """

    def __init__(self, most: int) -> None:
        self._left = most

    def copy(self, content: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("it holds itself, or the same things over and over")
        if isinstance(content, dict):
            return {self.copy(name): self.copy(child) for name, child in content.items()}
        if isinstance(content, (list, tuple)):
            return type(content)(map(self.copy, content))
        if isinstance(content, _Array):
            return content.array()
        return content.number() if isinstance(content, _Scalar) else content
