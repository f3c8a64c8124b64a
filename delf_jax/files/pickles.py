"""Reads pickles by an allow-list: a pickle can name a few things here, and nothing else is imported or called.

``read_numpy_pickle`` reads plain containers of NumPy arrays; ``torch_file`` has an allow-list of its own.
"""

import io
import os
import pickle
import pickletools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from delf_jax.errors import one_line, reason_of

_MEMO = ("BINPUT", "LONG_BINPUT", "PUT")
# Numbers and text; arrays of objects may hold only these too.
_TYPE_CODE = re.compile(r"b1|[iu][1248]|f[248]|[SU]\d+|O8")
_IN_OBJECTS = (str, bytes, int, float)


class UnreadablePickle(Exception):
    """A pickle that is damaged, missing, or holds something else than it should; the message says which."""


class AllowListUnpickler(pickle.Unpickler):
    """Unpickles plain containers, numbers and text, and what an allow-list names.

    Args:
        file: the pickle begins at its place.
        allowed: {(module, name): stand-in}: what a pickle gets for each name that it may use. A class among them has to
            define ``__setstate__``, so that a pickle cannot change the class itself.
        readable: what errors call the allowed things.

    Raises:
        ValueError: it would take far more memory than the file has bytes, or it is not a pickle.
    """

    def __init__(self, file: io.BytesIO, allowed: Mapping[tuple[str, str], Any], *, readable: str) -> None:
        _require_small(file)
        # Python 2 wrote bytes as text.
        super().__init__(file, encoding="latin1")
        self._allowed, self._readable = allowed, readable

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise UnreadablePickle(f"holds a {module}.{name}; only {self._readable} are read")
        found = self._allowed[module, name]
        # Each mention gets a function of its own, so that a pickle that sets attributes of it changes nothing here.
        return (lambda *arguments: found(*arguments)) if callable(found) and not isinstance(found, type) else found


def read_numpy_pickle(path: str | os.PathLike[str]) -> Any:
    """Nested dicts, lists and tuples of NumPy arrays, numbers and text, as Python 2 or 3 wrote them.

    Reads protocols 0 to 5. Arrays may hold numbers or text, also as objects.

    Raises:
        UnreadablePickle: the file is missing, damaged, or holds anything else.
    """
    try:
        with open(path, "rb") as file:
            data = io.BytesIO(file.read())
        content = AllowListUnpickler(data, _NUMPY, readable="arrays").load()
        _require_finite(content, len(data.getbuffer()))
        return content
    except OSError as error:
        raise UnreadablePickle(f"cannot be read ({reason_of(error)})") from error
    except UnreadablePickle:
        raise
    except Exception as error:
        # A damaged pickle raises almost anything; all of it means the same to the user.
        reason = one_line(error)
        raise UnreadablePickle(f"damaged or not a pickle of arrays ({type(error).__name__}: {reason})") from error


class _Type:
    """Stands for ``numpy.dtype``, whose own ``__setstate__`` believes what a pickle says about memory."""

    def __init__(self, code: str, *_: Any) -> None:
        if not _TYPE_CODE.fullmatch(code):
            raise ValueError(f"an array of type {code}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(">" if state[1] == ">" else "<")


class _Array(np.ndarray):
    """An array that a pickle fills; checked by NumPy's safe functions first."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, data = state
        order = "F" if is_fortran else "C"
        if kind.dtype.hasobject:
            _require_plain(data)
            checked_objects: Any = (1, np.empty(len(data), object).reshape(shape).shape, kind.dtype, order == "F", data)
            super().__setstate__(checked_objects)
            return
        data = data.encode("latin1") if isinstance(data, str) else data
        checked = _from_buffer(data, kind, shape, order)
        filled: Any = (1, checked.shape, checked.dtype, order == "F", bytes(data))
        super().__setstate__(filled)


def _require_plain(data: Any) -> None:
    """Refuses what an array of objects must not hold: anything that could hold something itself."""
    if not isinstance(data, list) or not all(isinstance(thing, _IN_OBJECTS) for thing in data):
        raise ValueError("an array of objects that are not numbers or text")


def _from_buffer(data: Any, kind: _Type, shape: Any, order: str, axes: Any = None) -> np.ndarray:
    """How protocol 5 writes contiguous arrays; with order "K" the axes are transposed."""
    flat = np.frombuffer(data, kind.dtype) if len(data) else np.zeros(0, kind.dtype)
    array = flat.reshape(shape, order="F" if order == "F" else "C")
    return (array if axes is None else array.transpose(axes)).view(_Array)


def _reconstruct(*_: Any) -> np.ndarray:
    return np.zeros(0, np.uint8).view(_Array)


def _scalar(kind: _Type, data: Any) -> Any:
    return _from_buffer(data.encode("latin1") if isinstance(data, str) else data, kind, (1,), "C")[0].item()


def _encode(text: str, _: str = "latin1") -> bytes:
    """How Python 3 writes bytes in the protocols 0 to 2."""
    return str(text).encode("latin1")


def _no_bytes() -> bytes:
    """How Python 3 writes empty bytes in the protocols 0 to 2."""
    return b""


_NUMPY = {
    ("numpy", "ndarray"): "numpy.ndarray",
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _NUMPY |= {
        (f"{_core}.multiarray", "_reconstruct"): _reconstruct,
        (f"{_core}.multiarray", "scalar"): _scalar,
        (f"{_core}.numeric", "_frombuffer"): _from_buffer,
    }


class _AsciiLines:
    """A file for ``pickletools``, which takes Python 2's lines of text for damaged if they are not plain ASCII."""

    def __init__(self, file: io.BytesIO) -> None:
        self._file, self.read, self.tell = file, file.read, file.tell

    def readline(self) -> bytes:
        return self._file.readline().decode("ascii", "replace").replace("\ufffd", "?").replace("\\", ".").encode()


def _require_small(file: io.BytesIO) -> None:
    """Refuses a pickle of a few bytes that asks for a memo of billions of entries, or for a frame of any size.

    Raises:
        ValueError: it does, or it is not a pickle. The file's place stays.
    """
    begin, size = file.tell(), len(file.getbuffer())
    lines: Any = _AsciiLines(file)
    for number, (operation, argument, place) in enumerate(pickletools.genops(lines)):
        if operation.name in _MEMO and isinstance(argument, int) and argument > number:
            raise ValueError("it numbers what it remembers beyond what it holds")
        if operation.name == "FRAME" and isinstance(argument, int) and argument > size - (place or 0):
            raise ValueError("a frame reaches beyond its end")
    file.seek(begin)


def _require_finite(content: Any, most: int) -> None:
    """Refuses containers in which more things are found than the pickle has bytes: walking them would not end."""
    waiting = [content]
    for thing in waiting:  # grows while it is walked
        if isinstance(thing, dict):
            waiting += [*thing, *thing.values()]
        elif isinstance(thing, (list, tuple)):
            waiting += thing
        if len(waiting) > most:
            raise ValueError("it holds itself, or the same things over and over")
