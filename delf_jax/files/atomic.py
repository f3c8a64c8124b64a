"""Files and folders that appear whole or not at all, even when the process is killed or the power fails."""

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from delf_jax.files.file_names import fitting

_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EMLINK}
"""How a disk says that it has no hard links."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a path beside ``path`` to write a file to; when the block ends without an error, it replaces ``path``.

    The file is synced to the disk before it is renamed, and its folder afterwards. When the block raises, nothing is
    left.
    """
    target = Path(path)
    aside = _beside(target)
    try:
        yield aside
        sync(aside)
        os.replace(aside, target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(target.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Writes ``data`` to the file ``path``; an older file stays until the new one is complete."""
    with replacing(path) as aside:
        aside.write_bytes(data)


def create_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes ``data`` to the file ``path``, which must not exist: of several processes, only one succeeds.

    On a disk without hard links the file is written in its place. It is then still made by one process only, but one
    that is killed while it writes leaves a part of it.

    Raises:
        FileExistsError: the file exists; it stays as it is.
    """
    target = Path(path)
    aside = _beside(target)
    try:
        aside.write_bytes(data)
        sync(aside)
        try:
            os.link(aside, target)  # unlike a renaming, this fails if the target exists
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _create_in_place(target, data)
    finally:
        aside.unlink(missing_ok=True)
    sync(target.parent)


def _create_in_place(target: Path, data: bytes) -> None:
    with open(target, "xb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            target.unlink()
            raise


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a new folder beside ``path`` to fill; when the block ends without an error, it replaces ``path``.

    An older folder changes places with the new one in one step. Only where the system cannot do that, for a moment
    there is none at ``path``. A link stays; the folder that it leads to is replaced. When the block raises, the older
    folder stays and nothing else is left.
    """
    target = Path(path).resolve()
    aside, older = _beside(target), _beside(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside.mkdir()
    try:
        yield aside
        for folder, _, files in os.walk(aside, topdown=False):
            for file in files:
                sync(os.path.join(folder, file))
            sync(folder)
        if target.exists() and _exchange(aside, target):
            older = aside
        else:
            _rename_both(aside, target, older)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync(target.parent)
    shutil.rmtree(older, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Two folders change places in one step; False if this system or this disk cannot do that."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)
    return renameat2 is not None and not renameat2(here, os.fsencode(first), here, os.fsencode(second), exchange)


def _rename_both(aside: Path, target: Path, older: Path) -> None:
    # A folder cannot be renamed onto one that holds files.
    if target.exists():
        os.rename(target, older)
    try:
        os.rename(aside, target)
    except BaseException:
        if older.exists():
            os.rename(older, target)
        raise


def sync(path: str | os.PathLike[str]) -> None:
    """Waits until the file or folder ``path`` is on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        if os.path.isdir(path):  # Windows does not open folders
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(target: Path) -> Path:
    # The leading dot hides it from Arrow readers and from the listing of photos.
    return target.parent / fitting(f".{target.name}", suffix=f".{uuid.uuid4().hex}.tmp")
