"""Holds the shards of an index in actors on a Ray cluster."""

import itertools
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from delf_jax.errors import SearchIndexError
from retrieval.sharding.layout import Layout, ShardChanged, ShardEntry
from retrieval.sharding.local_servers import Answers
from retrieval.sharding.shard import Shard

_CACHE_OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)
_BYTES_A_DIMENSION = {"exact": 4.0, "scann": 2.5}


class RayServers:
    """Every shard is in one or more actors (replicas) on the Ray cluster that this process is connected to.

    Replicas take turns. Ray starts one that died again, on another node if its own is gone, and it opens its shard
    again; meanwhile the next replica gets its questions. A shard is lost only for the questions that none of its
    replicas answers.
    """

    def __init__(self, root: Path, *, replicas: int, seconds: float) -> None:
        """Starts nothing yet.

        Args:
            root: folder of the index, the same on all nodes.
            replicas: actors of each shard.
            seconds: a replica that does not answer within this time does not count.

        Raises:
            SearchIndexError: Ray is not installed, or this process is not connected to a cluster.
        """
        try:
            import ray
        except ImportError as error:
            raise SearchIndexError(f"Ray is not installed ({error}); pip install 'delf-jax[ray]'") from None
        if not ray.is_initialized():
            raise SearchIndexError(
                f"{root}: this process is not connected to a Ray cluster; "
                "open the index within delf_jax.job.ray_session.connected"
            )
        if replicas < 1:
            raise SearchIndexError(f"{root}: {replicas} replicas hold no shard; take at least 1")
        self._root = root.resolve()
        self._replicas = replicas
        self._seconds = seconds
        self._actors: dict[str, list[Any]] = {}
        self._entries: dict[str, ShardEntry] = {}
        self._turn = itertools.count()

    def serve(self, layout: Layout) -> None:
        """Starts actors for new shards, lets those of changed shards open them, and stops those of removed shards."""
        import ray

        entries = layout.entries
        for name in self._actors.keys() - entries.keys():
            self._stop([name])
        waiting = []
        for name, entry in entries.items():
            if name not in self._actors:
                self._actors[name] = [self._start(entry, layout) for _ in range(self._replicas)]
            elif self._entries[name] != entry:
                waiting += [actor.open.remote() for actor in self._actors[name]]
        self._entries = entries
        if waiting:
            # An actor that does not answer opens the new generation when it starts again.
            ray.wait(waiting, num_returns=len(waiting), timeout=self._seconds)

    def ask(self, layout: Layout, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> Answers:
        """Asks one replica of each shard, and the next one if that fails."""
        import ray

        entries = layout.entries
        given: dict[str, Any] = {}
        lost: dict[str, str] = {}
        first = next(self._turn)
        shared = {id(value): ray.put(value) for values in arguments.values() for value in values}
        for attempt in range(self._replicas):
            missing = arguments.keys() - given.keys()
            asked = {}
            for name in missing:
                actors = self._actors.get(name)
                if actors is None or self._entries.get(name) != entries[name]:
                    raise ShardChanged(f"{self._root}: shard {name} has been changed; open the index again")
                actor = actors[(first + attempt) % self._replicas]
                values = (shared[id(value)] for value in arguments[name])
                asked[actor.call.remote(entries[name], method, *values)] = name
            end = time.monotonic() + self._seconds
            while asked:
                done, _ = ray.wait(list(asked), num_returns=1, timeout=max(0.0, end - time.monotonic()))
                for reference in done:
                    name = asked.pop(reference)
                    try:
                        given[name] = ray.get(reference)
                        lost.pop(name, None)
                    except ray.exceptions.RayTaskError as error:
                        cause = error.as_instanceof_cause()
                        if not isinstance(cause, SearchIndexError):
                            raise
                        if isinstance(cause, ShardChanged):
                            raise ShardChanged(str(error.cause)) from None
                        lost[name] = " ".join(str(error.cause).split())
                    except ray.exceptions.RayError as error:
                        lost[name] = f"its process is gone ({type(error).__name__}) and is being started again"
                if not done:
                    lost |= dict.fromkeys(asked.values(), f"it does not answer within {self._seconds:g} s")
                    break
        return Answers(given, lost)

    def close(self) -> None:
        """Stops all actors."""
        self._stop(list(self._actors))

    def _stop(self, names: Collection[str]) -> None:
        import ray

        for actor in itertools.chain(*(self._actors.pop(name) for name in names)):
            ray.kill(actor)

    def _start(self, entry: ShardEntry, layout: Layout) -> Any:
        import jax
        import ray

        kept = {name: getattr(jax.config, name) for name in _CACHE_OPTIONS}
        actor = ray.remote(_Server).options(
            max_restarts=-1,
            scheduling_strategy="SPREAD",
            memory=int(entry.features * layout.dimension * _BYTES_A_DIMENSION[layout.backend]),
        )
        return actor.remote(str(self._root), entry.name, kept)


class _Server:
    """The actor of one replica; it computes on the CPU of its node."""

    def __init__(self, root: str, name: str, cache: dict[str, Any]) -> None:
        import jax

        # Other processes of the node use its accelerators.
        jax.config.update("jax_platforms", "cpu")
        for option, value in cache.items():
            jax.config.update(option, value)
        self._root = Path(root)
        self._name = name
        self.open()

    def open(self) -> None:
        """Opens the generation that the manifest lists; an error is raised when the shard is asked."""
        self._refused: ShardEntry | None = None
        try:
            self._shard: Shard | Exception = Shard.open(self._root, self._name)
        except (OSError, ValueError, SearchIndexError) as error:
            self._shard = error

    def call(self, entry: ShardEntry, method: str, *arguments: Any) -> Any:
        """The answer of a method of the shard; ShardChanged if it has another generation than the one asked for."""
        if not (isinstance(self._shard, Shard) and self._shard.entry == entry) and self._refused != entry:
            # Opening may have failed for a passing reason, or another process has changed the shard.
            self.open()
            if isinstance(self._shard, SearchIndexError):
                # Do not try again at every question: comparing the checksums reads the whole shard.
                self._refused = entry
        if isinstance(self._shard, SearchIndexError):
            raise self._shard
        if isinstance(self._shard, Exception):
            raise SearchIndexError(f"{self._root}: shard {self._name} cannot be opened: {self._shard}")
        if self._shard.entry != entry:
            raise ShardChanged(f"{self._root}: shard {entry.name} has been changed by another process")
        return getattr(self._shard, method)(*arguments)
