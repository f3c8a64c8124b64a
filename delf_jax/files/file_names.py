"""File names that every usual disk takes."""

import errno
import hashlib
import os

LONGEST = 255
"""Bytes of a file name."""


def fitting(name: str, *, suffix: str = "", most: int = LONGEST) -> str:
    """``name + suffix``; if it has more than ``most`` bytes, the name is cut, and ends with a digest of the whole name.

    So different names stay different.

    >>> fitting("a.png", suffix=".npz")
    'a.png.npz'
    >>> fitting("\u5c71" * 84, suffix=".npz")[-16:], len(fitting("\u5c71" * 84, suffix=".npz").encode())
    ('\u5c71\u5c71\u5c71~e7916be0.npz', 253)
    """
    data = os.fsencode(name)
    if len(data) + len(os.fsencode(suffix)) <= most:
        return name + suffix
    end = f"~{hashlib.blake2b(data, digest_size=4).hexdigest()}{suffix}"
    return data[: most - len(os.fsencode(end))].decode(errors="ignore") + end


def is_refused(error: OSError) -> bool:
    """Whether a file could not be written because of its name: this disk takes fewer bytes, or not these."""
    return error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
