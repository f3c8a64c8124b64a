"""One shard in the process that holds it: its share of the votes, and geometric proof where the descriptors are."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from delf_jax.features import LocalFeatures
from retrieval.indexing.index import Index
from retrieval.sharding.layout import Layout, ShardEntry, damaged_shard
from retrieval.verification.verify import Match, VerificationSettings, verify_candidates


class Neighbours(NamedTuple):
    """The nearest descriptors of a shard, or of several.

    Attributes:
        photos: int64 [q, k], numbers of the photos that own them, -1 for none.
        similarities: float32 [q, k], descending.
        excluded: int64 [m], numbers of the photos that must not be found.
    """

    photos: Int[np.ndarray, "q k"]
    similarities: Float[np.ndarray, "q k"]
    excluded: Int[np.ndarray, " m"]

    @classmethod
    def merged(cls, parts: Sequence["Neighbours"], count: int) -> "Neighbours":
        """The nearest ``count`` of all shards: what one index of all their photos would give.

        Of equal similarities the photo that came first comes first, and of one photo the order of its rows stays.
        """
        photos, similarities, excluded = (np.concatenate(columns, axis=-1) for columns in zip(*parts, strict=True))
        best = np.lexsort((photos, -similarities), axis=-1)[:, :count]
        return cls(np.take_along_axis(photos, best, -1), np.take_along_axis(similarities, best, -1), excluded)


class Shard:
    """An opened shard.

    Attributes:
        entry: its generation.
        index: its photos.
        numbers: int64 [p], their numbers, ascending.
    """

    def __init__(self, root: Path, entry: ShardEntry) -> None:
        """Opens a shard whose files have been compared with their checksums."""
        self.entry = entry
        self.index = Index.open_checked(root / entry.folder)
        self.numbers: Int[np.ndarray, " p"] = np.load(root / entry.numbers_file, allow_pickle=False)

    @classmethod
    def open(cls, root: Path, name: str) -> "Shard":
        """Opens the generation that counts now; SearchIndexError where it is damaged."""
        while True:
            entry = Layout.read(root).entry(name)
            if not (damaged := entry.damage(root)):
                return cls(root, entry)
            # A change that ended meanwhile takes the older generation away.
            if Layout.read(root).entry(name) == entry:
                raise damaged_shard(root, name, damaged[0])

    def neighbours(self, query: LocalFeatures, count: int, exclude: Collection[str] = ()) -> Neighbours:
        """The nearest ``count`` descriptors, and which of the names to exclude are here."""
        places, similarities = self.index.neighbours(query, count)
        return Neighbours(
            np.where(places >= 0, self.numbers[places], -1), similarities, self.numbers[self.index.places(exclude)]
        )

    def verify(
        self, query: LocalFeatures, candidates: Sequence[tuple[int, float]], settings: VerificationSettings
    ) -> dict[int, Match]:
        """Verifies photos (number, votes); one that was taken out since it was voted for is left out."""
        held = [(number, score, place) for number, score in candidates if (place := self._place(number)) is not None]
        names = self.index.names
        matches = verify_candidates(
            query,
            [(names[place], score, self.index.features(names[place])) for _, score, place in held],
            settings,
        )
        return {number: match for (number, _, _), match in zip(held, matches)}

    def names(self, numbers: Collection[int] | None = None) -> dict[int, str]:
        """Names of these photos, or of all, by their numbers."""
        if numbers is None:
            return dict(zip(self.numbers.tolist(), self.index.names))
        return {number: self.index.names[place] for number in numbers if (place := self._place(number)) is not None}

    def features(self, name: str) -> LocalFeatures | None:
        """The features of a photo; None where it is not here."""
        return self.index.features(name) if name in self.index else None

    def process(self) -> int:
        """Number of the process that holds the shard."""
        return os.getpid()

    def _place(self, number: int) -> int | None:
        place = int(np.searchsorted(self.numbers, number))
        return place if place < len(self.numbers) and self.numbers[place] == number else None
