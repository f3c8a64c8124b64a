"""Reads a feature store: the local features of any number of photos, in parts that are whole or missing."""

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from delf_jax.errors import StoreError
from delf_jax.files import atomic, json_files
from delf_jax.files.folder import Folder
from delf_jax.store import parts
from delf_jax.store.commit_log import CommitLog
from delf_jax.store.manifest import Manifest, Part
from delf_jax.store.parts import StoredPhoto
from delf_jax.store.run_report import RunReport, is_run_name

if TYPE_CHECKING:
    import pyarrow.dataset

HEAD = "head.safetensors"
FAILURES = "failures.jsonl"
RUNS = "runs"


class Damage(NamedTuple):
    """A file of a store that is not what was written, and why."""

    name: str
    reason: str


class DamagedPart(StoreError):
    """A part that is not what was written."""


class FeatureStore:
    """A store opened for reading. Iterating over it gives each photo once, with one part in memory at a time.

    Attributes:
        settings: the settings of the extraction.
        fingerprint: of the model that made the features.
        dimension: length of a descriptor.
    """

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self._folder = folder
        self._manifest = manifest
        self.settings = manifest.settings
        self.fingerprint = manifest.fingerprint
        self.dimension = manifest.dimension

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "FeatureStore":
        """Opens the store at a path or fsspec address; raises StoreError if there is none that can be read."""
        folder = Folder(path)
        manifest = CommitLog(folder).read()
        if manifest is None:
            raise StoreError(
                f"{folder.address}: there is no feature store; make one with `delf-jax extract PHOTOS --out ...`"
            )
        return cls(folder, manifest)

    def __len__(self) -> int:
        """Number of photos."""
        return sum(part.photos for part in self._manifest.parts)

    def __iter__(self) -> Iterator[StoredPhoto]:
        """Every photo; raises DamagedPart, which names it, at the first damaged part."""
        for photos in self.iter_parts():
            yield from photos

    def iter_parts(self) -> Iterator[list[StoredPhoto]]:
        """The photos of each part, one part after another."""
        for part in self._manifest.parts:
            data = checked(self._folder, part)
            try:
                yield list(parts.decode(data, dimension=self.dimension, skip=part.superseded))
            except parts.UNREADABLE as error:
                raise damaged(self._folder, part.name, f"it is not readable: {error}") from None

    def content_hashes(self) -> dict[str, str]:
        """The sha256 of every photo's file by its path, read without the features; raises as ``dataset``."""
        table = self.dataset().to_table(columns=["path", "content_hash"], use_threads=False)
        return dict(zip(table["path"].to_pylist(), table["content_hash"].to_pylist()))

    def dataset(self) -> "pyarrow.dataset.Dataset":
        """The rows that count, as a pyarrow dataset: for DuckDB, Polars, or whatever reads one.

        Columns are those of the parts (``parts.encode``), and ``part``, the file name. Rows that a later part has
        replaced are left out. Nothing but the paths in the parts that have such rows is read here.

        Raises:
            StoreError: a part that has such rows cannot be read.
        """
        import pyarrow.dataset as ds  # imports pandas if that is installed: a third of a second
        from pyarrow import fs

        filesystem = fs.PyFileSystem(fs.FSSpecHandler(self._folder.filesystem))
        kind = ds.ParquetFileFormat()
        fragments, replaced = [], ds.scalar(False)
        for part in self._manifest.parts:
            here = ds.field("part") == part.name
            address = f"{self._folder.root}/parts/{part.name}"
            fragments.append(kind.make_fragment(address, filesystem, partition_expression=here))
            if part.superseded:
                paths = identities(self._folder, part)["path"]
                replaced |= here & ds.field("path").isin([paths[row] for row in sorted(part.superseded)])
        schema = parts.SCHEMA.append(pa.field("part", pa.string()))
        return ds.FileSystemDataset(fragments, schema, kind, filesystem).filter(~replaced)

    @property
    def head_path(self) -> Path | None:
        """The store's own head file, or a local copy of it; None if the store uses the head of the model."""
        if self._manifest.head is None:
            return None
        if self._folder.path is not None:
            return self._folder.path / HEAD
        copy = Path(tempfile.gettempdir()) / f"delf-jax-head-{self._manifest.head}.safetensors"
        if not copy.exists():
            try:
                atomic.write_bytes(copy, read(self._folder, HEAD))
            except FileNotFoundError:
                address = self._folder.address
                raise StoreError(f"{address}: its {HEAD} is missing; put it back or extract again") from None
        return copy

    def failures(self) -> list[tuple[str, str]]:
        """(path, reason) of every photo that the last extraction could not use."""
        try:
            lines = read(self._folder, FAILURES).splitlines()
        except FileNotFoundError:
            return []
        try:
            return [(str(entry["image"]), str(entry["error"])) for entry in map(json_files.loads_object, lines)]
        except (ValueError, KeyError):
            return []  # a list for people, which every extraction makes again

    def runs(self) -> list[RunReport]:
        """Reports of the runs that wrote this store, the oldest one first. Damaged reports are left out."""
        reports = []
        for name in self._run_names():
            with contextlib.suppress(StoreError, OSError):
                reports.append(RunReport.from_bytes(self._folder.read(f"{RUNS}/{name}"), name))
        return reports

    def _run_names(self) -> list[str]:
        return [name for name in self._folder.names(RUNS) if is_run_name(name)]

    def check(self) -> list[Damage]:
        """Reads every file of the store, compares it with the manifest, and returns what is damaged.

        Raises:
            StoreError: a part or a run report cannot be read now, but may be whole.
        """
        damages = []
        for part in self._manifest.parts:
            try:
                photos = sum(1 for _ in parts.decode(checked(self._folder, part), dimension=self.dimension))
                if photos != part.rows:
                    damages.append(Damage(part.name, f"it has {photos} photos instead of {part.rows}"))
            except DamagedPart as error:
                damages.append(Damage(part.name, str(error)))
            except parts.UNREADABLE as error:
                damages.append(Damage(part.name, f"it is not readable: {error}"))
        if self._manifest.head is not None:
            try:
                if hashlib.sha256(read(self._folder, HEAD)).hexdigest() != self._manifest.head:
                    damages.append(Damage(HEAD, "its checksum is wrong; the store cannot be continued without it"))
            except FileNotFoundError:
                damages.append(Damage(HEAD, "it is missing; the store cannot be continued without it"))
            except StoreError as error:
                damages.append(Damage(HEAD, str(error)))
        for name in self._run_names():
            file = f"{RUNS}/{name}"
            try:
                RunReport.from_bytes(self._folder.read(file), name)
            except FileNotFoundError:
                pass  # a writer has just removed it, because it is old
            except StoreError as error:
                damages.append(Damage(file, str(error)))
            except OSError as error:
                if not _is_lost(self._folder, error):
                    raise unreadable(self._folder, file, error) from None
                damages.append(Damage(file, f"it cannot be read ({error})"))
        return damages


