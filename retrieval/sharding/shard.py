"""One shard in the process that holds it: it answers for its own photos, by their numbers in the whole index."""

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
from jaxtyping import Int

from delf_jax.features import LocalFeatures
from retrieval.indexing.index import Index
from retrieval.nearest import Neighbours
from retrieval.sharding.layout import Layout, ShardEntry, damaged_shard
from retrieval.verification.verify import Match, VerificationSettings, verify_candidates
from retrieval.voting import RankedPhotos


class Shard:
    """An opened shard.

    Attributes:
        entry: its generation.
        index: its photos.
        numbers: int64 [p], their numbers in the whole index, ascending.
    """

    def __init__(self, root: Path, entry: ShardEntry) -> None:
        """Opens a shard whose files have been compared with their checksums."""
        self.entry = entry
        self.index = Index.open_checked(root / entry.folder)
        self.numbers: Int[np.ndarray, " p"] = np.load(root / entry.numbers_file, allow_pickle=False)

    @classmethod
    def open(cls, root: Path, name: str) -> "Shard":
        """Opens the generation that the manifest lists now; SearchIndexError if it is damaged."""
        while True:
            entry = Layout.read(root).entry(name)
            if not (damaged := entry.damage(root)):
                return cls(root, entry)
            # A change that ended meanwhile removes the older generation.
            if Layout.read(root).entry(name) == entry:
                raise damaged_shard(root, name, damaged[0])

    def neighbours(self, query: LocalFeatures, count: int, exclude: Collection[str] = ()) -> Neighbours:
        """The nearest descriptors here; see ``Index.neighbours``."""
        found = self.index.neighbours(query, count, exclude=exclude)
        return Neighbours(np.where(found.photos >= 0, self.numbers[found.photos], -1), found.similarities)

    def verify(self, query: LocalFeatures, photos: RankedPhotos, settings: VerificationSettings) -> dict[int, Match]:
        """Verifies those of these photos that are here."""
        held = [
            (number, score, place)
            for number, score in zip(photos.numbers.tolist(), photos.scores.tolist())
            if (place := self._place(number)) is not None
        ]
        names = self.index.names
        candidates = [(names[place], score, self.index.features(names[place])) for _, score, place in held]
        matches = verify_candidates(query, candidates, settings)
        return {number: match for (number, _, _), match in zip(held, matches)}

    def names(self, numbers: Collection[int] | None = None) -> dict[int, str]:
        """Names of those of these photos that are here, by their numbers; of all photos if no numbers are given."""
        if numbers is None:
            return dict(zip(self.numbers.tolist(), self.index.names))
        return {number: self.index.names[place] for number in numbers if (place := self._place(number)) is not None}

    def features(self, name: str) -> LocalFeatures | None:
        """The features of a photo; None if it is not here."""
        return self.index.features(name) if len(self.index.numbers_of([name])) else None

    def process(self) -> int:
        """Number of the process that holds the shard."""
        return os.getpid()

    def _place(self, number: int) -> int | None:
        place = int(np.searchsorted(self.numbers, number))
        return place if place < len(self.numbers) and self.numbers[place] == number else None
