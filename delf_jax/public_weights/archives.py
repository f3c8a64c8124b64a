"""Unpacks the archives that weights are published in, trusting nothing in them."""

import contextlib
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from delf_jax.errors import ModelError


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """What an archive holds, in a folder that goes away with the block; any other path as it is.

    Tar archives are unpacked by the standard library's ``data`` filter: nothing lands outside the folder, no devices,
    no special rights. Python wheels are zip archives.

    Raises:
        ModelError: the archive is damaged, or wants to write elsewhere.
    """
    is_wheel = path.suffix == ".whl"
    if not path.is_file() or not (is_wheel or tarfile.is_tarfile(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="delf-jax-") as name:
        folder = Path(name)
        try:
            if is_wheel:
                with zipfile.ZipFile(path) as wheel:
                    wheel.extractall(folder)
            else:
                with tarfile.open(path) as archive:
                    archive.extractall(folder, filter="data")
        except tarfile.FilterError as error:
            raise ModelError(f"{path}: not unpacked, because it wants to write elsewhere ({error})") from error
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError) as error:
            raise ModelError(f"{path}: a damaged archive ({error}); get it again") from error
        yield folder
