"""An index in shards: larger than one process or machine, with the answers of one index."""

import dataclasses
import functools
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from delf_jax.errors import SearchIndexError
from delf_jax.features import LocalFeatures
from delf_jax.settings import ExtractionSettings
from delf_jax.store.reader import FeatureStore
from retrieval.indexing import manifest
from retrieval.indexing.backends import BackendName, backend_class
from retrieval.indexing.compatibility import (
    calibrated_threshold,
    named,
    require_dimension,
    require_same_extraction,
    require_same_model,
)
from retrieval.indexing.index import Index, replacing_index
from retrieval.sharding.building import build_shards
from retrieval.sharding.changes import changing, rebuilt, without_and_with
from retrieval.sharding.layout import HEAD, Layout, ShardChanged
from retrieval.sharding.local_servers import Answers, LocalServers, Servers
from retrieval.sharding.ray_servers import RayServers
from retrieval.sharding.shard import Neighbours
from retrieval.verification.transforms import Model
from retrieval.verification.verify import Match, SearchResult, VerificationSettings
from retrieval.voting import ranking, votes

_TRIES = 3
_P = ParamSpec("_P")
_T = TypeVar("_T")


def retry_on_shard_change(
    method: Callable[Concatenate["ShardedIndex", _P], _T],
) -> Callable[Concatenate["ShardedIndex", _P], _T]:
    """Retries a method when another writer replaced a shard, so that all answers are of one state of the index."""

    @functools.wraps(method)
    def asked(self: "ShardedIndex", *args: _P.args, **kwargs: _P.kwargs) -> _T:
        tries = 0
        while True:
            layout = self._layout
            try:
                return method(self, *args, **kwargs)
            except ShardChanged:
                with self._swap:
                    # Only the changes of others count: between those of this object a search is quick enough.
                    if self._layout is layout:
                        tries += 1
                        if tries == _TRIES:
                            raise
                        self._serve(Layout.read(self.path))

    return asked


