"""Who holds the shards of an opened index: this process here; actors on a cluster in ``ray_servers``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from delf_jax.errors import SearchIndexError
from retrieval.shard import Shard
from retrieval.shard_layout import Layout, ShardEntry


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
    """Holds all shards in this process."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[str, Shard | SearchIndexError] = {}
        self._entries: dict[str, ShardEntry] = {}

    def serve(self, layout: Layout) -> None:
        """Opens what has changed; a damaged shard is lost, not an error."""
        entries = {entry.name: entry for entry in layout.shards}
        for name, entry in entries.items():
            if self._entries.get(name) != entry:
                try:
                    self._open[name] = Shard(self._root, name)
                except SearchIndexError as error:
                    self._open[name] = error
        self._open = {name: self._open[name] for name in entries}
        self._entries = entries

    def ask(self, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> Answers:
        """Calls one shard after the other."""
        given, lost = {}, {}
        for name, values in arguments.items():
            shard = self._open[name]
            if isinstance(shard, Shard):
                given[name] = getattr(shard, method)(*values)
            else:
                lost[name] = str(shard)
        return Answers(given, lost)

    def close(self) -> None:
        """Closes the shards."""
        self._open.clear()
