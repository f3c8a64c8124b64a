"""What an index folder says about itself: version, checksums, and everything needed to check a query against it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from delf_jax.errors import SearchIndexError
from delf_jax.files import json_files
from delf_jax.files.folder import is_inside

NAME = "manifest.json"
FORMAT = "delf-jax index"
SHARDED = "delf-jax index in shards"
VERSION = 1


def write(folder: Path, description: dict[str, Any]) -> None:
    """Writes the manifest of a folder whose other files are complete."""
    files = {
        path.relative_to(folder).as_posix(): file_entry(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    (folder / NAME).write_bytes(encoded(FORMAT, {**description, "files": files}))


def encoded(kind: str, description: dict[str, Any]) -> bytes:
    """The contents of a manifest of one of the two formats."""
    manifest = {"format": kind, "version": VERSION, **description}
    manifest["sha256"] = _digest(manifest)
    return json.dumps(manifest, indent=1).encode()


def file_entry(path: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def is_index(folder: Path) -> bool:
    """Whether the folder is an index, whole or damaged; a feature store, which has a manifest too, is not."""
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
    """The manifest, without looking at the other files.

    Raises:
        SearchIndexError: missing, not an index, damaged, or of a newer version.
    """
    if not folder.is_dir():
        raise SearchIndexError(f"{folder}: no such index; make it with delf-jax index")
    try:
        manifest = json_files.loads((folder / NAME).read_bytes())
    except FileNotFoundError:
        raise SearchIndexError(f"{folder}: not an index, it has no {NAME}; make one with delf-jax index") from None
    except ValueError:
        raise SearchIndexError(f"{folder}: its {NAME} is damaged; build the index again") from None
    except OSError as error:
        raise SearchIndexError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from None
    if not isinstance(manifest, dict) or manifest.get("format") != kind:
        if isinstance(manifest, dict) and manifest.get("format") in (FORMAT, SHARDED):
            raise SearchIndexError(f"{folder}: is a {manifest['format']}; open it with retrieval.open_index")
        raise SearchIndexError(f"{folder}: not an index of delf-jax; make one with delf-jax index")
    version = manifest.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise SearchIndexError(
            f"{folder}: index version {version} is newer than {VERSION}, which this delf-jax reads; upgrade delf-jax"
        )
    if manifest.pop("sha256", None) != _digest(manifest):
        raise SearchIndexError(f"{folder}: its {NAME} is damaged; build the index again")
    return manifest


def damage(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """One line for every file that is missing, changed, or not listed; empty when all is well."""
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not all(isinstance(expected, dict) for expected in listed.values()):
        return [f"{NAME} lists no files"]
    found = [reason for name, expected in listed.items() if (reason := file_damage(folder, name, expected))]
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    found.extend(f"{name} does not belong there" for name in sorted(present - set(listed) - {NAME}))
    return found


def file_damage(folder: Path, name: str, expected: dict[str, Any]) -> str | None:
    """What is wrong with a file, going by its ``file_entry``; None when nothing is."""
    path = folder / name
    if not is_inside(name):
        return f"{NAME} lists {name!r}, which lies elsewhere"
    if not path.is_file():
        return f"{name} is missing"
    if path.stat().st_size != expected.get("bytes"):
        return f"{name} has {path.stat().st_size} bytes instead of {expected.get('bytes')}"
    if _sha256(path) != expected.get("sha256"):
        return f"{name} does not match its checksum"
    return None


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
