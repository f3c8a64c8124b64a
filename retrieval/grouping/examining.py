"""Examines the likely pairs of a collection: which of them are proved to show the same thing.

Every photo is compared with the photos that most of its features vote for. A pair is verified once, whichever of the
two photos named the other, and not at all if both are surely in one group already.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from networkx.utils import UnionFind

from delf_jax.errors import SearchIndexError
from delf_jax.settings import ExtractionSettings
from retrieval.grouping.pair_log import PairLog
from retrieval.grouping.pair_verifier import PairVerifier, alone
from retrieval.search import SearchableIndex
from retrieval.verification.verify import Match, verify_candidates

# An edge whose log10 NFA is so far below the limit is sure: its two photos need no further proof.
SURE = 10.0
# Each photo's nearest photos are verified first, because copies are among them; the next ones only if they are not
# surely in one group with it yet.
ROUNDS = (0, 2, 5, 10, 20, 50, 100)


@dataclasses.dataclass(frozen=True, eq=False)
class Edge:
    """Two photos that are proved to show the same thing.

    Attributes:
        a, b: names of the photos.
        inliers: matches that agree on the transform.
        log10_nfa: log10 of the number of such pairs to expect by chance among all pairs of the collection.
        limit: edges are accepted at or below this ``log10_nfa``.
        transform: float64 [3, 3], from (x, y, 1) of ``a`` to ``b``, in pixels of the upright originals.
        regions: boxes [x0, y0, x1, y1], edges in pixels, around the inliers in ``a`` and in ``b``.
        copy: they are copies of one picture; otherwise other views.
    """

    a: str
    b: str
    inliers: int
    log10_nfa: float
    limit: float
    transform: Float[np.ndarray, "3 3"]
    regions: Float[np.ndarray, "2 4"]
    copy: bool

    @property
    def is_sure(self) -> bool:
        """Far below the limit."""
        return self.log10_nfa <= self.limit - SURE


@dataclasses.dataclass(frozen=True, eq=False)
class Examined:
    """The accepted pairs of a collection.

    Attributes:
        names: all photos.
        edges: accepted pairs.
        likely: the pairs that were considered, each once; ``log10_nfa`` counts them all.
        verified: how many of them were verified; the others lie inside of sure groups.
    """

    names: tuple[str, ...]
    edges: tuple[Edge, ...]
    likely: tuple[tuple[str, str], ...]
    verified: int


def examine(
    index: SearchableIndex,
    *,
    neighbours: int = 10,
    log: PairLog | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Examined:
    """Finds the accepted pairs of all photos of an index.

    Args:
        index: the collection.
        neighbours: number of photos that each photo is compared with.
        log: pairs that were verified before, and keeps those of this call.
        advance: is told how much is done, and of how much.

    Raises:
        SearchIndexError: a shard of the index is lost.
        OSError: the log cannot be written.
    """
    names = index.names
    log = PairLog() if log is None else log
    rounds = [*itertools.pairwise((*(rank for rank in ROUNDS if rank < neighbours), neighbours))]
    steps = itertools.count(1)
    total = len(names) * (1 + len(rounds))
    likely: dict[str, list[str]] = {}
    for name in names:
        found = index.search(index.features(name), verify=0, top=neighbours, exclude=[name])
        if found.lost:
            shard, reason = next(iter(found.lost.items()))
            raise SearchIndexError(f"shard {shard} is lost ({reason}); groups need all photos")
        likely[name] = [match.image for match in found.matches]
        advance(next(steps), total)
    pairs = {frozenset((name, other)): (name, other) for name, others in likely.items() for other in others}
    limits = functools.cache(lambda features: index.acceptance(features, verify=neighbours).threshold)
    edges: list[Edge] = []
    seen: set[frozenset[str]] = set()
    groups = UnionFind(names)
    verifier = PairVerifier(index.features, _max_side(index), log)
    for begin, end in rounds:
        for name in names:
            asked = [
                other
                for other in likely[name][begin:end]
                if frozenset((name, other)) not in seen and (begin == 0 or groups[name] != groups[other])
            ]
            seen.update(frozenset((name, other)) for other in asked)
            for other, finding in zip(asked, verifier.findings(name, asked), strict=True):
                if finding is None:
                    continue
                limit = min(limits(verifier.size(name)), limits(verifier.size(other)))
                edge = Edge(
                    a=name,
                    b=other,
                    inliers=finding.inliers,
                    log10_nfa=finding.log10_nfa + math.log10(len(pairs)),
                    limit=limit,
                    transform=finding.transform,
                    regions=finding.regions,
                    copy=finding.copy,
                )
                if edge.log10_nfa <= limit:
                    edges.append(edge)
                    if edge.is_sure:
                        groups.union(name, other)
            advance(next(steps), total)
    return Examined(names, tuple(edges), tuple(pairs.values()), len(seen))


def proof(index: SearchableIndex, a: str, b: str, *, log10_nfa: float, limit: float) -> Match:
    """The match that proves an edge, found again: with the matched points, which an edge does not keep.

    Args:
        index: of the photos.
        a, b, log10_nfa, limit: of the edge.
    """
    (match,) = verify_candidates(index.features(a), [(b, 0.0, index.features(b))], alone(_max_side(index)))
    return dataclasses.replace(match, log10_nfa=log10_nfa, threshold=limit)


def _max_side(index: SearchableIndex) -> int:
    return (index.settings or ExtractionSettings()).max_side