class ShardedIndex:
    """Photos in several indexes, which are searched as one.

    Each shard holds whole photos. A query's descriptors go to all shards; the nearest neighbours of all of them are
    merged before they vote, so the votes are those of one index; the photos with the most votes are verified in the
    shards that hold them, with the same samples and the same number of photos verified. While all shards answer, and
    their backend is exact, so is the answer: that of one ``Index`` of all photos, in the order they came.

    The index lives in its folder: ``build``, ``add``, ``remove`` and ``rebuild`` write it, one shard at a time.
    A shard that is damaged or does not answer is named in the answers, which are then those of the others.
    Where somebody else changes the index meanwhile, this one answers for the photos before, or, once a shard that it
    needs has been replaced, for those of now: never for some shards so and for some so.

    Costs as in ``Index``, for one shard at a time while building or changing. This process holds a shard from the first
    question to it on; with ``on_ray`` it holds none.

    Attributes:
        path: its folder.
    """

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
        """Index a feature store, or any stream of (name, features), as a folder that appears whole or not at all.

        Args:
            path: the folder; an older index there is replaced.
            shards: how many.
            backend, settings, fingerprint, threshold, head_path: as in ``Index.build``.

        Raises:
            SearchIndexError: fewer photos have features than there are shards, a name comes twice, dimensions differ,
                no such backend, or ``path`` cannot be written.
        """
        if shards < 1:
            raise SearchIndexError(f"{shards} shards hold no photo; take at least 1")
        if isinstance(photos, FeatureStore):
            settings, fingerprint, head_path = photos.settings, photos.fingerprint, photos.head_path
        described: dict[str, Any] = {
            "settings": settings,
            "fingerprint": fingerprint,
            "threshold": calibrated_threshold(head_path, settings) if threshold is None else threshold,
        }
        with replacing_index(path) as folder:
            entries, photos_ever, dimension = build_shards(
                named(photos),
                folder,
                names=[f"{number:05}" for number in range(shards)],
                generation=0,
                first_number=0,
                backend=backend,
                described=described,
            )
            head = None
            if head_path is not None:
                shutil.copyfile(head_path, folder / HEAD)
                head = manifest.file_entry(folder / HEAD)
            name = backend_class(backend).name
            layout = Layout(tuple(entries), photos_ever, dimension, name, **described, head=head)
            layout.write(folder)
        return cls(Path(path), layout, LocalServers(Path(path)))

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, on_ray: bool = False, replicas: int = 1, seconds: float = 120.0
    ) -> "ShardedIndex":
        """Open an index in shards, after comparing every file with its checksum.

        Args:
            on_ray: hold the shards in actors on the Ray cluster that this process is connected to, whose nodes all see
                ``path``; otherwise in this process.
            replicas: actors a shard; searching goes on as long as one of them lives.
            seconds: an actor that is silent for longer does not count. The first query compiles.

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

    def __enter__(self) -> "ShardedIndex":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the shards, and stops their actors."""
        self._servers.close()

    @property
    def settings(self) -> ExtractionSettings | None:
        """What the features were extracted with; None if the index was built without."""
        return self._layout.settings

    @property
    def fingerprint(self) -> str | None:
        """Of the model that made the features; None if the index was built without."""
        return self._layout.fingerprint

    @property
    def threshold(self) -> float:
        """Matches are accepted at or below this ``log10_nfa``."""
        return self._layout.threshold

    @property
    def head_path(self) -> Path | None:
        """The head file of features that were adapted to their collection; None for the model's own head."""
        return None if self._layout.head is None else self.path / HEAD

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the shards."""
        return tuple(entry.name for entry in self._layout.shards)

    def __len__(self) -> int:
        """Number of photos, those without features and those of lost shards included."""
        return sum(entry.photos for entry in self._layout.shards)

    @property
    def feature_count(self) -> int:
        """Number of features of all photos."""
        return sum(entry.features for entry in self._layout.shards)

    @property
    def dimension(self) -> int:
        """Dimension of the descriptors."""
        return self._layout.dimension

    @property
    def backend(self) -> str:
        """Which backend searches: ``scann`` or ``exact``."""
        return self._layout.backend

    @property
    @retry_on_shard_change
    def names(self) -> tuple[str, ...]:
        """Names of the photos in the order they came; SearchIndexError where a shard is lost."""
        answers = self._ask(self._layout, "names")
        self._require_all(answers.lost)
        by_number = {number: name for names in answers.given.values() for number, name in names.items()}
        return tuple(by_number[number] for number in sorted(by_number))

    @retry_on_shard_change
    def features(self, name: str) -> LocalFeatures:
        """The features of a photo, descriptors in float16.

        Raises:
            SearchIndexError: there is no such photo, or its shard may be the one that is lost.
        """
        answers = self._ask(self._layout, "features", name)
        found = next((features for features in answers.given.values() if features is not None), None)
        if found is None:
            self._require_all(answers.lost)
            raise SearchIndexError(f"{name}: is not in the index; names are as they were extracted")
        return found

    def require(self, fingerprint: str) -> None:
        """Refuse features of another model: their distances to those of this index mean nothing.

        Raises:
            SearchIndexError: ``fingerprint`` is not that of the index.
        """
        require_same_model(self, fingerprint)

    @retry_on_shard_change
    def search(
        self,
        features: LocalFeatures,
        *,
        neighbours: int = 60,
        verify: int = 100,
        top: int = 10,
        model: Model = "affine",
        threshold: float | None = None,
        max_side: int | None = None,
        exclude: Collection[str] = (),
        seed: int = 0,
    ) -> SearchResult:
        """The photos that show what the query shows, with geometric proof: ``Index.search``, arguments and answer.

        Raises:
            SearchIndexError: the descriptors do not have the dimension of the index, or no shard answers.
        """
        if not len(features):
            return SearchResult(False, [])
        layout = self._layout
        require_dimension(features, layout.dimension)
        asked = self._ask(layout, "neighbours", features, neighbours, tuple(exclude))
        if not asked.given:
            raise SearchIndexError(f"{self.path}: no shard answers: {next(iter(asked.lost.values()))}")
        nearest = Neighbours.merged(list(asked.given.values()), neighbours)
        numbers, photos = np.unique(nearest.photos, return_inverse=True)
        # Where approximate backends found fewer, the number is -1, and comes first.
        missing = int(numbers[0] < 0)
        numbers, photos = numbers[missing:], photos.reshape(nearest.photos.shape) - missing
        scores = votes(photos, nearest.similarities, photo_count=len(numbers))
        scores[np.isin(numbers, nearest.excluded)] = -np.inf
        ranked = [(int(numbers[place]), float(scores[place])) for place in ranking(scores)]
        shard_of = {
            number: shard
            for shard, part in asked.given.items()
            for number in np.intersect1d(part.photos, numbers).tolist()
        }
        verified, unverified = ranked[:verify], ranked[verify : max(top, verify)]
        settings = VerificationSettings(
            model=model,
            threshold=layout.threshold if threshold is None else threshold,
            max_side=(layout.settings or ExtractionSettings()).max_side,
            query_max_side=max_side,
            seed=seed,
            photos_verified=len(verified),
        )
        proofs = self._servers.ask(
            layout,
            "verify",
            {
                shard: (features, mine, settings)
                for shard in asked.given
                if (mine := [candidate for candidate in verified if shard_of[candidate[0]] == shard])
            },
        )
        proven = {number: match for part in proofs.given.values() for number, match in part.items()}
        matches = sorted((proven[number] for number, _ in verified if number in proven), key=Match.rank)
        if unverified:
            answers = self._ask(layout, "names", [number for number, _ in unverified])
            names = {number: name for part in answers.given.values() for number, name in part.items()}
            matches += [Match.unverified(names[n], score, model=model) for n, score in unverified if n in names]
        return SearchResult(any(match.accepted for match in matches), matches[:top], asked.lost | proofs.lost)

    def add(self, photos: FeatureStore | Iterable[tuple[str, LocalFeatures]]) -> None:
        """Add photos, in the folder too; one whose name is there already takes the place of the old one.

        A photo that is there stays in its shard; new ones go to the shards with the fewest features, so many at a time
        that a small addition writes only one shard anew, and memory holds one shard beside the new photos. Searches go
        on meanwhile with the photos before.

        Raises:
            SearchIndexError: another model or other settings made them, a name comes twice, dimensions differ, a shard
                is damaged, or somebody else is changing the index.
        """
        if isinstance(photos, FeatureStore):
            require_same_extraction(self, photos)
        new = dict[str, LocalFeatures]()
        for name, features in named(photos):
            if name in new:
                raise SearchIndexError(f"{name}: comes twice; give every photo a name of its own")
            new[name] = dataclasses.replace(features, descriptors=np.asarray(features.descriptors, np.float16))
        self._change((), new)

    def remove(self, names: Collection[str]) -> None:
        """Take photos out, in the folder too.

        Raises:
            SearchIndexError: there is no such photo, a shard would be left without features or is damaged, or somebody
                else is changing the index.
        """
        self._change(names, {})

    def rebuild(self, photos: FeatureStore | Iterable[tuple[str, LocalFeatures]]) -> dict[str, list[str]]:
        """Build damaged shards again, of those photos that no other shard holds.

        Args:
            photos: all photos of the index, or at least those of the damaged shards.

        Returns:
            The shards that were built again, and what was wrong with them.

        Raises:
            SearchIndexError: another model or other settings made the photos, none of them belongs to the damaged
                shards, or somebody else is changing the index.
        """
        if isinstance(photos, FeatureStore):
            require_same_extraction(self, photos)
        with changing(self.path) as layout:
            damaged = {name: reasons for name, reasons in layout.damage(self.path).items() if name != HEAD}
            if damaged:
                self._commit(rebuilt(self.path, layout, named(photos), damaged.keys()))
        return damaged

    def _change(self, removed: Collection[str], added: Mapping[str, LocalFeatures]) -> None:
        with changing(self.path) as layout:
            self._commit(without_and_with(self.path, layout, removed, added))

    def _commit(self, layout: Layout) -> None:
        layout.write(self.path)
        with self._swap:
            self._serve(layout)
        layout.remove_others(self.path)

    def _serve(self, layout: Layout) -> None:
        # Questions of the time before are answered until the shards of the new one are served.
        self._servers.serve(layout)
        self._layout = layout

    def _ask(self, layout: Layout, method: str, *arguments: Any) -> Answers:
        return self._servers.ask(layout, method, dict.fromkeys(layout.entries, arguments))

    def _require_all(self, lost: Mapping[str, str]) -> None:
        if lost:
            name, reason = next(iter(lost.items()))
            raise SearchIndexError(f"{self.path}: shard {name} is lost: {reason}")


def open_index(path: str | os.PathLike[str]) -> Index | ShardedIndex:
    """Open an index of either kind in this process.

    Raises:
        SearchIndexError: missing, damaged, or made by a newer version.
    """
    return ShardedIndex.open(path) if manifest.is_sharded(Path(path)) else Index.open(path)
