"""What the name of a photo alone shows: whether it is a photo, and a key that stands for it."""

import functools
import hashlib
import importlib.util
import os

# What ``load_photo`` reads. Everything that looks for photos asks here.
_PHOTOS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".gif", ".bmp"}
    | {".avif", ".avifs", ".jp2", ".jpx", ".jpf", ".j2k", ".j2c", ".jpc", ".ppm", ".pgm", ".pbm", ".pnm"}
)

_HEIF = frozenset({".heic", ".heif", ".hif"})
HEIF_EXTRA = "pip install 'delf-jax[heif]'"


@functools.cache
def reads_heif() -> bool:
    """Whether the extra that reads HEIC photos is installed."""
    return importlib.util.find_spec("pi_heif") is not None


def is_photo_name(name: str) -> bool:
    """Whether the file name of a path has a photo's extension and is not hidden.

    >>> [is_photo_name(name) for name in ("a/b.JPG", "a/.b.jpg", "notes.txt")]
    [True, False, False]
    """
    base = os.path.basename(name)
    suffix = os.path.splitext(base)[1].lower()
    return not base.startswith(".") and (suffix in _PHOTOS or (suffix in _HEIF and reads_heif()))


def path_key(path: str) -> int:
    """A 64-bit digest that stands for a path; the same on every machine, so that processes agree on it.

    >>> path_key("/photos/a.jpg")
    14960990956761182213
    """
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "little")
