"""Reads the tensors of a PyTorch file without PyTorch and without running what its pickle asks for."""

import functools
import io
import os
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from delf_jax.errors import ModelError, one_line, reason_of
from delf_jax.files.pickles import AllowListUnpickler, UnreadablePickle

_MOST_TENSORS, _MOST_SHARING, _DEEPEST = 100_000, 1000, 16
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Options:
    """Takes the place of a training script's options, and ignores them."""

    def __setstate__(self, state: Any) -> None:
        pass


def read_torch_file(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a ``.pth`` file (zip or legacy format), by name; nested dicts join their names with ".".

    The pickle inside may name only plain containers and tensors. Anything else is refused, never imported or called.
    Options that training scripts save beside the tensors are skipped.

    Raises:
        ModelError: the file is missing, damaged, not written by PyTorch, or holds objects other than tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _read_zip(archive, os.path.getsize(path))
        with open(path, "rb") as file:
            return _read_legacy(io.BytesIO(file.read()))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({reason_of(error)})") from error
    except UnreadablePickle as error:
        raise ModelError(f"{path}: {error}; save its state_dict alone") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except Exception as error:
        # A damaged pickle raises almost anything; all of it means the same to the user.
        reason = one_line(error)
        raise ModelError(f"{path}: damaged or not a PyTorch file ({type(error).__name__}: {reason})") from error


def _read_zip(archive: zipfile.ZipFile, size: int) -> dict[str, np.ndarray]:
    index = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
    if index is None:
        raise ModelError("a zip file, but not one that PyTorch wrote (no data.pkl)")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size for entry in archive.infolist()):
        raise ModelError("its entries are compressed, which PyTorch does not do; save the state_dict again")
    root = index.removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise ModelError("written on a big-endian machine; save it again as safetensors")
    content = _TensorUnpickler(io.BytesIO(archive.read(index))).load()
    return _materialise(content, lambda key: archive.read(f"{root}data/{key}"), size)


def _read_legacy(file: io.BytesIO) -> dict[str, np.ndarray]:
    """Pickles of magic number, version, machine, content and storage keys, then each storage with its length."""
    if _TensorUnpickler(file).load() != _LEGACY_MAGIC:
        raise ModelError("not a PyTorch file")
    _TensorUnpickler(file).load()
    if not _TensorUnpickler(file).load().get("little_endian", True):
        raise ModelError("written on a big-endian machine; save it again as safetensors")
    unpickler = _TensorUnpickler(file)
    content = unpickler.load()
    storages: dict[str, bytes] = {}
    for key in _TensorUnpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        storages[key] = file.read(count * unpickler.dtypes[key].itemsize)
    return _materialise(content, storages.__getitem__, len(file.getbuffer()))


class _TensorUnpickler(AllowListUnpickler):
    """Reads plain containers and tensors, the latter as records of where their data are."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, _ALLOWED, readable="tensors")
        self.dtypes: dict[str, np.dtype] = {}

    def persistent_load(self, identifier: Any) -> _Storage:
        kind, storage, key, *rest = identifier
        # Legacy files may end with a view (key, offset, size) of the storage, unused since PyTorch 0.4.
        if kind != "storage" or storage not in _STORAGES or (len(rest) > 2 and rest[2] is not None):
            raise ModelError("holds an unknown kind of storage; save its state_dict again")
        self.dtypes[str(key)] = _STORAGES[storage]
        return _Storage(str(key), _STORAGES[storage])


def _rebuild_tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("argparse", "Namespace"): _Options,
    **{("torch", name): name for name in _STORAGES},
}


def _materialise(content: Any, read_storage: Callable[[str], bytes], size: int) -> dict[str, np.ndarray]:
    """The arrays. They may share storages, but together they may not be far larger than the file of ``size`` bytes."""
    if not isinstance(content, Mapping):
        raise ModelError("does not hold a state_dict; save model.state_dict()")
    # Tensors that share a storage follow one another.
    read_once = functools.lru_cache(maxsize=1)(read_storage)
    arrays: dict[str, np.ndarray] = {}
    total = 0
    for number, (name, tensor) in enumerate(_flatten(content, "")):
        arrays[name] = _array(name, tensor, read_once)
        total += arrays[name].nbytes
        if total > _MOST_SHARING * size or number > _MOST_TENSORS:
            raise ModelError("its tensors are far larger than the file; save its state_dict again")
    return arrays


def _flatten(content: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, _Tensor]]:
    if prefix.count(".") > _DEEPEST:
        raise ModelError("holds dicts in dicts without end; save its state_dict again")
    for name, value in content.items():
        if isinstance(value, _Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")


def _array(name: str, tensor: _Tensor, read_storage: Callable[[str], bytes]) -> np.ndarray:
    storage = np.frombuffer(read_storage(tensor.storage.key), tensor.storage.dtype)
    if 0 in tensor.size:
        return np.zeros(tensor.size, storage.dtype)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    if min((tensor.offset, *tensor.size, *tensor.stride)) < 0 or last >= storage.size:
        raise ModelError(f"{name} reaches beyond its data; the file is damaged, get it again")
    if np.prod(tensor.size, dtype=object) > storage.size:
        raise ModelError(f"{name} claims more elements than the file holds; save its state_dict again")
    steps = [step * storage.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.size, steps, writeable=False).copy()
