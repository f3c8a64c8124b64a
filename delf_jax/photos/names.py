"""What the name of a photo alone shows: whether it is a photo, and a key that stands for it."""

import hashlib
import os
import re

_PHOTO_NAME = re.compile(
    r"[^.].*\.(jpe?g|jpe|jfif|png|webp|tiff?|gif|bmp|avif|jp2|j2k|p[pgn]m)", re.IGNORECASE | re.DOTALL
)


def is_photo_name(name: str) -> bool:
    """Whether the file name of a path has a photo's extension and is not hidden.

    >>> [is_photo_name(name) for name in ("a/b.JPG", "a/.b.jpg", "notes.txt")]
    [True, False, False]
    """
    return _PHOTO_NAME.fullmatch(os.path.basename(name)) is not None


def path_key(path: str) -> int:
    """A 64-bit digest that stands for a path; the same on every machine, so that processes agree on it.

    >>> path_key("/photos/a.jpg")
    14960990956761182213
    """
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "little")
