"""Writes PyTorch files (zip format) without PyTorch: many tensors as views of a few storages, so they stay small."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class View(NamedTuple):
    """A contiguous float32 tensor of this shape that begins where its storage begins."""

    shape: tuple[int, ...]
    storage: str = "0"


class Namespace(NamedTuple):
    """What training scripts keep of their options: an ``argparse.Namespace``."""

    options: Mapping[str, Any]


def write_torch_file(path: Path, content: Mapping[str, Any], storages: Mapping[str, np.ndarray]) -> Path:
    """Writes what ``torch.save(content)`` would, in nested dicts of views, namespaces, strings and integers."""
    lengths = {key: array.size for key, array in storages.items()}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + _pickled(content, lengths) + b".")
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.astype("<f4").tobytes())
    return path


def _pickled(value: Any, lengths: Mapping[str, int]) -> bytes:
    """The opcodes of pickle protocol 2."""

    def joined(*values: Any) -> bytes:
        return b"(" + b"".join(_pickled(entry, lengths) for entry in values) + b"t"

    match value:
        case View(shape, key):
            strides = [int(np.prod(shape[axis + 1 :], dtype=int)) for axis in range(len(shape))]
            text, size = _pickled("storage", lengths), lengths[key]
            storage = b"(" + text + b"ctorch\nFloatStorage\n" + _pickled(key, lengths)
            storage += _pickled("cpu", lengths) + _pickled(size, lengths) + b"tQ"
            arguments = b"(" + storage + _pickled(0, lengths) + joined(*shape) + joined(*strides)
            return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"\x89ccollections\nOrderedDict\n)RtR"
        case Namespace(options):
            return b"cargparse\nNamespace\n)\x81" + _pickled(dict(options), lengths) + b"b"
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case int():
            return b"J" + struct.pack("<i", value)
        case Mapping():
            rows = (_pickled(key, lengths) + _pickled(entry, lengths) for key, entry in value.items())
            return b"}(" + b"".join(rows) + b"u"
    raise TypeError(type(value))
