"""The commit log of a store: numbered files that are each created once. The newest one says what the store holds.

A commit, ``commits/000000000123.json``, names a snapshot, which is the whole manifest at an earlier commit, and has the
changes since. So a reader reads two files, and a writer does not write 100 000 parts again with each new one.

A writer *creates* the commit after the newest one that it knows, and never replaces a file. If another writer has taken
that number, creating fails, and the writer stops. This holds even for a writer that was suspended for an hour just
before it created its commit: it cannot overwrite what its successor has committed. The lease keeps writers apart long
before; the numbers are for the moment when it fails.

Old files are removed, but not the newest commits and the snapshot of the newest one. A reader whose files were removed
after it had listed them lists them again. A suspended writer may find its number free again, because its successor has
removed the commit of that number. Therefore a writer lists the commits once more after it has created one: a commit
counts only if it is the newest.
"""

import contextlib
import re
import uuid
from typing import Any, NamedTuple

from delf_jax.errors import StoreError
from delf_jax.files.envelope import EnvelopeError, NewerVersionError, decode_envelope, encode_envelope
from delf_jax.files.folder import Folder
from delf_jax.store import version_0_1
from delf_jax.store.manifest import FORMAT, LostManifest, Manifest, number_and_digest

COMMITS = "commits"
VERSION = 3
MOST_CHANGES = 256
"""Parts in a commit at most that its snapshot does not have. With 100 000 parts, snapshots and commits then cost alike,
0.1 MB for each new part in all."""

_KEPT = 8
_TRIES = 5
_COMMIT = re.compile(r"(\d{12})\.json")
_SNAPSHOT = re.compile(r"snapshot-(\d{12})-[0-9a-f]{32}\.json")


class _Snapshot(NamedTuple):
    name: str
    manifest: Manifest


class CommitLog:
    """Reads and writes the commits of the store in one folder."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._writer = uuid.uuid4().hex
        self._newest = -1
        self._snapshot: _Snapshot | None = None
        self._file_read = "commit log"

    def read(self) -> Manifest | None:
        """The manifest of the newest commit; None if there is no store.

        Raises:
            LostManifest: a file is missing although there are parts, or it is damaged.
            StoreError: it cannot be read, or a newer delf-jax or something else wrote it.
        """
        for _ in range(_TRIES):
            numbers = self._numbers()
            self._newest, self._snapshot = max(numbers, default=-1), None
            try:
                if not numbers:
                    manifest = version_0_1.read(self._folder)
                    if manifest is None and self._has_parts():
                        raise LostManifest.of(self._folder, self._file_read, "missing")
                    return manifest
                return self._read_commit(numbers[-1])
            except (FileNotFoundError, version_0_1.Migrated):
                continue  # a writer has made or removed files since they were listed
            except NewerVersionError as error:
                raise StoreError(
                    f"{self._folder.address}: a newer delf-jax wrote it (format {error.version}); update delf-jax"
                ) from None
            except EnvelopeError:
                raise self._lost("damaged", numbers) from None
        if not numbers and not self._has_parts():
            return None
        raise self._lost("missing", numbers)

    def commit(self, manifest: Manifest) -> int:
        """Makes ``manifest`` what the store holds. It follows the one that was read or committed last.

        Returns:
            The bytes that were written.

        Raises:
            StoreError: another writer has taken the number, or the commit cannot be written.
        """
        if self._snapshot is None or len(manifest.parts) - len(self._snapshot.manifest.parts) > MOST_CHANGES:
            return self.commit_snapshot(manifest)
        return self._create(self._snapshot, manifest)

    def commit_snapshot(self, manifest: Manifest) -> int:
        """``commit`` with a new snapshot: for the first commit of a writer, and after parts were removed."""
        # No other writer has this name. So nobody replaces a snapshot, even in a store without conditional writes.
        snapshot = _Snapshot(f"snapshot-{self._newest + 1:012d}-{self._writer}.json", manifest)
        data = encode_envelope(FORMAT, VERSION, manifest.to_json())
        self._folder.write(f"{COMMITS}/{snapshot.name}", data)
        written = self._create(snapshot, manifest)
        before, self._snapshot = self._snapshot, snapshot
        if before is not None:  # and stays, for whoever still reads the commit before
            for name in self._folder.names(COMMITS):
                if _SNAPSHOT.fullmatch(name) and name[:21] < before.name[:21]:
                    self._remove_old(name)
        version_0_1.mark_as_migrated(self._folder)
        return len(data) + written

    def withdraw(self) -> None:
        """Removes the commit that was created last. Its writer has to stop then."""
        self._folder.remove(f"{COMMITS}/{_file(self._newest)}")

    def _create(self, snapshot: _Snapshot, manifest: Manifest) -> int:
        number = self._newest + 1
        # The writer makes the content unique, so that a request which was sent twice is recognised.
        body = {"writer": self._writer, "snapshot": snapshot.name, **manifest.changes_since(snapshot.manifest)}
        data = encode_envelope(FORMAT, VERSION, body)
        try:
            self._folder.create(f"{COMMITS}/{_file(number)}", data)
        except FileExistsError:
            if self._content(_file(number)) != data:
                raise self._overtaken() from None
        numbers = self._numbers()
        if max(numbers, default=number) != number:
            self._folder.remove(f"{COMMITS}/{_file(number)}")
            raise self._overtaken()
        self._newest = number
        for old in numbers:
            if old < number - _KEPT:
                self._remove_old(_file(old))
        return len(data)

    def _remove_old(self, name: str) -> None:
        with contextlib.suppress(StoreError):  # a later commit tries again
            self._folder.remove(f"{COMMITS}/{name}")

    def _read_commit(self, number: int) -> Manifest:
        """Raises FileNotFoundError, or EnvelopeError if it is damaged or newer."""
        body = self._body(_file(number))
        try:
            name = body["snapshot"]
            if not _SNAPSHOT.fullmatch(name):
                raise ValueError("it names no snapshot")
            snapshot = _Snapshot(name, Manifest.from_json(self._body(name)))
            self._file_read = f"{COMMITS}/{_file(number)}"
            manifest = snapshot.manifest.with_changes(body)
        except EnvelopeError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EnvelopeError(str(error)) from None
        self._snapshot = snapshot
        return manifest

    def _lost(self, state: str, numbers: list[int]) -> LostManifest:
        """The error for the file that was read last, with the newest manifest that can be read."""
        name, earlier = self._file_read, None
        for number in reversed(numbers):
            with contextlib.suppress(EnvelopeError, FileNotFoundError):
                earlier = self._read_commit(number)
                break
        self._snapshot = None
        return LostManifest.of(self._folder, name, state, earlier)

    def _body(self, name: str) -> dict[str, Any]:
        return decode_envelope(self._content(name), format=FORMAT, newest=VERSION).body

    def _content(self, name: str) -> bytes:
        self._file_read = f"{COMMITS}/{name}"
        try:
            return self._folder.read(self._file_read)
        except FileNotFoundError:
            raise
        except OSError as error:
            remedy = "check its permissions or the connection"
            raise StoreError(f"{self._folder.address}: cannot be read ({error}); {remedy}") from None

    def _numbers(self) -> list[int]:
        return [int(found[1]) for name in self._folder.names(COMMITS) if (found := _COMMIT.fullmatch(name))]

    def _has_parts(self) -> bool:
        return any(map(number_and_digest, self._folder.names("parts")))

    def _overtaken(self) -> StoreError:
        return StoreError(
            f"{self._folder.address}: another writer has committed to it while this one was suspended; "
            "run the same command again when that one has ended"
        )


def _file(number: int) -> str:
    return f"{number:012d}.json"
