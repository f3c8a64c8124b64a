"""A folder on a disk or at an fsspec address, whose files appear whole or not at all."""

import errno
import os
from pathlib import Path
from typing import Any

import fsspec

from delf_jax.errors import StoreError, reason_of
from delf_jax.files import atomic


class Folder:
    """The files of a folder. On a disk each is written aside, synced and renamed; elsewhere it is sent with one PUT.

    Attributes:
        address: the path or fsspec address, as it was given.
        path: the folder on a disk; None if it is in an object store.
        filesystem: its fsspec file system.
        root: the folder in that file system.
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        self.address = os.fspath(address)
        self.path: Path | None = None
        if "://" in self.address and not self.address.startswith("file://"):
            try:
                self.filesystem, self.root = fsspec.core.url_to_fs(self.address.rstrip("/"))
            except (ImportError, ValueError) as error:
                raise StoreError(f"{self.address}: {error}; check the address or install what it needs") from None
        else:
            self.path = Path(self.address.removeprefix("file://"))
            self.filesystem, self.root = fsspec.filesystem("file"), os.path.abspath(self.path)

    def make(self) -> None:
        """Makes the folder if it does not exist."""
        try:
            self.filesystem.makedirs(self.root, exist_ok=True)
        except OSError as error:
            raise self._explained(error) from None

    def open(self, name: str) -> Any:
        """Opens the file ``name`` for reading bytes; raises FileNotFoundError if it does not exist."""
        return self.filesystem.open(f"{self.root}/{name}", "rb")

    def read(self, name: str) -> bytes:
        """Reads the file ``name``; raises FileNotFoundError if it does not exist."""
        # Not with open(): in an object store it takes the size and version of the file from a cached listing.
        data: bytes = self.filesystem.cat_file(f"{self.root}/{name}")
        return data

    def write(self, name: str, data: bytes) -> None:
        """Makes or replaces the file ``name``; raises StoreError if that is impossible."""
        try:
            if self.path is None:
                self.filesystem.pipe_file(f"{self.root}/{name}", data)
            else:
                (self.path / name).parent.mkdir(exist_ok=True)
                atomic.write_bytes(self.path / name, data)
        except OSError as error:
            raise self._explained(error) from None

    def create(self, name: str, data: bytes) -> None:
        """Makes the file ``name``, which must not exist.

        On a disk, and in object stores with conditional writes (S3, Google Cloud Storage, Azure Blob Storage), one of
        several writers succeeds and the others fail. Elsewhere (``sftp://``, ``hdfs://``) fsspec looks for the file
        first and then writes it: of two writers at the same moment both may succeed, and the last one counts.

        Raises:
            FileExistsError: the file exists.
            StoreError: it cannot be written.
        """
        try:
            if self.path is None:
                self.filesystem.pipe_file(f"{self.root}/{name}", data, mode="create")
            else:
                (self.path / name).parent.mkdir(exist_ok=True)
                atomic.create_bytes(self.path / name, data)
        except FileExistsError:
            raise
        except OSError as error:
            raise self._explained(error) from None

    def join(self, *names: str) -> str:
        """The address of a file or folder in this folder."""
        return "/".join([self.address.rstrip("/"), *names])

    def copy_from(self, other: "Folder", name: str, target: str) -> None:
        """Makes the file ``target`` a copy of the file ``name`` of another folder on the same disk or object store.

        On a disk it is a hard link. An object store makes the copy itself.
        """
        try:
            if self.path is None or other.path is None:
                self.filesystem.cp_file(f"{other.root}/{name}", f"{self.root}/{target}")
                return
            (self.path / target).parent.mkdir(exist_ok=True)
            (self.path / target).unlink(missing_ok=True)
            os.link(other.path / name, self.path / target)
            atomic.sync((self.path / target).parent)
        except OSError:  # for example a disk without hard links
            self.write(target, other.read(name))

    def remove_all(self) -> None:
        """Removes the folder and everything in it."""
        try:
            self.filesystem.rm(self.root, recursive=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._explained(error) from None

    def remove(self, name: str) -> None:
        """Removes the file ``name`` if it exists."""
        try:
            self.filesystem.rm_file(f"{self.root}/{name}")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._explained(error) from None

    def names(self, within: str = "") -> list[str]:
        """Sorted names of the files and folders in this folder, or in its subfolder ``within``."""
        try:
            self.filesystem.invalidate_cache()
            entries = self.filesystem.ls(f"{self.root}/{within}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._explained(error) from None
        return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def _explained(self, error: OSError) -> StoreError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "the disk is full; free some space and run the same command again, what is finished is kept"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = f"cannot be written ({reason_of(error)}); change its permissions or choose another place"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            remedy = "is a file, not a folder; choose another place"
        else:
            remedy = f"cannot be read or written ({error}); check the disk or the connection and run the command again"
        return StoreError(f"{self.address}: {remedy}")


def is_inside(name: str) -> bool:
    """Whether a file name from a manifest stays inside the manifest's folder.

    >>> is_inside("parts/0.npy"), is_inside("../secret"), is_inside("/etc/passwd")
    (True, False, False)
    """
    short = len(name.encode(errors="replace")) <= 255
    return short and not os.path.isabs(name) and ".." not in Path(name).parts and "\0" not in name
