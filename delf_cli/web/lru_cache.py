"""Things kept in memory for a while: the latest few, the oldest forgotten."""

import collections
import secrets
from collections.abc import Callable
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Kept(Generic[Thing]):
    """Things under names that cannot be guessed; what was asked for least recently goes first.

    Args:
        count: things kept at most.
        total: sum of their sizes at most; a single thing may be larger.
        size: of a thing.
    """

    def __init__(self, count: int, *, total: int | None = None, size: Callable[[Thing], int] = lambda _: 0) -> None:
        self._count, self._total, self._size = count, total, size
        self._things: collections.OrderedDict[str, Thing] = collections.OrderedDict()

    def add(self, thing: Thing) -> str:
        """Keeps a thing and returns its name."""
        name = secrets.token_urlsafe(12)
        self._things[name] = thing
        while len(self._things) > 1 and self._is_full():
            self._things.popitem(last=False)
        return name

    def get(self, name: str) -> Thing | None:
        """The thing, which is now the most recent one; None where it was forgotten, or never was."""
        if name in self._things:
            self._things.move_to_end(name)
        return self._things.get(name)

    def _is_full(self) -> bool:
        too_large = self._total is not None and sum(map(self._size, self._things.values())) > self._total
        return len(self._things) > self._count or too_large
