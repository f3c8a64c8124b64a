"""Files and folders that appear whole or not at all, even when the process is killed or the power fails."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a path beside ``path`` to write a file to; when the block ends well, that file takes the place of ``path``.

    The file and its folder are synced to disk before and after the renaming. When the block raises, nothing is left.
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
    """Writes ``data`` to the file ``path`` at once; an older file stays until the new one is complete."""
    with replacing(path) as aside:
        aside.write_bytes(data)


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a new folder beside ``path`` to fill; when the block ends well, it takes the place of ``path``.

    A folder cannot be renamed onto one that holds files: an older one is first renamed away, so for an instant
    there is none. When the block raises, the older one stays and nothing else is left.
    """
    target = Path(path)
    aside, older = _beside(target), _beside(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside.mkdir()
    try:
        yield aside
        for folder, _, files in os.walk(aside, topdown=False):
            for file in files:
                sync(os.path.join(folder, file))
            sync(folder)
        if target.exists():
            os.rename(target, older)
        try:
            os.rename(aside, target)
        except BaseException:
            if older.exists():
                os.rename(older, target)
            raise
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync(target.parent)
    shutil.rmtree(older, ignore_errors=True)


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
    return target.parent / f".{target.name[:100]}.{uuid.uuid4().hex}.tmp"
