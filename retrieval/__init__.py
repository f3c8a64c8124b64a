"""From local features to ranked and verified matches.

``Index`` finds the photos that show the same thing as a query, and ``ShardedIndex`` does so in a collection that is too
large for one process. ``match`` compares two photos. ``ransac`` and ``matching`` are the pure JAX functions behind
them, ``metrics`` measures rankings, and ``draw`` makes pictures of matches.
"""

from retrieval import draw
from retrieval.evaluation import metrics
from retrieval.indexing.index import Index
from retrieval.pairs import match_pairs, retrieved_pairs
from retrieval.search import SearchableIndex, SearchResult, SearchSettings
from retrieval.sharding.sharded_index import ShardedIndex, open_index
from retrieval.verification import matching, ransac
from retrieval.verification.acceptance_threshold import DEFAULT_THRESHOLD
from retrieval.verification.verify import Match, match

__all__ = [
    "DEFAULT_THRESHOLD",
    "Index",
    "Match",
    "SearchResult",
    "SearchSettings",
    "SearchableIndex",
    "ShardedIndex",
    "draw",
    "match",
    "match_pairs",
    "matching",
    "metrics",
    "open_index",
    "ransac",
    "retrieved_pairs",
]
