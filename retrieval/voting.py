"""From nearest neighbours to votes for photos, and from scores to a ranking."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from retrieval.nearest import Neighbours

# Numbers below this are looked up in a table, which is faster than sorting them.
_LARGEST_TABLE = 1_000_000


class RankedPhotos(NamedTuple):
    """The answer of the first stage: photos, the best first. Photos without a score are left out.

    Attributes:
        numbers: int64 [r], which photos.
        scores: float32 [r], their votes or similarities.
        lost: shards that had no part in it, and why.
    """

    numbers: Int[np.ndarray, " r"]
    scores: Float[np.ndarray, " r"]
    lost: Mapping[str, str] = MappingProxyType({})

    def part(self, begin: int, end: int) -> "RankedPhotos":
        """The photos at the ranks from ``begin``, counted from 0, to before ``end``."""
        return RankedPhotos(self.numbers[begin:end], self.scores[begin:end], self.lost)


def votes(
    photos: Int[np.ndarray, "q k"], similarities: Float[np.ndarray, "q k"], *, photo_count: int
) -> Float[np.ndarray, " p"]:
    """Votes for every photo; -inf for photos that own none of the neighbours.

    ``photos`` [q, k] says which photo owns each neighbour of each query descriptor, -1 for none that can be found;
    ``similarities`` [q, k] are dot products in descending order, -inf behind the last neighbour. Descriptor i compares
    photo p, by its best neighbour there, with its k-th or last neighbour, which has the similarity that any collection
    offers. The margin is

        u_ip = max_{j of p} s_ij - s_ik

    and the vote for the photo is

        v_ip = u_ip^2 / sum_p' u_ip'

    that is, the margin times the photo's share of all margins of the descriptor. So a descriptor votes once for a
    photo, however often a pattern repeats there. Its votes sum to at most its best margin. A descriptor that is
    equally near to many photos gives almost nothing to each of them.
    """
    found = photos >= 0
    is_neighbour = similarities > -np.inf
    furthest = np.min(np.where(is_neighbour, similarities, np.inf), axis=1, keepdims=True, initial=np.inf)
    queries = np.broadcast_to(np.arange(len(photos))[:, None], photos.shape)[found]
    # The first of equal (query, photo) pairs is the best neighbour: rows are sorted.
    pair, first = np.unique(queries * photo_count + photos[found], return_index=True)
    margins = np.broadcast_to(similarities - furthest, photos.shape)[found][first].astype(np.float64)
    query, photo = np.divmod(pair, photo_count)
    totals = np.bincount(query, weights=margins, minlength=len(photos))
    cast = margins**2 / np.maximum(totals[query], 1e-12)
    scores = np.bincount(photo, weights=cast, minlength=photo_count)
    seen = np.bincount(photo, minlength=photo_count) > 0
    return np.where(seen, scores, -np.inf).astype(np.float32)


def rank_by_votes(neighbours: Neighbours) -> RankedPhotos:
    """The photos that own neighbours, most votes first; the lower number first if votes are equal.

    Numbers of photos may have gaps.
    """
    numbers, photos = _without_gaps(neighbours.photos)
    if not len(numbers):
        return RankedPhotos(numbers, np.zeros(0, np.float32))
    scores = votes(photos, neighbours.similarities, photo_count=len(numbers))
    best = ranking(scores)
    return RankedPhotos(numbers[best], scores[best])


def _without_gaps(photos: Int[np.ndarray, "q k"]) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, "q k"]]:
    """The numbers of the photos that occur, ascending, and for each entry its place among them; -1 stays -1."""
    count = int(photos.max(initial=-1)) + 1
    if count > _LARGEST_TABLE:
        numbers, places = np.unique(photos, return_inverse=True)
        missing = int(numbers[0] < 0)
        return numbers[missing:].astype(np.int64), places.reshape(photos.shape) - missing
    occurs = np.zeros(count + 1, bool)
    occurs[photos] = True  # -1 marks the last entry
    occurs[-1] = False
    place = np.cumsum(occurs) - 1
    place[-1] = -1
    return np.flatnonzero(occurs), place[photos]


def rank_by_scores(scores: Float[np.ndarray, " p"]) -> RankedPhotos:
    """All photos with a score that is not -inf, the highest first; the lower number first if scores are equal."""
    best = ranking(scores)
    return RankedPhotos(best, scores[best])


def ranking(scores: Float[np.ndarray, " p"]) -> Int[np.ndarray, " r"]:
    """Places of the photos with a score that is not -inf, highest first, the earlier of equal ones first."""
    return np.argsort(-scores, kind="stable")[: np.isfinite(scores).sum()]
