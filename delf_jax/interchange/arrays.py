"""Features as NumPy's ``.npz``, one file per photo, for any program that reads arrays."""

import lzma
import os
import zipfile
import zlib
from typing import Any

import numpy as np

from delf_jax.errors import FileFormatError, one_line
from delf_jax.features import Domain, LocalFeatures, are_domains
from delf_jax.files import atomic

_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_COLUMNS = ("keypoints", "scales", "scores", "descriptors")


def write_npz(path: str | os.PathLike[str], features: LocalFeatures) -> None:
    """Writes keypoints, scales, scores, descriptors (as in ``LocalFeatures``) and image_size (height, width).

    If the domain is known, it is written too: six numbers, the fields of ``Domain``.
    """
    columns: dict[str, Any] = {name: np.asarray(getattr(features, name), np.float32) for name in _COLUMNS}
    if features.domain is not None:
        columns["domain"] = np.array(features.domain, np.float32)
    with atomic.replacing(path) as aside, open(aside, "wb") as file:
        np.savez(file, **columns, image_size=np.array(features.image_size, np.int32))


def read_npz(path: str | os.PathLike[str]) -> LocalFeatures:
    """The features of a photo that ``write_npz`` wrote; FileFormatError if the file is missing or damaged."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            columns = [np.asarray(arrays[name], np.float32) for name in _COLUMNS]
            height, width = np.asarray(arrays["image_size"], np.int64).tolist()
            domain = Domain(*np.asarray(arrays["domain"], np.float32).tolist()) if "domain" in arrays else None
            if domain is not None and not are_domains(np.array([domain])).all():
                raise ValueError("its domain is no place of a photo")
    except FileNotFoundError:
        raise FileFormatError(f"{os.fspath(path)}: there is no such file") from None
    except (OSError, EOFError, LookupError, TypeError, ValueError, RuntimeError, MemoryError, *_BROKEN_ZIP) as error:
        reason = one_line(error)
        raise FileFormatError(f"{os.fspath(path)}: damaged or not features ({reason}); write it again") from None
    keypoints, scales, scores, descriptors = columns
    return LocalFeatures(keypoints, scales, scores, descriptors, image_size=(height, width), domain=domain)
