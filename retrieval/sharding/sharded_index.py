"""An index in shards: larger than one process or machine, with the answers of one index."""

import dataclasses
import functools
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from delf_jax.errors import SearchIndexError
from delf_jax.extraction.calibration import Calibration
from delf_jax.features import LocalFeatures
from delf_jax.settings import ExtractionSettings
from delf_jax.store.reader import FeatureStore
from retrieval.compatibility import photos_with_names, require_same_extraction
from retrieval.indexing import manifest
from retrieval.indexing.backends import BackendName, backend_class
from retrieval.indexing.description import IndexDescription
from retrieval.indexing.index import Index, replacing_index
from retrieval.search import SearchableIndex
from retrieval.sharding.building import build_shards
from retrieval.sharding.changes import changed, changing, rebuilt
from retrieval.sharding.layout import HEAD, Layout, ShardChanged
from retrieval.sharding.local_servers import LocalServers, Servers
from retrieval.sharding.ray_servers import RayServers
from retrieval.sharding.snapshot import ShardsSnapshot

_TRIES = 3
_P = ParamSpec("_P")
_T = TypeVar("_T")


def retry_on_shard_change(
    method: Callable[Concatenate["ShardedIndex", _P], _T],
) -> Callable[Concatenate["ShardedIndex", _P], _T]:
    """Retries a method when another writer replaced a shard, so that all answers are of one state of the index."""

    @functools.wraps(method)
    def retried(self: "ShardedIndex", *args: _P.args, **kwargs: _P.kwargs) -> _T:
        tries = 0
        while True:
            photos = self._photos
            try:
                return method(self, *args, **kwargs)
            except ShardChanged:
                with self._swap:
                    # Only changes by others count: between those of this object a search always has time to finish.
                    if self._photos is photos:
                        tries += 1
                        if tries == _TRIES:
                            raise
                        self._serve(Layout.read(self.path))

    return retried


