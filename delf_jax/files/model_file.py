"""Model files: safetensors files whose metadata has a JSON description and a checksum of the tensors."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from delf_jax.errors import ModelError, one_line, reason_of
from delf_jax.files import atomic, json_files
from delf_jax.files.checksum import file_sha256

METADATA_KEY = "delf_jax"
FORMAT_VERSION = 1


def write(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> None:
    """Writes ``tensors`` and the JSON ``description`` to ``path``, whole or not at all.

    The same content always gives the same bytes. The file also has the keys ``format_version`` and ``checksum``.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in sorted(tensors.items())}
    full = dict(description) | {"format_version": FORMAT_VERSION, "checksum": _checksum(arrays)}
    metadata = {METADATA_KEY: json.dumps(full, sort_keys=True)}
    # The library's own function makes files that only their owner can read.
    atomic.write_bytes(path, save(arrays, metadata=metadata))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the tensors of a model file.

    Raises:
        ModelError: the file is missing, damaged, not a model file, or of a newer format.
    """
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if METADATA_KEY not in metadata:
                raise ModelError(f"{path}: a safetensors file, but not a delf-jax model; import it first")
            description = json_files.loads_object(metadata[METADATA_KEY])
            if description["format_version"] > FORMAT_VERSION:
                raise ModelError(
                    f"{path}: model format {description['format_version']} is newer than this delf-jax reads "
                    f"({FORMAT_VERSION}); update delf-jax"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ModelError(f"{path}: no such model file") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({reason_of(error)})") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        reason = one_line(error)
        raise ModelError(f"{path}: damaged or not a model file ({reason}); get it again") from error
    if description.get("checksum") != _checksum(tensors):
        raise ModelError(f"{path}: its tensors do not match their checksum; the file is damaged, get it again")
    return description, tensors


def fingerprint(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the file's bytes, in hex.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({reason_of(error)})") from error


def _checksum(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype.str} {list(array.shape)}\n".encode())
        digest.update(np.asarray(array, order="C").data)
    return digest.hexdigest()
