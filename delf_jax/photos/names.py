"""What the name of a photo alone shows: whether it is a photo that is read, and a key that stands for it."""

import functools
import hashlib
import importlib.util
import os
from collections.abc import Mapping

# What ``load_photo`` reads. Everything that looks for photos asks here.
_PHOTOS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".gif", ".bmp"}
    | {".avif", ".avifs", ".jp2", ".jpx", ".jpf", ".j2k", ".j2c", ".jpc", ".ppm", ".pgm", ".pbm", ".pnm"}
)

_HEIF = frozenset({".heic", ".heif", ".hif"})
# Photos that cameras and programs put beside those that are read.
_NEVER_READ = frozenset(
    {".jxl", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f"}
    | {".psd", ".exr", ".hdr", ".pfm", ".pam", ".jxr", ".wdp", ".tga"}
)
HEIF_EXTRA = "pip install 'delf-jax[heif]'"


@functools.cache
def reads_heif() -> bool:
    """Whether the extra that reads HEIC photos is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def is_photo_name(name: str) -> bool:
    """Whether the file name of a path has a photo's extension and is not hidden.

    >>> [is_photo_name(name) for name in ("a/b.JPG", "a/.b.jpg", "notes.txt")]
    [True, False, False]
    """
    base = os.path.basename(name)
    suffix = os.path.splitext(base)[1].lower()
    return not base.startswith(".") and (suffix in _PHOTOS or (suffix in _HEIF and reads_heif()))


def unread_suffix(name: str) -> str | None:
    """The suffix of a file that is a photo but not read, such as ``.dng``; None for all other files."""
    base = os.path.basename(name)
    suffix = os.path.splitext(base)[1].lower()
    unread = suffix in _NEVER_READ or (suffix in _HEIF and not reads_heif())
    return suffix if unread and not base.startswith(".") else None


def left_out_words(counts: Mapping[str, int]) -> str:
    """What was left out, and how to read it.

    Args:
        counts: files by their suffix.

    >>> left_out_words({".dng": 3, ".jxl": 1})
    '3 .dng and 1 .jxl files were left out; convert them to JPEG'
    """
    listed = [f"{count} {suffix}" for suffix, count in sorted(counts.items())]
    files = " and ".join(filter(None, (", ".join(listed[:-1]), listed[-1])))
    one = sum(counts.values()) == 1
    words = f"{files} file{' was' if one else 's were'} left out"
    if not _HEIF & counts.keys():
        return f"{words}; convert {'it' if one else 'them'} to JPEG"
    others = "" if counts.keys() <= _HEIF else "; convert the others to JPEG"
    return f"{words}; {HEIF_EXTRA} reads HEIC{others}"


def path_key(path: str) -> int:
    """A 64-bit digest that stands for a path; the same on every machine, so that processes agree on it.

    >>> path_key("/photos/a.jpg")
    14960990956761182213
    """
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "little")
