"""Local features to ranked, verified, explained matches.

``Index`` finds photos that show the same thing as a query, ``ShardedIndex`` does so in a collection that outgrows one
process, ``match`` compares two photos; ``ransac`` and ``matching``
are the pure JAX functions underneath, ``metrics`` says how good it all is, ``draw`` shows it.
"""

from retrieval import draw
from retrieval.evaluation import metrics
from retrieval.indexing.index import Index
from retrieval.pairs import match_pairs, retrieved_pairs
from retrieval.sharding.sharded_index import ShardedIndex, open_index
from retrieval.verification import matching, ransac
from retrieval.verification.confidence import DEFAULT_THRESHOLD
from retrieval.verification.verify import Match, SearchResult, match

__all__ = [
    "DEFAULT_THRESHOLD",
    "Index",
    "Match",
    "SearchResult",
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
