"""All queries ranked against several indexes, one of them in memory at a time: how benchmarks meet distractors."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from delf_jax.features import LocalFeatures
from delf_jax.settings import ExtractionSettings
from retrieval.indexing.index import Index
from retrieval.nearest import Neighbours, merge_neighbours
from retrieval.search import FirstStage, SearchSettings
from retrieval.verification.acceptance_threshold import acceptance
from retrieval.verification.verify import Match, VerificationSettings, verify_candidates
from retrieval.voting import RankedPhotos, rank_by_scores, rank_by_votes


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """The answer to one query.

    Attributes:
        photos: int [n], the best first; photos are counted through all indexes, in their order.
        confidence: float [n], the negated ``log10_nfa`` of the verified photos, which come first, and -inf of the
            others; without verification the scores of the first stage.
    """

    photos: Int[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"]


def rank_all(
    queries: Sequence[LocalFeatures],
    indexes: Sequence[Callable[[], Index]],
    *,
    first_stage: FirstStage = "votes",
    verify: int = 100,
    settings: SearchSettings,
    progress: Callable[[int, int], None] | None = None,
) -> list[Ranking]:
    """Ranks every photo of all indexes for every query, as one index of all photos would with exact neighbours.

    Neighbours are merged before they vote, and the best photos of all indexes are verified. ASMK differs from that of
    one index only with idf, because every index weights words by its own photos. For each query memory holds its
    neighbours, or with ASMK 4 bytes a photo, and with several indexes the features of its candidates.

    Args:
        queries: features of each.
        indexes: each call opens one index; all are of one model. Several indexes are opened twice each.
        first_stage: "votes" or "asmk", as in ``Index.search``.
        verify: number of photos to verify for each query; 0 ranks by the first stage alone.
        settings: of each search.
        progress: called with (steps done, steps in all); a step is one query in one index, or its verification.

    Raises:
        SearchIndexError: an index cannot be opened, or the queries do not fit it.
    """
    if not indexes:
        raise ValueError("no index to rank")
    steps = _Steps(progress, len(queries) * (len(indexes) + bool(verify)))
    stages = [_Votes(settings.neighbours) if first_stage == "votes" else _Asmk(settings.assignments) for _ in queries]
    starts = [0]
    for opened in indexes:
        index = opened()
        for query, stage in zip(queries, stages, strict=True):
            if len(query):
                stage.add_query(query, index, starts[-1])
            steps.done()
        starts.append(starts[-1] + len(index))
    ranked = [stage.ranked() for stage in stages]
    if not verify:
        return [Ranking(photos.numbers, photos.scores) for photos in ranked]
    features = _features_of([photos.part(0, verify) for photos in ranked], indexes, starts, index)
    verified = min(verify, starts[-1])
    how = VerificationSettings(
        model=settings.model,
        max_side=(index.settings or ExtractionSettings()).max_side,
        seed=settings.seed,
        photos_verified=verified,
    )
    rankings = []
    for query, photos in zip(queries, ranked, strict=True):
        accepts = acceptance(
            index.calibration, index.threshold, features=len(query), photos=starts[-1], verified=verified
        )
        own = dataclasses.replace(how, threshold=accepts.threshold)
        rankings.append(_verified(query, photos, verify, features, own))
        steps.done()
    return rankings


class _Votes:
    """The nearest descriptors of a query in all indexes so far."""

    def __init__(self, neighbours: int) -> None:
        self._count = neighbours
        self._nearest: Neighbours | None = None

    def add_query(self, query: LocalFeatures, index: Index, first: int) -> None:
        photos, similarities = index.neighbours(query, self._count)
        found = Neighbours(np.where(photos >= 0, photos + first, -1).astype(np.int32), similarities)
        self._nearest = found if self._nearest is None else merge_neighbours([self._nearest, found], self._count)

    def ranked(self) -> RankedPhotos:
        return _NONE if self._nearest is None else rank_by_votes(self._nearest)


class _Asmk:
    """The ASMK similarities of a query with the photos of all indexes so far."""

    def __init__(self, assignments: int) -> None:
        self._assignments = assignments
        self._scores: list[np.ndarray] = []

    def add_query(self, query: LocalFeatures, index: Index, first: int) -> None:
        self._scores.append(index.kernel_scores(query, assignments=self._assignments))

    def ranked(self) -> RankedPhotos:
        return rank_by_scores(np.concatenate(self._scores)) if self._scores else _NONE


_NONE = RankedPhotos(np.zeros(0, np.int64), np.zeros(0, np.float32))


class _Steps:
    """Counts for a progress bar."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def done(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)


def _features_of(
    photos: Sequence[RankedPhotos], indexes: Sequence[Callable[[], Index]], starts: Sequence[int], last: Index
) -> dict[int, LocalFeatures]:
    """The features of all these photos; ``last`` is the last index, which is still open."""
    numbers = np.unique(np.concatenate([one.numbers for one in photos])) if photos else np.zeros(0, np.int64)
    owners = np.searchsorted(starts, numbers, side="right") - 1
    found = {}
    for place, opened in enumerate(indexes):
        mine = numbers[owners == place].tolist()
        if mine:
            index = last if len(indexes) == 1 else opened()
            for number in mine:
                features = index.features(index.names[number - starts[place]])
                # Views would keep whole columns of every index in memory.
                found[number] = features if len(indexes) == 1 else _copied(features)
    return found


def _copied(features: LocalFeatures) -> LocalFeatures:
    columns: dict[str, Any] = {
        name: np.array(getattr(features, name)) for name in ("keypoints", "scales", "scores", "descriptors")
    }
    return dataclasses.replace(features, **columns)


def _verified(
    query: LocalFeatures,
    photos: RankedPhotos,
    verify: int,
    features: dict[int, LocalFeatures],
    how: VerificationSettings,
) -> Ranking:
    best, rest = photos.part(0, verify), photos.numbers[verify:]
    candidates = [(str(n), s, features[n]) for n, s in zip(best.numbers.tolist(), best.scores.tolist())]
    matches = sorted(verify_candidates(query, candidates, how), key=Match.rank)
    numbers = np.array([int(match.image) for match in matches], np.int64)
    sure = np.array([-match.log10_nfa for match in matches if match.log10_nfa is not None], np.float64)
    return Ranking(np.concatenate([numbers, rest]), np.concatenate([sure, np.full(len(rest), -np.inf)]))
