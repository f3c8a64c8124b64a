"""All queries ranked against several indices, one of them in memory at a time: how benchmarks meet distractors."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from delf_jax.features import LocalFeatures
from delf_jax.settings import ExtractionSettings
from retrieval.indexing.index import FirstStage, Index
from retrieval.verification.verify import Match, VerificationSettings, verify_candidates
from retrieval.voting import votes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """How queries are asked; as in ``Index.search``.

    Attributes:
        first_stage: "votes" or "asmk".
        assignments: words of each descriptor of a query, for asmk.
        neighbours: of each descriptor, for votes.
        verify: photos verified for each query; 0 ranks by the first stage alone.
        seed: of the random samples.
    """

    first_stage: FirstStage = "votes"
    assignments: int = 1
    neighbours: int = 60
    verify: int = 100
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The answer to one query.

    Attributes:
        photos: int [n], best first; photos are counted through all indices, in their order.
        confidence: float [n], the negated ``log10_nfa`` where photos are verified, which the first ``verify`` are and
            the others are not (-inf); without verification the scores of the first stage.
    """

    photos: Int[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"]


def rank(
    queries: Sequence[LocalFeatures],
    shards: Sequence[Callable[[], Index]],
    search: Search,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Ranking]:
    """Ranks every photo of all indices for every query, as one index of all photos would with exact neighbours.

    Neighbours are merged before they vote, and verification sees the best of all indices. Only with idf does ASMK
    differ: every index weights words by its own photos. A query keeps its neighbours, or with asmk 4 bytes a photo, and
    with several indices the features of its candidates.

    Args:
        queries: features of each.
        shards: each opens one index; all of one model. They are opened twice where there are several.
        search: how.
        progress: called with (steps done, steps in all); a step is one query in one index, or its verification.

    Raises:
        SearchIndexError: an index cannot be opened, or the queries do not fit it.
    """
    steps = _Steps(progress, len(queries) * (len(shards) + bool(search.verify)))
    stages = [
        _Votes(search.neighbours) if search.first_stage == "votes" else _Kernels(search.assignments) for _ in queries
    ]
    first = 0
    index = None
    starts = []
    for opened in shards:
        index = opened()
        starts.append(first)
        for query, stage in zip(queries, stages, strict=True):
            if len(query):
                stage.see(query, index, first)
            steps.done()
        first += len(index)
    if index is None:
        raise ValueError("no index to rank")
    orders = [stage.ranked(first) for stage in stages]
    if not search.verify:
        return [Ranking(order, scores[order]) for order, scores in orders]
    wanted = [order[: search.verify] for order, _ in orders]
    answers = []
    features = _candidates(wanted, shards, starts) if len(shards) > 1 else None
    for query, (order, scores), best in zip(queries, orders, wanted, strict=True):
        found = [
            (str(place), float(scores[place]), features[place] if features else index.features(index.names[place]))
            for place in best.tolist()
        ]
        answers.append(_verified(query, found, order, index, search))
        steps.done()
    return answers


class _Votes:
    """The nearest descriptors of a query over all indices seen."""

    def __init__(self, neighbours: int) -> None:
        self._count = neighbours
        self._found: tuple[np.ndarray, np.ndarray] | None = None

    def see(self, query: LocalFeatures, index: Index, first: int) -> None:
        photos, similarities = index.neighbours(query, self._count)
        photos = np.where(photos >= 0, photos + first, -1).astype(np.int32)
        if self._found is not None:
            photos = np.concatenate([self._found[0], photos], axis=1)
            similarities = np.concatenate([self._found[1], similarities], axis=1)
            order = np.argsort(-similarities, axis=1, kind="stable")[:, : self._count]
            photos, similarities = (np.take_along_axis(one, order, axis=1) for one in (photos, similarities))
        self._found = photos, similarities

    def ranked(self, photo_count: int) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " p"]]:
        scores = np.full(photo_count, -np.inf, np.float32)
        if self._found is not None:
            scores = votes(*self._found, photo_count=photo_count)
        return _order(scores), scores


class _Kernels:
    """The ASMK similarities of a query with the photos of all indices seen."""

    def __init__(self, assignments: int) -> None:
        self._assignments = assignments
        self._scores: list[np.ndarray] = []

    def see(self, query: LocalFeatures, index: Index, first: int) -> None:
        self._scores.append(index.kernel_scores(query, assignments=self._assignments))

    def ranked(self, photo_count: int) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " p"]]:
        scores = np.concatenate(self._scores) if self._scores else np.full(photo_count, -np.inf, np.float32)
        return _order(scores), scores


class _Steps:
    """Counts for a progress bar."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def done(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)


def _order(scores: Float[np.ndarray, " p"]) -> Int[np.ndarray, " n"]:
    return np.argsort(-scores, kind="stable")[: np.isfinite(scores).sum()]


def _candidates(
    wanted: Sequence[Int[np.ndarray, " _c"]], shards: Sequence[Callable[[], Index]], starts: Sequence[int]
) -> dict[int, LocalFeatures]:
    """The features of every photo that any query wants verified."""
    places = np.unique(np.concatenate(wanted)) if wanted else np.zeros(0, int)
    owners = np.searchsorted(starts, places, side="right") - 1
    found = {}
    for shard, (opened, start) in enumerate(zip(shards, starts, strict=True)):
        mine = places[owners == shard].tolist()
        if mine:
            index = opened()
            for place in mine:
                # Views would keep whole columns of every index in memory.
                features = index.features(index.names[place - start])
                copied = {name: np.array(getattr(features, name)) for name in _COLUMNS}
                found[place] = dataclasses.replace(features, **copied)
    return found


_COLUMNS = ("keypoints", "scales", "scores", "descriptors")


def _verified(
    query: LocalFeatures,
    candidates: Sequence[tuple[str, float, LocalFeatures]],
    order: Int[np.ndarray, " n"],
    index: Index,
    search: Search,
) -> Ranking:
    max_side = (index.settings or ExtractionSettings()).max_side
    settings = VerificationSettings(threshold=index.threshold, max_side=max_side, seed=search.seed)
    matches = verify_candidates(query, candidates, settings)
    matches.sort(key=Match.rank)
    best = np.array([int(match.image) for match in matches], np.int64)
    sure = np.array([-match.log10_nfa for match in matches if match.log10_nfa is not None], np.float64)
    rest = order[len(best) :]
    return Ranking(np.concatenate([best, rest]), np.concatenate([sure, np.full(len(rest), -np.inf)]))