def read(folder: Folder, name: str) -> bytes:
    """The bytes of a file; raises FileNotFoundError if it does not exist, StoreError if it cannot be read."""
    try:
        return folder.read(name)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(folder, name, error) from None


def unreadable(folder: Folder, name: str, error: OSError) -> StoreError:
    """The error for a file that may be whole, but cannot be read now."""
    remedy = "check the disk or the connection and run the command again"
    return StoreError(f"{folder.join(name)}: cannot be read ({error}); {remedy}")


def checked(folder: Folder, part: Part) -> bytes:
    """The bytes of a part; raises DamagedPart if they are not what was written, StoreError if they cannot be read."""
    name = f"parts/{part.name}"
    try:
        data = folder.read(name)
    except FileNotFoundError:
        raise damaged(folder, part.name, "it is missing") from None
    except OSError as error:
        if not _is_lost(folder, error):
            raise unreadable(folder, name, error) from None
        raise damaged(folder, part.name, f"it cannot be read ({error})") from None
    if len(data) != part.size:
        raise damaged(folder, part.name, f"it has {len(data)} bytes instead of {part.size}")
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise damaged(folder, part.name, "its checksum is wrong")
    return data


def identities(folder: Folder, part: Part) -> dict[str, list[Any]]:
    """``parts.identities`` of a part of a store; raises DamagedPart or StoreError."""
    try:
        with folder.open(f"parts/{part.name}") as file:
            return parts.identities(file)
    except FileNotFoundError:
        raise damaged(folder, part.name, "it is missing") from None
    except parts.UNREADABLE as error:
        checked(folder, part)
        if isinstance(error, OSError):  # the part is whole, so the connection failed
            raise unreadable(folder, f"parts/{part.name}", error) from None
        raise damaged(folder, part.name, f"it is not readable: {error}") from None


def _is_lost(folder: Folder, error: OSError) -> bool:
    """Whether a file is lost for good: a broken sector is, but a connection or a permission may come back."""
    return folder.path is not None and error.errno == errno.EIO


def damaged(folder: Folder, name: str, reason: str) -> DamagedPart:
    """The error for a damaged part: its name, the reason and the remedy."""
    reason = " ".join(reason.split())
    return DamagedPart(
        f"{folder.address}: part {name} is damaged, {reason}; `delf-jax check {folder.address} --repair` removes it, "
        "then extract again"
    )
