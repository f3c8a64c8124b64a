"""What an index folder says about itself: version, checksums, and everything needed to check a query against it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from delf_jax.errors import SearchIndexError

NAME = "manifest.json"
FORMAT = "delf-jax index"
VERSION = 1


def write(folder: Path, description: dict[str, Any]) -> None:
    """Writes the manifest of a folder whose other files are complete."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {"format": FORMAT, "version": VERSION, **description, "files": files}
    manifest["sha256"] = _digest(manifest)
    (folder / NAME).write_text(json.dumps(manifest, indent=1))


def is_index(folder: Path) -> bool:
    """Whether the folder is an index, whole or damaged; a feature store, which has a manifest too, is not."""
    try:
        return FORMAT.encode() in (folder / NAME).read_bytes()
    except OSError:
        return False


def read(folder: Path) -> dict[str, Any]:
    """The manifest, without looking at the other files.

    Raises:
        SearchIndexError: missing, not an index, damaged, or of a newer version.
    """
    if not folder.is_dir():
        raise SearchIndexError(f"{folder}: no such index; make it with delf-jax index")
    try:
        manifest = json.loads((folder / NAME).read_text())
    except FileNotFoundError:
        raise SearchIndexError(f"{folder}: not an index, it has no {NAME}; make one with delf-jax index") from None
    except ValueError:
        raise SearchIndexError(f"{folder}: its {NAME} is damaged; build the index again") from None
    except OSError as error:
        raise SearchIndexError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
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
    found = []
    listed = manifest.get("files")
    if not isinstance(listed, dict):
        return [f"{NAME} lists no files"]
    for name, expected in listed.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.stat().st_size != expected["bytes"]:
            found.append(f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}")
        elif _sha256(path) != expected["sha256"]:
            found.append(f"{name} does not match its checksum")
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    found.extend(f"{name} does not belong there" for name in sorted(present - set(listed) - {NAME}))
    return found


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
