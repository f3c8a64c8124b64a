"""All shards of an index in one state: their answers, joined to those of one index."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from delf_jax.errors import SearchIndexError
from delf_jax.features import LocalFeatures
from retrieval.indexing.indexed_photos import unknown_photo
from retrieval.nearest import merge_neighbours
from retrieval.search import FirstStage, SearchSettings
from retrieval.sharding.layout import Layout
from retrieval.sharding.local_servers import Answers, Servers
from retrieval.verification.verify import Match, VerificationSettings
from retrieval.voting import RankedPhotos, rank_by_votes


class ShardsSnapshot:
    """The photos of an index in shards as one manifest lists them.

    Every question goes to the generations of that manifest; it raises ``ShardChanged`` when one of them is gone.

    Attributes:
        layout: the manifest.
    """

    def __init__(self, root: Path, servers: Servers, layout: Layout) -> None:
        self.layout = layout
        self._root = root
        self._servers = servers

    def first_stage(
        self, query: LocalFeatures, stage: FirstStage, settings: SearchSettings, exclude: Collection[str]
    ) -> RankedPhotos:
        """Merges the neighbours of all shards, and ranks the photos by votes.

        Raises:
            SearchIndexError: the stage is "asmk", or no shard answers.
        """
        if stage != "votes":
            raise SearchIndexError(
                f"{self._root}: an index in shards has no inverted file of ASMK; search it by votes, or build one "
                "index in one piece with `delf-jax index STORE --out INDEX --asmk CODEBOOK`"
            )
        answers = self.ask("neighbours", query, settings.neighbours, tuple(exclude))
        if not answers.given:
            raise SearchIndexError(f"{self._root}: no shard answers: {next(iter(answers.lost.values()))}")
        nearest = merge_neighbours(list(answers.given.values()), settings.neighbours)
        return rank_by_votes(nearest)._replace(lost=answers.lost)

    def verify(
        self, query: LocalFeatures, photos: RankedPhotos, settings: VerificationSettings
    ) -> tuple[dict[int, Match], Mapping[str, str]]:
        """Verifies photos in the shards that hold them: their matches by number, and the shards that are lost."""
        if not len(photos.numbers):
            return {}, {}
        answers = self.ask("verify", query, photos, settings, without=photos.lost)
        return {number: match for part in answers.given.values() for number, match in part.items()}, answers.lost

    def names_of(self, photos: RankedPhotos) -> dict[int, str]:
        """Names of these photos by their numbers."""
        if not len(photos.numbers):
            return {}
        answers = self.ask("names", photos.numbers.tolist(), without=photos.lost)
        return {number: name for names in answers.given.values() for number, name in names.items()}

    def names(self) -> tuple[str, ...]:
        """Names of all photos in the order they were added; SearchIndexError if a shard is lost."""
        answers = self.ask("names")
        self._require_all(answers.lost)
        by_number = {number: name for names in answers.given.values() for number, name in names.items()}
        return tuple(by_number[number] for number in sorted(by_number))

    def features(self, name: str) -> LocalFeatures:
        """The features of a photo; SearchIndexError if no shard has it, or if a shard that may have it is lost."""
        answers = self.ask("features", name)
        found = next((features for features in answers.given.values() if features is not None), None)
        if found is None:
            self._require_all(answers.lost)
            raise unknown_photo(name)
        return found

    def ask(self, method: str, *arguments: Any, without: Collection[str] = ()) -> Answers:
        """Calls a method of ``Shard`` on all shards except those named in ``without``."""
        asked = [name for name in self.layout.entries if name not in without]
        return self._servers.ask(self.layout, method, dict.fromkeys(asked, arguments))

    def _require_all(self, lost: Mapping[str, str]) -> None:
        if lost:
            name, reason = next(iter(lost.items()))
            raise SearchIndexError(f"{self._root}: shard {name} is lost: {reason}")
