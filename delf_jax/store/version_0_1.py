"""Reads the manifest of a store that delf-jax 0.1 wrote, and marks the store as newer once it has commits.

0.1 kept ``manifest.json``, the whole manifest, and ``recent.json``, the parts since. ``recent.json`` names the manifest
that it continues, by its checksum. If it names another manifest and lists no later part, it is older than
``manifest.json``, which then has its parts already.
"""

import json

from delf_jax.errors import StoreError
from delf_jax.files.envelope import (
    NewerVersionError,
    OtherFormatError,
    canonical_sha256,
    decode_envelope,
)
from delf_jax.files.folder import Folder
from delf_jax.store.manifest import FORMAT, LostManifest, Manifest

MANIFEST = "manifest.json"
RECENT = "recent.json"
_VERSION = 2
_TRIES = 3
_BODY = {"version": 3}
_MARK = json.dumps({"format": FORMAT, "version": 3, "sha256": canonical_sha256(_BODY), "store": _BODY}).encode()
"""A ``manifest.json`` in which 0.1 reads that a newer version wrote the store."""


class Migrated(Exception):
    """The store has commits."""


def read(folder: Folder) -> Manifest | None:
    """The manifest of the store in ``folder``; None if there is none.

    Raises:
        Migrated: a later version has written the store meanwhile.
        LostManifest: a file is missing or damaged.
        NewerVersionError: a later version wrote it.
        StoreError: the folder holds something else, or cannot be read.
    """
    for _ in range(_TRIES):
        data = _content(folder, MANIFEST)
        if data is None:
            return None
        if data == _MARK:
            raise Migrated
        try:
            version, body = decode_envelope(data, format=FORMAT, newest=_VERSION)
            whole = Manifest.from_json(body)
        except OtherFormatError:
            raise StoreError(
                f"{folder.address}: is not a feature store; give one that `delf-jax extract` wrote"
            ) from None
        except NewerVersionError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError):
            raise LostManifest.of(folder, MANIFEST, "damaged") from None
        if version == 1:  # there was one file only
            return whole
        data = _content(folder, RECENT)
        if data is None:
            raise LostManifest.of(folder, RECENT, "missing", whole)
        try:
            recent = decode_envelope(data, format=FORMAT, newest=_VERSION).body
            if recent["continues"] == canonical_sha256(body):
                return whole.with_changes(recent)
            if recent["next_part"] <= whole.next_part:
                return whole
        except NewerVersionError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError):
            raise LostManifest.of(folder, RECENT, "damaged", whole) from None
    raise LostManifest.of(folder, RECENT, f"of another {MANIFEST}", whole)


def mark_as_migrated(folder: Folder) -> None:
    """Makes 0.1 refuse the store, which has commits now: 0.1 would write another manifest beside them."""
    if _content(folder, MANIFEST) != _MARK:
        folder.write(MANIFEST, _MARK)
        folder.remove(RECENT)


def _content(folder: Folder, name: str) -> bytes | None:
    """The bytes of a file; None if there is none."""
    try:
        return folder.read(name)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(
            f"{folder.address}: cannot be read ({error}); check its permissions or the connection"
        ) from None
