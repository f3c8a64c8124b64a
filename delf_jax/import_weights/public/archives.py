"""Unpacks archives of published weights, without trusting them."""

import contextlib
import errno
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from delf_jax.errors import ModelError, one_line, reason_of

# Ten times the largest release of weights.
MAX_BYTES = 8 << 30
_MAX_ENTRIES = 100_000


@contextlib.contextmanager
def unpacked(path: Path, *, max_bytes: int = MAX_BYTES) -> Iterator[Path]:
    """The content of an archive, in a folder that is removed after the block; any other path unchanged.

    Tar archives are unpacked by the standard library's ``data`` filter: nothing lands outside the folder, no devices,
    no special rights. Python wheels are zip archives. An archive of more than ``max_bytes`` is refused beforehand.

    Raises:
        ModelError: the file cannot be read; the archive is damaged, too large, or would write outside the folder.
    """
    is_wheel = path.suffix == ".whl"
    if path.is_file():
        try:
            path.open("rb").close()
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({reason_of(error)}); change its permissions") from error
    if not path.is_file() or not (is_wheel or _is_tar(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="delf-jax-") as name:
        folder = Path(name)
        try:
            if is_wheel:
                _unpack_wheel(path, folder, max_bytes)
            else:
                _unpack_tar(path, folder, max_bytes)
        except ModelError:
            raise
        except tarfile.FilterError as error:
            raise ModelError(
                f"{path}: not unpacked, because it would write outside its folder ({one_line(error)})"
            ) from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                remedy = "free some space there or set TMPDIR"
                raise ModelError(
                    f"{path}: cannot be unpacked in {folder.parent} ({reason_of(error)}); {remedy}"
                ) from error
            # A damaged archive can raise almost anything; to the user it means the same.
            raise ModelError(
                f"{path}: a damaged archive ({type(error).__name__}: {one_line(error)}); get it again"
            ) from error
        yield folder


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except Exception:  # a damaged compressed file raises an error of its compression
        return True


def _unpack_wheel(path: Path, folder: Path, max_bytes: int) -> None:
    with zipfile.ZipFile(path) as wheel:
        entries = wheel.infolist()
        _refuse_too_large(path, sum(entry.file_size for entry in entries), len(entries), max_bytes)
        wheel.extractall(folder)


def _unpack_tar(path: Path, folder: Path, max_bytes: int) -> None:
    with tarfile.open(path) as archive:
        total = 0
        for number, entry in enumerate(
            archive, start=1
        ):  # one by one: the headers of a hostile archive can fill the memory
            total += entry.size
            _refuse_too_large(path, total, number, max_bytes)
        archive.extractall(folder, filter="data")


def _refuse_too_large(path: Path, total: int, entries: int, max_bytes: int) -> None:
    if total > max_bytes or entries > _MAX_ENTRIES:
        limits = f"{max_bytes >> 20} MiB or {_MAX_ENTRIES} files"
        raise ModelError(f"{path}: needs more than {limits}; unpack it yourself and name the folder")
