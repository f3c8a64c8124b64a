"""What a store knows of its photos, in 54 bytes for each, so that millions fit in memory."""

from typing import NamedTuple

import numpy as np

from delf_jax.photos.key_set import WAITING_SHARE
from delf_jax.photos.names import path_key

_ROW = np.dtype([("key", "u8"), ("size", "i8"), ("mtime_ns", "i8"), ("content", "u8"), ("part", "i4"), ("row", "i4")])


class KnownPhoto(NamedTuple):
    """What shows whether a photo has changed, and the place of its row.

    Attributes:
        size: bytes of the file.
        mtime_ns: its modification time in nanoseconds since 1970.
        content: the first 64 bits of its content hash.
        part: position of its part in the manifest.
        row: its row in the part.
    """

    size: int
    mtime_ns: int
    content: int
    part: int
    row: int

    @classmethod
    def of(cls, size: int, mtime_ns: int, content_hash: str, part: int, row: int) -> "KnownPhoto":
        """Made from the whole content hash, in hexadecimal."""
        return cls(size, mtime_ns, int(content_hash[:16], 16), part, row)

    def has_content(self, content_hash: str) -> bool:
        """Whether the photo had this content (sha256, in hexadecimal) when it was stored."""
        return self.content == int(content_hash[:16], 16)


class PhotoTable:
    """Maps the path of a photo to what is known of it. The last entry for a path counts."""

    def __init__(self, *, merge_at: int = 1 << 13) -> None:
        self._rows = np.empty(0, _ROW)
        self._recent: dict[int, KnownPhoto] = {}
        self._merge_at = merge_at

    def get(self, path: str) -> KnownPhoto | None:
        """The last entry for ``path``; None if there is none."""
        key = path_key(path)
        if key in self._recent:
            return self._recent[key]
        position = int(np.searchsorted(self._rows["key"], np.uint64(key)))
        if position < len(self._rows) and int(self._rows["key"][position]) == key:
            return KnownPhoto(*(int(value) for value in self._rows[position].tolist()[1:]))
        return None

    def add(self, path: str, known: KnownPhoto) -> None:
        """Adds or replaces the entry of a photo."""
        self._recent[path_key(path)] = known
        if len(self._recent) >= max(self._merge_at, WAITING_SHARE * len(self._rows)):
            self._merge()

    def _merge(self) -> None:
        recent = np.array([(key, *known) for key, known in self._recent.items()], _ROW)
        recent = recent[np.argsort(recent["key"])]
        places = np.searchsorted(self._rows["key"], recent["key"])
        again = places < len(self._rows)
        again[again] = self._rows["key"][places[again]] == recent["key"][again]
        self._rows[places[again]] = recent[again]
        self._rows = np.insert(self._rows, places[~again], recent[~again])
        self._recent = {}
