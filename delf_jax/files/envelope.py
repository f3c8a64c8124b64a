"""The JSON files that describe a store, an index or a predictor: a body, its format and version, and a checksum.

A file is ``{"format": ..., "version": ..., "sha256": ..., "body": {...}}``. The checksum covers the other three.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from delf_jax.files import json_files


class EnvelopeError(ValueError):
    """The file is damaged, or it is no envelope at all."""


class OtherFormatError(EnvelopeError):
    """The file is of another format."""

    def __init__(self, format: str) -> None:
        super().__init__(f"it is a {format!r:.60}")
        self.format = format


class NewerVersionError(EnvelopeError):
    """The file is whole, but a later version of delf-jax wrote it."""

    def __init__(self, version: int) -> None:
        super().__init__(f"its version {version} is newer than this delf-jax reads")
        self.version = version


class Envelope(NamedTuple):
    """What a file says.

    Attributes:
        version: of the body.
        body: JSON values by name.
    """

    version: int
    body: dict[str, Any]


def encode_envelope(format: str, version: int, body: Mapping[str, Any]) -> bytes:
    """The content of a file; ``decode_envelope`` reads it back.

    Args:
        format: what the file is, for people and programs: "delf-jax index".
        version: of the body, from 1; raise it when older programs would misread the body.
        body: JSON values by name.
    """
    sha256 = canonical_sha256({"format": format, "version": version, "body": body})
    return json.dumps({"format": format, "version": version, "sha256": sha256, "body": body}).encode()


def decode_envelope(data: bytes, *, format: str, newest: int) -> Envelope:
    """Reads a file that ``encode_envelope`` or delf-jax 0.1 wrote.

    Args:
        data: the content of the file.
        format: the format that it must have.
        newest: the newest version of the body that the caller reads.

    Raises:
        OtherFormatError: the file is of another format.
        NewerVersionError: a later version of delf-jax wrote it.
        EnvelopeError: it is damaged: not JSON, or its checksum is wrong.
    """
    try:
        file = json_files.loads_object(data)
    except ValueError as error:
        raise EnvelopeError(str(error)) from None
    stated = stated_format(file)
    if stated != format:
        raise OtherFormatError(str(stated))
    version, body = file.get("version"), file.get("body")
    if isinstance(body, dict):
        is_whole = file.get("sha256") == canonical_sha256({"format": format, "version": version, "body": body})
    else:
        body, is_whole = _decode_0_1(file)
    if not is_whole or type(version) is not int or version < 1:
        raise EnvelopeError("its checksum is wrong")
    if version > newest:
        raise NewerVersionError(version)
    return Envelope(version, body)


def stated_format(file: Mapping[str, Any]) -> Any:
    """The format that a JSON object says it is of; None if it does not say. Nothing is checked."""
    if "format" not in file and file.get("kind") == "predictor":  # as 0.1 wrote it
        return "delf-jax predictor"
    return file.get("format")


def _decode_0_1(file: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The body of a file that delf-jax 0.1 wrote, and whether its checksum is right.

    Stores and run reports had a body of their own, whose version had to agree if it gave one. The entries of an index
    lay beside the format, under one checksum. Those of a predictor had no checksum.
    """
    for name in ("store", "run"):
        nested = file.get(name)
        if isinstance(nested, dict):
            agrees = nested.get("version", file.get("version")) == file.get("version")
            return nested, agrees and file.get("sha256") == canonical_sha256(nested)
    body = {name: value for name, value in file.items() if name not in ("format", "kind", "version", "sha256")}
    if "format" not in file:
        return body, True
    covered = {name: value for name, value in file.items() if name != "sha256"}
    return body, file.get("sha256") == hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


def canonical_sha256(values: Mapping[str, Any]) -> str:
    """The checksum of a JSON object: SHA-256 of its text with sorted keys and without spaces, in hexadecimal."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
