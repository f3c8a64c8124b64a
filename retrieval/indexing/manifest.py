"""The manifest of an index: its version, its settings, and the checksums of its files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from delf_jax.errors import SearchIndexError, reason_of
from delf_jax.files import atomic
from delf_jax.files.checksum import file_sha256
from delf_jax.files.envelope import (
    EnvelopeError,
    NewerVersionError,
    OtherFormatError,
    decode_envelope,
    encode_envelope,
)
from delf_jax.files.folder import is_inside

NAME = "manifest.json"
FORMAT = "delf-jax index"
SHARDED = "delf-jax index in shards"
VERSION = 2


def write(folder: Path, description: Mapping[str, Any]) -> None:
    """Writes the manifest of a folder whose other files are complete."""
    files = {
        path.relative_to(folder).as_posix(): file_entry(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    (folder / NAME).write_bytes(encode_envelope(FORMAT, VERSION, {**description, "files": files}))


def change(folder: Path, **changed: Any) -> None:
    """Writes the manifest of an index in one piece anew, with some values changed; its other files stay."""
    atomic.write_bytes(folder / NAME, encode_envelope(FORMAT, VERSION, {**read(folder), **changed}))


def file_entry(path: Path) -> dict[str, Any]:
    """What a manifest says about a file: its size and its checksum."""
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def is_index(folder: Path) -> bool:
    """Whether the folder is an index of either kind, whole or damaged. A feature store is not, though it has a
    manifest too."""
    try:
        return FORMAT.encode() in (folder / NAME).read_bytes()
    except OSError:
        return False


def is_sharded(folder: Path) -> bool:
    """Whether the folder is an index in shards, whole or damaged."""
    try:
        return SHARDED.encode() in (folder / NAME).read_bytes()
    except OSError:
        return False


def read(folder: Path, kind: str = FORMAT) -> dict[str, Any]:
    """Reads the manifest of an index in one piece, or of another ``kind``; the other files are not read.

    Raises:
        SearchIndexError: the manifest is missing or damaged, is not of an index, or is of a newer version.
    """
    if not folder.is_dir():
        raise SearchIndexError(f"{folder}: no such index; make it with delf-jax index")
    try:
        return decode_envelope((folder / NAME).read_bytes(), format=kind, newest=VERSION).body
    except FileNotFoundError:
        raise SearchIndexError(f"{folder}: not an index, it has no {NAME}; make one with delf-jax index") from None
    except OSError as error:
        raise SearchIndexError(f"{folder}: cannot be read ({reason_of(error)}); check its permissions") from None
    except OtherFormatError as error:
        if error.format in (FORMAT, SHARDED):
            raise SearchIndexError(f"{folder}: is a {error.format}; open it with retrieval.open_index") from None
        raise SearchIndexError(f"{folder}: not an index of delf-jax; make one with delf-jax index") from None
    except NewerVersionError as error:
        raise SearchIndexError(
            f"{folder}: index version {error.version} is newer than {VERSION}, which this delf-jax reads; "
            "upgrade delf-jax"
        ) from None
    except EnvelopeError:
        raise SearchIndexError(f"{folder}: its {NAME} is damaged; build the index again") from None


def damage(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """One line for every file that is missing, changed, or not listed; empty if nothing is wrong."""
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not all(isinstance(expected, dict) for expected in listed.values()):
        return [f"{NAME} lists no files"]
    found = [reason for name, expected in listed.items() if (reason := file_damage(folder, name, expected))]
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    found.extend(f"{name} does not belong there" for name in sorted(present - set(listed) - {NAME}))
    return found


def file_damage(folder: Path, name: str, expected: Mapping[str, Any]) -> str | None:
    """What is wrong with a file, compared with its ``file_entry``; None if nothing is."""
    path = folder / name
    if not is_inside(name):
        return f"{NAME} lists {name!r}, which is outside the index"
    if not path.is_file():
        return f"{name} is missing"
    if type(expected.get("bytes")) is not int:
        return f"{NAME} does not say how long {name} is"
    if path.stat().st_size != expected["bytes"]:
        return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
    if file_sha256(path) != expected.get("sha256"):
        return f"{name} does not match its checksum"
    return None
