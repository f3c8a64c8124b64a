"""One changer at a time of a file or folder that is replaced as a whole, and readers that do not notice it."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple, TypeVar

from delf_jax.errors import DelfError, StoreError
from delf_jax.files.checksum import file_sha256
from delf_jax.files.file_names import fitting

_T = TypeVar("_T")
_MOST_TRIES = 100
_HELD: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())


@contextlib.contextmanager
def only_changer(path: str | os.PathLike[str], error: type[DelfError]) -> Iterator[None]:
    """Holds the lease of what is at ``path``, or will be, during the block: others cannot change it.

    The lease lies beside ``path``, because what is there is replaced; in it where only it can be written. Within a
    block, blocks of the same path hold the lease already.

    Raises:
        DelfError: of the class ``error``, if another process or thread is changing it.
    """
    from delf_jax.files.folder import Folder  # only here: the help of the command does not wait for fsspec
    from delf_jax.files.lease import Lease

    target = Path(path).resolve()
    held = _HELD.get()
    if target in held:
        yield
        return
    is_new = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    place = target if target.is_dir() and not os.access(target.parent, os.W_OK) else target.parent
    folder = place / fitting(f".{target.name}", suffix=".lease")
    try:
        lease = Lease(Folder(folder), holds=path)
    except StoreError as refused:
        raise error(str(refused)) from refused
    entered = _HELD.set(held | {target})
    try:
        yield
    finally:
        _HELD.reset(entered)
        lease.release()
        if is_new:
            with contextlib.suppress(OSError):  # it is used
                target.parent.rmdir()


def undisturbed(mark: Path, read: Callable[[], _T]) -> _T:
    """What ``read`` makes of files that are replaced together: if they were replaced meanwhile, it is called again.

    Args:
        mark: a file that every change writes anew, such as a manifest.
        read: returns what it has read, or raises an error.
    """
    for _ in range(_MOST_TRIES):
        before = _state(mark)
        try:
            found = read()
        except Exception:
            if before is None and _state(mark) is None:
                break
            if _state(mark) == before:
                raise
        else:
            if _state(mark) == before:
                return found
    # It is missing, perhaps only for the moment of a change on a disk on which two folders cannot change places.
    time.sleep(0.05)
    return read()


def _state(mark: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(mark)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


class Version(NamedTuple):
    """A state of a folder in which something was read, or saved: a later one must not be replaced unseen.

    Attributes:
        path: of the folder.
        mark: SHA-256 of a file that every change writes anew, such as the manifest; None if there is none.
    """

    path: Path
    mark: str | None

    @classmethod
    def of(cls, path: str | os.PathLike[str], mark: str) -> "Version":
        """The state of the folder now; ``mark`` is the name of the file."""
        folder = Path(path).resolve()
        try:
            return cls(folder, file_sha256(folder / mark))
        except OSError:
            return cls(folder, None)

    def require_last(self, path: str | os.PathLike[str], mark: str, error: type[DelfError]) -> None:
        """Raises ``error`` if ``path`` is this folder, and holds a later state than this one."""
        now = Version.of(path, mark)
        if now.path == self.path and now.mark not in (self.mark, None):
            raise error(f"{path}: has been changed since it was opened; open it again and repeat the change")
