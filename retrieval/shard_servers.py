"""Who holds the shards of an opened index: this process here; actors on a cluster in ``ray_servers``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from delf_jax.errors import SearchIndexError
from retrieval.shard import Shard
from retrieval.shard_layout import Layout, ShardEntry, damaged_shard


class Answers(NamedTuple):
    """What shards answered, by their names, and why the others did not."""

    given: dict[str, Any]
    lost: dict[str, str]


@runtime_checkable
class Servers(Protocol):
    """Holders of shards."""

    def serve(self, layout: Layout) -> None:
        """Opens the shards that count now, where they are not open, and closes the others."""

    def ask(self, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> Answers:
        """Calls a method of ``Shard`` on every shard named, with the arguments given for it, at once."""

    def close(self) -> None:
        """Lets go of all shards."""


class LocalServers:
    """Holds shards in this process, each from the first question on.

    Attributes:
        lost: the damaged ones, and what is wrong with them.
    """

    def __init__(self, root: Path) -> None:
        self.lost: dict[str, str] = {}
        self._root = root
        self._entries: dict[str, ShardEntry] = {}
        self._open: dict[str, Shard] = {}

    def serve(self, layout: Layout) -> None:
        """Compares what has changed with its checksums; a damaged shard is lost, not an error."""
        entries = {entry.name: entry for entry in layout.shards}
        for name in self._entries.keys() | entries.keys():
            if self._entries.get(name) != entries.get(name):
                self._open.pop(name, None)
                self.lost.pop(name, None)
                if name in entries and (damaged := entries[name].damage(self._root)):
                    self.lost[name] = str(damaged_shard(self._root, name, damaged[0]))
        self._entries = entries

    def ask(self, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> Answers:
        """Calls one shard after the other."""
        given, missing = {}, {}
        for name, values in arguments.items():
            if name not in self.lost and name not in self._open:
                try:
                    self._open[name] = self._opened(name)
                except SearchIndexError as error:
                    # Perhaps only now: the next question tries again.
                    missing[name] = str(error)
            if name in self._open:
                given[name] = getattr(self._open[name], method)(*values)
        return Answers(given, missing | {name: self.lost[name] for name in arguments.keys() & self.lost.keys()})

    def _opened(self, name: str) -> Shard:
        entry = self._entries[name]
        try:
            if Layout.read(self._root).entry(name) == entry:
                return Shard(self._root, entry)
            # Somebody else has changed it since, and taken away the generation that was compared with its checksums.
            return Shard.open(self._root, name)
        except (OSError, ValueError) as error:
            raise damaged_shard(self._root, name, f"it cannot be opened: {error}") from error

    def close(self) -> None:
        """Closes the shards."""
        self._open.clear()
