"""Writing a feature store: one writer, one part at a time, the manifest last."""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from delf_jax.errors import StoreError
from delf_jax.files import lease as leases
from delf_jax.files.folder import Folder
from delf_jax.files.lease import Lease
from delf_jax.settings import ExtractionSettings
from delf_jax.store import manifest as manifests
from delf_jax.store import parts
from delf_jax.store.manifest import Manifest, Part
from delf_jax.store.manifest_files import RECENT, WHOLE, ManifestFiles
from delf_jax.store.parts import StoredPhoto
from delf_jax.store.photo_table import KnownPhoto, PhotoTable
from delf_jax.store.reader import FAILURES, HEAD, RUNS, checked, damaged, unreadable
from delf_jax.store.run_report import is_run_name

PROCESSES = "processes"
_OWN_NAMES = (WHOLE, RECENT, leases.FILE, HEAD, FAILURES, "parts", RUNS, PROCESSES)
_MOST_RUNS = 100
_log = logging.getLogger(__name__)


class StoreWriter:
    """A store opened for writing, by one writer at a time; a context manager that gives the store free at its end.

    Attributes:
        bytes_written: to the store by this writer, in all its files but the lease.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        settings: ExtractionSettings,
        fingerprint: str,
        dimension: int,
        head: str | os.PathLike[str] | None = None,
        lease_seconds: float = 60.0,
    ) -> None:
        """Opens the store at ``path`` or makes it.

        Args:
            path: a folder or fsspec address.
            settings, fingerprint, dimension: of the extractor; an existing store must have the same.
            head: a head file that the store shall carry with it.
            lease_seconds: a writer on another computer that was silent for longer counts as dead.

        Raises:
            StoreError: when another writer is at work, or the store is of other settings or another model.
        """
        self._folder = Folder(path)
        head_bytes = None if head is None else Path(head).read_bytes()
        head_hash = None if head_bytes is None else hashlib.sha256(head_bytes).hexdigest()
        self.bytes_written = 0
        self._refuse_foreign()
        self._folder.create()
        self._lease = Lease(self._folder, seconds=lease_seconds)
        try:
            self._files = ManifestFiles(self._folder, self._write)
            found = self._files.read()
            if found is None:
                if head_bytes is not None:
                    self._write(HEAD, head_bytes)
                self._manifest = Manifest(settings, fingerprint, dimension, head=head_hash)
                self._files.write(self._manifest)
            else:
                different = manifests.difference(
                    found, settings=settings, fingerprint=fingerprint, dimension=dimension, head=head_hash
                )
                if different:
                    raise StoreError(
                        f"{self._folder.address}: was made otherwise ({different}); "
                        "use the same settings and model, or another --out"
                    )
                self._manifest = found
            self._remove_unlisted()
            self._known = known_photos(self._folder, self._manifest)
            self.adopt_processes()
        except BaseException:
            self._lease.release()
            raise

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the store free for the next writer."""
        self._lease.release()

    def __len__(self) -> int:
        """Number of photos."""
        return sum(part.photos for part in self._manifest.parts)

    def known(self, path: str) -> KnownPhoto | None:
        """What the store knows of the photo at ``path``; None where it has no such photo."""
        return self._known.get(path)

    def append(self, photos: Sequence[StoredPhoto]) -> None:
        """Writes ``photos`` as one part; older rows of the same photos count no longer.

        Raises:
            StoreError: when the disk is full or cannot be written, or another writer took over. Nothing changed then.
        """
        photos = list({photo.path: photo for photo in photos}.values())
        if not photos:
            return
        before = self._manifest
        data = parts.encode(photos, dimension=before.dimension, fingerprint=before.fingerprint, origin=before.origin())
        sha256 = hashlib.sha256(data).hexdigest()
        part = Part(manifests.part_name(before.next_part, sha256), len(photos), len(data), sha256)
        after = self._with(part, [photo.path for photo in photos])

        self._write(f"parts/{part.name}", data)
        self._files.write(after)
        self._manifest = after
        _log.info("part written", extra={"part": part.name, "photos": len(photos), "bytes": len(data)})
        for row, photo in enumerate(photos):
            self._known.add(
                photo.path, KnownPhoto.of(photo.size, photo.mtime_ns, photo.content_hash, len(before.parts), row)
            )

    def adopt_processes(self) -> None:
        """Takes in what the processes of a job, alive no more, have written into stores of their own.

        Their parts become parts of this store without being read; each store is listed at once and then removed, so
        that a part is never listed twice, whenever this is interrupted.

        Raises:
            StoreError: one of them is still at work.
        """
        for name in self._folder.names(PROCESSES):
            folder = Folder(self._folder.join(PROCESSES, name))
            lease = Lease(folder)
            try:
                manifest = ManifestFiles(folder).read()  # under the lease: its process may have written until then
                if manifest is not None:
                    self._adopt(folder, manifest)
                lease.check()
                # In this order, so that what is left where this is interrupted reads as taken in.
                Folder(folder.join("parts")).remove_all()
                folder.remove(WHOLE)
            finally:
                lease.release()
            folder.remove_all()

    def _adopt(self, folder: Folder, manifest: Manifest) -> None:
        before = self._manifest
        have = {part.sha256 for part in before.parts}
        for part in manifest.parts:
            if part.sha256 in have:
                continue
            adopted = dataclasses.replace(part, name=manifests.part_name(self._manifest.next_part, part.sha256))
            self._folder.adopt(folder, f"parts/{part.name}", f"parts/{adopted.name}")
            position = len(self._manifest.parts)
            learnt = PhotoTable()
            paths = _learn(learnt, self._folder, position, adopted)
            self._manifest = self._with(adopted, paths)
            for path in paths:
                known = learnt.get(path)
                assert known is not None
                self._known.add(path, known)
        for name in folder.names(RUNS):
            if is_run_name(name):
                self._folder.adopt(folder, f"{RUNS}/{name}", f"{RUNS}/{name}")
        self._lease.check()
        if self._manifest is not before:
            self._files.write(self._manifest)

    def _with(self, part: Part, paths: Iterable[str]) -> Manifest:
        """The manifest with one more part, whose photos supersede their older rows."""
        before = self._manifest
        superseded: dict[int, set[int]] = {}
        for path in paths:
            older = self._known.get(path)
            if older is not None:
                superseded.setdefault(older.part, set()).add(older.row)
        listed = list(before.parts)
        for position, rows in superseded.items():
            listed[position] = listed[position].without(rows)
        return dataclasses.replace(before, parts=(*listed, part), next_part=before.next_part + 1)

    def write_failures(self, failures: Iterable[tuple[str, str]]) -> None:
        """Replaces the list of photos that could not be used, (path, reason) each."""
        lines = [json.dumps({"image": path, "error": reason}, ensure_ascii=False) + "\n" for path, reason in failures]
        self._write(FAILURES, "".join(lines).encode(errors="backslashreplace"))

    def write_run(self, name: str, data: bytes) -> None:
        """Keeps the report of a run under its name, or replaces it; of old reports the last hundred stay."""
        self._write(f"{RUNS}/{name}", data)

    def _write(self, name: str, data: bytes) -> None:
        self._lease.check()
        self._folder.write(name, data)
        self.bytes_written += len(data)

    def _refuse_foreign(self) -> None:
        names = [name for name in self._folder.names() if not name.startswith(".")]
        if WHOLE not in names and any(name not in _OWN_NAMES for name in names):
            raise StoreError(
                f"{self._folder.address}: is neither empty nor a feature store; choose another folder for it"
            )

    def _remove_unlisted(self) -> None:
        """Parts that a killed writer finished but did not list, what it was writing, and the oldest run reports."""
        listed = {part.name for part in self._manifest.parts}
        for name in self._folder.names("parts"):
            if name not in listed and (name.endswith((".parquet", ".tmp"))):
                self._folder.remove(f"parts/{name}")
                _log.info("unfinished part removed", extra={"part": name})
        runs = self._folder.names(RUNS)
        reports = [name for name in runs if is_run_name(name)]
        for name in [name for name in runs if name.endswith(".tmp")] + reports[: 1 - _MOST_RUNS]:
            self._folder.remove(f"{RUNS}/{name}")
        for name in self._folder.names():
            if name.startswith(".") and name.endswith(".tmp"):
                self._folder.remove(name)


def known_photos(folder: Folder, manifest: Manifest) -> PhotoTable:
    """What a store knows of its photos; DamagedPart, naming it, at a damaged part."""
    table = PhotoTable()
    for position, part in enumerate(manifest.parts):
        _learn(table, folder, position, part)
    return table


def _learn(table: PhotoTable, folder: Folder, position: int, part: Part) -> list[str]:
    """Adds the photos of a part to the table; their paths."""
    try:
        with folder.open(f"parts/{part.name}") as file:
            columns = parts.identities(file)
    except FileNotFoundError:
        raise damaged(folder, part.name, "it is missing") from None
    except parts.UNREADABLE as error:
        checked(folder, part)
        if isinstance(error, OSError):  # of the connection, as the part is whole
            raise unreadable(folder, f"parts/{part.name}", error) from None
        raise damaged(folder, part.name, f"it is not readable: {error}") from None
    paths = []
    for row, (path, size, mtime_ns, content_hash) in enumerate(zip(*columns.values(), strict=True)):
        if row not in part.superseded:
            table.add(path, KnownPhoto.of(size, mtime_ns, content_hash, position, row))
            paths.append(path)
    return paths
