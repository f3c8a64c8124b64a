"""From local features to ranked and verified matches.

``Index`` finds the photos that show the same thing as a query, and ``ShardedIndex`` does so in a collection that is too
large for one process. ``group`` finds the photos of a collection that show the same thing. ``match`` compares two
photos. ``ransac`` and ``matching`` are the pure JAX functions behind them, ``calibration`` chooses when an index
accepts a match, ``metrics`` measures rankings, ``group_scores`` groups, and ``draw`` makes pictures of matches.
"""

from typing import TYPE_CHECKING

from delf_jax.on_first_use import imported_on_first_use

if TYPE_CHECKING:
    from retrieval import calibration, draw
    from retrieval.evaluation import metrics
    from retrieval.grouping.groups import Group, Grouping, group
    from retrieval.grouping.measures import group_scores
    from retrieval.indexing.index import Index
    from retrieval.pairs import match_pairs, retrieved_pairs
    from retrieval.search import SearchableIndex, SearchResult, SearchSettings
    from retrieval.sharding.sharded_index import ShardedIndex, open_index
    from retrieval.verification import matching, ransac
    from retrieval.verification.acceptance_threshold import DEFAULT_THRESHOLD
    from retrieval.verification.verify import Match, match

__all__ = [
    "DEFAULT_THRESHOLD",
    "Group",
    "Grouping",
    "Index",
    "Match",
    "SearchResult",
    "SearchSettings",
    "SearchableIndex",
    "ShardedIndex",
    "calibration",
    "draw",
    "group",
    "group_scores",
    "match",
    "match_pairs",
    "matching",
    "metrics",
    "open_index",
    "ransac",
    "retrieved_pairs",
]

# Libraries of the index take half a second to import, and `delf-jax match` needs none: imported on first use (PEP 562).
_HOMES = {
    "DEFAULT_THRESHOLD": "verification.acceptance_threshold",
    "Group": "grouping.groups",
    "Grouping": "grouping.groups",
    "Index": "indexing.index",
    "Match": "verification.verify",
    "SearchResult": "search",
    "SearchSettings": "search",
    "SearchableIndex": "search",
    "ShardedIndex": "sharding.sharded_index",
    "calibration": "calibration",
    "draw": "draw",
    "group": "grouping.groups",
    "group_scores": "grouping.measures",
    "match": "verification.verify",
    "match_pairs": "pairs",
    "matching": "verification.matching",
    "metrics": "evaluation.metrics",
    "open_index": "sharding.sharded_index",
    "ransac": "verification.ransac",
    "retrieved_pairs": "pairs",
}

__getattr__ = imported_on_first_use(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
