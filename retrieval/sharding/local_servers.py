"""Holds the shards of an opened index in this process; ``ray_servers`` holds them on a cluster."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from delf_jax.errors import SearchIndexError
from retrieval.sharding.layout import Layout, ShardChanged, ShardEntry, damaged_shard
from retrieval.sharding.shard import Shard


class Answers(NamedTuple):
    """The answers of shards by their names, and the reasons of those that did not answer."""

    given: dict[str, Any]
    lost: dict[str, str]


@runtime_checkable
class Servers(Protocol):
    """What holds the shards of an index and asks them."""

    def serve(self, layout: Layout) -> None:
        """Makes the shards of a layout ready to answer, and closes the others."""

    def ask(self, layout: Layout, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> Answers:
        """Calls a method of ``Shard`` on every shard in ``arguments``, with its arguments, in parallel if possible.

        Args:
            layout: the generations to ask.
            method: name of the method.
            arguments: of each shard, by its name.

        Raises:
            ShardChanged: a shard is not served in that generation, or that generation is deleted.
        """

    def close(self) -> None:
        """Releases all shards."""


class LocalServers:
    """Holds shards in this process; each is opened by the first question to it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._served = _Served({}, {}, {})

    @property
    def lost(self) -> dict[str, str]:
        """The damaged shards, and what is wrong with them."""
        return self._served.lost

    def serve(self, layout: Layout) -> None:
        """Compares new generations with their checksums; a damaged shard is lost, and raises no error."""
        before, now = self._served, _Served(layout.entries, {}, {})
        for name, entry in now.entries.items():
            if before.entries.get(name) == entry:
                if name in before.open:
                    now.open[name] = before.open[name]
                if name in before.lost:
                    now.lost[name] = before.lost[name]
            elif (damaged := entry.damage(self._root)) and entry in Layout.read(self._root).shards:
                now.lost[name] = str(damaged_shard(self._root, name, damaged[0]))
        self._served = now

    def ask(self, layout: Layout, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> Answers:
        """Calls one shard after the other."""
        served, entries = self._served, layout.entries
        for name in arguments:
            if served.entries.get(name) != entries[name]:
                raise ShardChanged(f"{self._root}: shard {name} has been changed; open the index again")
        missing = {}
        for name in arguments.keys() - served.open.keys() - served.lost.keys():
            try:
                served.open[name] = self._opened(entries[name])
            except ShardChanged:
                raise
            except SearchIndexError as error:
                # The reason may pass: the next question tries again.
                missing[name] = str(error)
        given = {
            name: getattr(served.open[name], method)(*values)
            for name, values in arguments.items()
            if name in served.open
        }
        return Answers(given, missing | {name: served.lost[name] for name in arguments.keys() & served.lost.keys()})

    def _opened(self, entry: ShardEntry) -> Shard:
        try:
            return Shard(self._root, entry)
        except (OSError, ValueError, SearchIndexError) as error:
            # Another writer may have deleted the generation since its checksums were compared.
            if entry not in Layout.read(self._root).shards:
                raise ShardChanged(f"{self._root}: shard {entry.name} has been changed; open the index again") from None
            raise damaged_shard(self._root, entry.name, f"it cannot be opened: {error}") from error

    def close(self) -> None:
        """Closes the shards."""
        self._served.open.clear()


class _Served(NamedTuple):
    """The generations to serve by their names, those that are open, and the reasons of those that are lost."""

    entries: dict[str, ShardEntry]
    open: dict[str, Shard]
    lost: dict[str, str]
