"""Writes a feature store: one writer at a time, one part after another, and after each part a commit that lists it."""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from delf_jax.errors import StoreError
from delf_jax.files import lease as leases
from delf_jax.files.folder import Folder
from delf_jax.files.lease import Lease
from delf_jax.settings import ExtractionSettings
from delf_jax.store import manifest as manifests
from delf_jax.store import parts, version_0_1
from delf_jax.store.commit_log import COMMITS, CommitLog
from delf_jax.store.manifest import Manifest, Part
from delf_jax.store.parts import StoredPhoto
from delf_jax.store.photo_table import KnownPhoto, PhotoTable
from delf_jax.store.reader import FAILURES, HEAD, RUNS, identities
from delf_jax.store.run_report import is_run_name

PROCESSES = "processes"
_MARKS = {COMMITS, version_0_1.MANIFEST}
_OWN_NAMES = {*_MARKS, version_0_1.RECENT, leases.FILE, HEAD, FAILURES, "parts", RUNS, PROCESSES}
_MOST_RUNS = 100
_log = logging.getLogger(__name__)


class StoreWriter:
    """A store opened for writing, by one writer at a time. As a context manager it lets the next writer in at its end.

    Attributes:
        bytes_written: by this writer, in all files of the store except the lease.
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
        """Opens the store at ``path``, or makes it.

        Args:
            path: a folder or fsspec address.
            settings, fingerprint, dimension: of the extractor; an existing store must have the same.
            head: a head file of which the store keeps a copy.
            lease_seconds: a writer on another computer counts as dead if it did not renew its lease for so long.

        Raises:
            StoreError: another writer holds the store, or other settings or another model made it.
        """
        self._folder = Folder(path)
        head_bytes = None if head is None else Path(head).read_bytes()
        head_hash = None if head_bytes is None else hashlib.sha256(head_bytes).hexdigest()
        self.bytes_written = 0
        self._refuse_foreign()
        self._folder.make()
        self._lease = Lease(self._folder, seconds=lease_seconds)
        try:
            self._log = CommitLog(self._folder)
            found = self._log.read()
            if found is None:
                if head_bytes is not None:
                    self._write(HEAD, head_bytes)
                self._manifest = Manifest(settings, fingerprint, dimension, head=head_hash)
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
            # This takes the next number, so that a predecessor that was suspended cannot have it.
            self._commit(self._manifest, begin=True)
            self._remove_unlisted()
            self._known = known_photos(self._folder, self._manifest)
            self.merge_processes()
        except BaseException:
            self._lease.release()
            raise

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets the next writer in."""
        self._lease.release()

    def __len__(self) -> int:
        """Number of photos."""
        return sum(part.photos for part in self._manifest.parts)

    def known(self, path: str) -> KnownPhoto | None:
        """What the store knows of the photo at ``path``; None if it does not have that photo."""
        return self._known.get(path)

    def append(self, photos: Sequence[StoredPhoto]) -> None:
        """Writes ``photos`` as one part. Older rows of the same photos no longer count.

        Raises:
            StoreError: the part cannot be written, or another writer has taken over. The part does not count then.
                Only after an error of the connection it may already count; the next job finds it.
        """
        photos = list({photo.path: photo for photo in photos}.values())
        if not photos:
            return
        before = self._manifest
        data = parts.encode(photos, dimension=before.dimension, fingerprint=before.fingerprint, origin=before.origin())
        sha256 = hashlib.sha256(data).hexdigest()
        part = Part(manifests.part_name(before.next_part, sha256), len(photos), len(data), sha256)
        after = self._with(before, part, [photo.path for photo in photos])

        self._write(f"parts/{part.name}", data)
        self._commit(after)
        _log.info("part written", extra={"part": part.name, "photos": len(photos), "bytes": len(data)})
        for row, photo in enumerate(photos):
            self._known.add(
                photo.path, KnownPhoto.of(photo.size, photo.mtime_ns, photo.content_hash, len(before.parts), row)
            )

    def merge_processes(self) -> None:
        """Merges the stores of a job's processes, which have ended, into this one, and removes them.

        Their parts become parts of this store without being read. One commit lists all parts of a process, so that no
        part is listed twice if this is interrupted.

        Raises:
            StoreError: one of the processes is still running.
        """
        for name in self._folder.names(PROCESSES):
            folder = Folder(self._folder.join(PROCESSES, name))
            lease = Lease(folder)
            try:
                # Without parts, an interrupted merge has left the store. Read under the lease: until then it may grow.
                manifest = CommitLog(folder).read() if folder.names("parts") else None
                if manifest is not None:
                    self._merge(folder, manifest)
                for run in filter(is_run_name, folder.names(RUNS)):
                    self._folder.copy_from(folder, f"{RUNS}/{run}", f"{RUNS}/{run}")
                lease.check()
                Folder(folder.join("parts")).remove_all()
            finally:
                lease.release()
            folder.remove_all()

    def _merge(self, folder: Folder, manifest: Manifest) -> None:
        merged = self._manifest
        have = {part.sha256 for part in merged.parts}
        for part in manifest.parts:
            if part.sha256 in have:
                continue
            copy = dataclasses.replace(part, name=manifests.part_name(merged.next_part, part.sha256))
            self._folder.copy_from(folder, f"parts/{part.name}", f"parts/{copy.name}")
            photos = list(_photos_of(self._folder, len(merged.parts), copy))
            merged = self._with(merged, copy, [path for path, _ in photos])
            for path, known in photos:
                self._known.add(path, known)
        if merged is not self._manifest:
            self._commit(merged)

    def _with(self, before: Manifest, part: Part, paths: Iterable[str]) -> Manifest:
        """The manifest with one more part, whose photos supersede their older rows."""
        superseded: dict[int, set[int]] = {}
        for path in paths:
            older = self._known.get(path)
            if older is not None:
                superseded.setdefault(older.part, set()).add(older.row)
        listed = list(before.parts)
        for position, rows in superseded.items():
            listed[position] = listed[position].without(rows)
        return dataclasses.replace(before, parts=(*listed, part), next_part=before.next_part + 1)

    def _commit(self, manifest: Manifest, *, begin: bool = False) -> None:
        self._lease.check()
        commit = self._log.commit_snapshot if begin else self._log.commit
        self.bytes_written += commit(manifest)
        try:
            self._lease.check()
        except StoreError:
            # Without conditional writes, this commit may have replaced the one with which the next writer began. That
            # one changed nothing, so that nothing is lost if neither of them counts.
            self._log.withdraw()
            raise
        self._manifest = manifest

    def write_failures(self, failures: Iterable[tuple[str, str]]) -> None:
        """Replaces the list of photos that could not be used, (path, reason) each."""
        lines = [json.dumps({"image": path, "error": reason}, ensure_ascii=False) + "\n" for path, reason in failures]
        self._write(FAILURES, "".join(lines).encode(errors="backslashreplace"))

    def write_run(self, name: str, data: bytes) -> None:
        """Writes or replaces the report of a run. The store keeps the last hundred reports."""
        self._write(f"{RUNS}/{name}", data)

    def _write(self, name: str, data: bytes) -> None:
        self._lease.check()
        self._folder.write(name, data)
        self.bytes_written += len(data)

    def _refuse_foreign(self) -> None:
        names = [name for name in self._folder.names() if not name.startswith(".")]
        if _MARKS.isdisjoint(names) and not _OWN_NAMES.issuperset(names):
            raise StoreError(
                f"{self._folder.address}: is neither empty nor a feature store; choose another folder for it"
            )

    def _remove_unlisted(self) -> None:
        """Removes parts that a killed writer did not list, its unfinished files, and the oldest run reports."""
        listed = {part.name for part in self._manifest.parts}
        for name in self._folder.names("parts"):
            if name not in listed and name.endswith(".parquet"):
                self._folder.remove(f"parts/{name}")
                _log.info("unlisted part removed", extra={"part": name})
        for name in list(filter(is_run_name, self._folder.names(RUNS)))[: 1 - _MOST_RUNS]:
            self._folder.remove(f"{RUNS}/{name}")
        for within in ("parts/", f"{RUNS}/", f"{COMMITS}/", ""):
            for name in self._folder.names(within):
                if name.startswith(".") and name.endswith(".tmp"):
                    self._folder.remove(within + name)


def known_photos(folder: Folder, manifest: Manifest) -> PhotoTable:
    """What a store knows of its photos; raises DamagedPart, which names it, at a damaged part."""
    table = PhotoTable()
    for position, part in enumerate(manifest.parts):
        for path, known in _photos_of(folder, position, part):
            table.add(path, known)
    return table


def _photos_of(folder: Folder, position: int, part: Part) -> Iterator[tuple[str, KnownPhoto]]:
    """(path, what is known) of the photos of the part at a position of the manifest."""
    columns = identities(folder, part)
    for row, (path, size, mtime_ns, content_hash) in enumerate(zip(*columns.values(), strict=True)):
        if row not in part.superseded:
            yield path, KnownPhoto.of(size, mtime_ns, content_hash, position, row)