class ShardedIndex(SearchableIndex):
    """Photos in several indexes, which are searched as one.

    Each shard holds whole photos. A query's descriptors go to all shards. The nearest neighbours of all of them are
    merged before they vote, so the votes are those of one index. The photos with the most votes are verified in the
    shards that hold them, with the same samples and the same number of photos verified. If all shards answer and their
    backend is exact, the answer is that of one ``Index`` of all photos in the same order. ASMK is not available.

    The index always lives in its folder, ``path``. A change writes the shards that it touches anew, one at a time;
    searches go on meanwhile with the photos before the change. A shard that is damaged or does not answer is named in
    the answers, which are then those of the other shards. When another process changes the index, this object goes on
    with the photos before, or, once a shard that it needs has been replaced, with those of now; it never mixes the two.

    Costs are those of ``Index``, for one shard at a time while building or changing. This process holds a shard from
    the first question to it; with ``on_ray`` it holds none.
    """

    path: Path

    def __init__(self, path: Path, layout: Layout, servers: Servers) -> None:
        self.path = path
        self._servers = servers
        self._swap = threading.Lock()
        self._serve(layout)

    @classmethod
    def build(
        cls,
        photos: FeatureStore | Iterable[tuple[str, LocalFeatures]],
        path: str | os.PathLike[str],
        *,
        shards: int,
        backend: BackendName = "auto",
        settings: ExtractionSettings | None = None,
        fingerprint: str | None = None,
        threshold: float | None = None,
        head_path: str | os.PathLike[str] | None = None,
    ) -> "ShardedIndex":
        """Indexes a feature store, or any stream of (name, features), as a folder that appears whole or not at all.

        Args:
            photos: what to index; a name may come once.
            path: the folder; an older index there is replaced.
            shards: number of shards.
            backend, settings, fingerprint, threshold, head_path: as in ``Index.build``.

        Raises:
            SearchIndexError: fewer photos have features than there are shards, a name comes twice, dimensions differ,
                no such backend, or ``path`` cannot be written.
        """
        if shards < 1:
            raise SearchIndexError(f"{shards} shards hold no photo; take at least 1")
        description = IndexDescription.of(
            photos, settings=settings, fingerprint=fingerprint, threshold=threshold, head_path=head_path
        )
        with replacing_index(path) as folder:
            entries, photos_ever, dimension = build_shards(
                photos_with_names(photos),
                folder,
                names=[f"{number:05}" for number in range(shards)],
                generation=0,
                first_number=0,
                backend=backend,
                description=description,
            )
            head = None
            if description.head_path is not None:
                shutil.copyfile(description.head_path, folder / HEAD)
                head = manifest.file_entry(folder / HEAD)
            layout = Layout(
                tuple(entries),
                photos_ever,
                dimension,
                backend_class(backend).name,
                dataclasses.replace(description, head_path=None),
                head,
            )
            layout.write(folder)
        return cls(Path(path), layout, LocalServers(Path(path)))

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, on_ray: bool = False, replicas: int = 1, seconds: float = 120.0
    ) -> "ShardedIndex":
        """Opens an index in shards, after comparing every file with its checksum.

        Args:
            path: the folder.
            on_ray: hold the shards in actors on the Ray cluster that this process is connected to, whose nodes must all
                see ``path``; otherwise in this process.
            replicas: actors of each shard; the shard answers as long as one of them lives.
            seconds: an actor that does not answer within this time does not count. The first query compiles.

        Raises:
            SearchIndexError: missing, made by a newer version, none of its shards can be used, or no cluster.
        """
        root = Path(path)
        layout = Layout.read(root)
        if layout.head is not None and (reason := manifest.file_damage(root, HEAD, layout.head)):
            raise SearchIndexError(f"{root}: damaged, {reason}; build the index again")
        servers = RayServers(root, replicas=replicas, seconds=seconds) if on_ray else LocalServers(root)
        index = cls(root, layout, servers)
        if isinstance(servers, LocalServers) and len(servers.lost) == len(layout.shards):
            again = f"`delf-jax index STORE --out {root} --shards {len(layout.shards)}`"
            raise SearchIndexError(f"{root}: all its shards are damaged; build the index again, with {again}")
        return index

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a copy of the index as a folder that appears whole or not at all; replaces an index that is there.

        Raises:
            SearchIndexError: ``path`` is something else than an index or cannot be written, or another process is
                changing this index.
        """
        if Path(path).resolve() == self.path.resolve():
            return
        with changing(self.path) as layout, replacing_index(path) as folder:
            layout.copy(self.path, folder)

    def __enter__(self) -> "ShardedIndex":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the shards, and stops their actors."""
        self._servers.close()

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the shards."""
        return tuple(entry.name for entry in self._photos.layout.shards)

    def __len__(self) -> int:
        """Number of photos, also of those without features and of those in lost shards."""
        return sum(entry.photos for entry in self._photos.layout.shards)

    @property
    def feature_count(self) -> int:
        """Number of features of all photos."""
        return sum(entry.features for entry in self._photos.layout.shards)

    @property
    def dimension(self) -> int:
        """Dimension of the descriptors."""
        return self._photos.layout.dimension

    @property
    def backend(self) -> str:
        """What finds nearest neighbours: ``scann`` or ``exact``."""
        return self._photos.layout.backend

    @property
    @retry_on_shard_change
    def names(self) -> tuple[str, ...]:
        """Names of the photos in the order they were added; SearchIndexError if a shard is lost."""
        return self._photos.names()

    @retry_on_shard_change
    def features(self, name: str) -> LocalFeatures:
        """The features of a photo, descriptors in float16.

        Raises:
            SearchIndexError: there is no such photo, or the shard that may have it is lost.
        """
        return self._photos.features(name)

    search = retry_on_shard_change(SearchableIndex.search)

    def rebuild(self, photos: FeatureStore | Iterable[tuple[str, LocalFeatures]]) -> dict[str, list[str]]:
        """Builds damaged shards again, of those photos that no other shard holds.

        Args:
            photos: all photos of the index, or at least those of the damaged shards.

        Returns:
            The shards that were built again, and what was wrong with them.

        Raises:
            SearchIndexError: another model or other settings made the photos, none of them belongs to the damaged
                shards, or another process is changing the index.
        """
        if isinstance(photos, FeatureStore):
            require_same_extraction(self, photos)
        with changing(self.path) as layout:
            damaged = {name: reasons for name, reasons in layout.damage(self.path).items() if name != HEAD}
            if damaged:
                self._commit(rebuilt(self.path, layout, photos_with_names(photos), damaged.keys()))
        return damaged

    def _calibrate(self, calibration: Calibration) -> None:
        with changing(self.path) as layout:
            description = dataclasses.replace(layout.description, calibration=calibration)
            self._commit(dataclasses.replace(layout, description=description))

    def _snapshot(self) -> ShardsSnapshot:
        return self._photos

    def _change(self, removed: Collection[str], added: Mapping[str, LocalFeatures]) -> None:
        # A photo that is there stays in its shard. New ones go to the shards with the fewest features, so many at a
        # time that a small addition writes only one shard anew.
        with changing(self.path) as layout:
            self._commit(changed(self.path, layout, removed, added))

    def _commit(self, layout: Layout) -> None:
        layout.write(self.path)
        with self._swap:
            self._serve(layout)
        layout.remove_others(self.path)

    def _serve(self, layout: Layout) -> None:
        # The snapshot before is answered until the shards of the new one are served.
        self._servers.serve(layout)
        self._photos = ShardsSnapshot(self.path, self._servers, layout)
        self.settings = layout.description.settings
        self.fingerprint = layout.description.fingerprint
        self.threshold = layout.description.threshold
        self.calibration = layout.description.calibration
        self.head_path = None if layout.head is None else self.path / HEAD


def open_index(path: str | os.PathLike[str]) -> Index | ShardedIndex:
    """Opens an index of either kind in this process.

    Raises:
        SearchIndexError: the index is missing, damaged, or made by a newer version.
    """
    return ShardedIndex.open(path) if manifest.is_sharded(Path(path)) else Index.open(path)
