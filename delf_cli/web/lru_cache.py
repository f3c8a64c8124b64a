"""A cache in memory that forgets the least recently used entries."""

import collections
import secrets
from collections.abc import Callable
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class LruCache(Generic[Entry]):
    """Keeps entries under random names that nobody can guess, and forgets the least recently used ones first.

    Args:
        count: most entries that are kept.
        total: largest sum of the entries' sizes. The newest entry is always kept, even if it is larger.
        size: returns the size of an entry.
    """

    def __init__(self, count: int, *, total: int | None = None, size: Callable[[Entry], int] = lambda _: 0) -> None:
        self._count, self._total, self._size = count, total, size
        self._entries: collections.OrderedDict[str, Entry] = collections.OrderedDict()

    def add(self, entry: Entry) -> str:
        """Stores an entry and returns its name."""
        name = secrets.token_urlsafe(12)
        self._entries[name] = entry
        while len(self._entries) > 1 and self._is_full():
            self._entries.popitem(last=False)
        return name

    def get(self, name: str) -> Entry | None:
        """The entry of this name, which becomes the most recent one; None if there is none any more."""
        if name in self._entries:
            self._entries.move_to_end(name)
        return self._entries.get(name)

    def _is_full(self) -> bool:
        too_large = self._total is not None and sum(map(self._size, self._entries.values())) > self._total
        return len(self._entries) > self._count or too_large
