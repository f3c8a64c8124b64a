"""ScaNN: a tree of partitions, anisotropic hashing, and reordering (Guo et al., ICML 2020), with its parameters."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scann.scann_ops.py import scann_ops_pybind
from scann.scann_ops.py.scann_builder import ReorderType

from delf_jax.cores import usable_cores
from delf_jax.native_log import native_log_hidden
from retrieval.indexing.backends import Backend

# The parameters below are chosen for this many neighbours of each query.
NEIGHBOURS = 60

# Below this number of descriptors all dot products are computed: a tree would not save time.
EXHAUSTIVE_BELOW = 10_000

# ScaNN's builder: descriptors that train the tree, dimensions of one 4-bit code, and the two quantisation losses.
TRAINING_SAMPLE_SIZE = 200_000
DIMENSIONS_PER_BLOCK = 2
ANISOTROPIC_QUANTIZATION_THRESHOLD = 0.2
AVQ = 2.0

# The searcher is trained anew when this share of its descriptors has changed.
REBUILD_SHARE = 0.2

# Queries that one thread takes at a time.
SMALLEST_BATCH, LARGEST_BATCH = 16, 256


class ScannSearch(NamedTuple):
    """ScaNN's parameters of a search; recall and time depend on them.

    Attributes:
        num_leaves_to_search: partitions whose codes are scored, those with the nearest centres.
        reorder: descriptors with the best codes whose dot products are computed again, for ``NEIGHBOURS`` neighbours.
    """

    num_leaves_to_search: int
    reorder: int = 270


def num_leaves(count: int) -> int:
    """Partitions of a tree of ``count`` descriptors."""
    return 2 * math.isqrt(count)


def default_search(count: int) -> ScannSearch:
    """Parameters that find at least 95 % of the 60 nearest neighbours among ``count`` descriptors."""
    return ScannSearch(math.ceil(9.5 * count ** (1 / 6)))


class ScannBackend(Backend):
    """ScaNN with parameters chosen from the number of descriptors.

    Below 10 000 descriptors all dot products are computed. Above, the tree has 2 sqrt(n) partitions. A search scores
    the 4-bit codes of 9.5 n^(1/6) of them, and computes the dot products of the best again in bfloat16, which leaves
    similarities right to about 0.001. The parameters were chosen on a million descriptors so that 95 % of the 60
    nearest neighbours are found (``python -m benchmarks.search``). ScaNN holds about 2.5 bytes a dimension of each
    descriptor.

    Attributes:
        parameters: of every search from now on.
    """

    name = "scann"

    def __init__(self, searcher: Any, rows: Int[np.ndarray, " n"], changed: int) -> None:
        self._searcher = searcher
        self._rows = rows
        self._changed = changed
        self.parameters = default_search(len(rows))

    @classmethod
    def build(cls, descriptors: Float[np.ndarray, "n d"]) -> "ScannBackend":
        """Trains the partitions and the codes, and indexes the descriptors."""
        count = len(descriptors)
        vectors = np.ascontiguousarray(descriptors, np.float32)
        builder = scann_ops_pybind.builder(vectors, min(NEIGHBOURS, count), "dot_product")
        if count < EXHAUSTIVE_BELOW:
            builder = builder.score_brute_force()
        else:
            parameters = default_search(count)
            # AVQ moves the centres to where they keep dot products with the descriptors of their partition best.
            builder = builder.tree(
                num_leaves(count),
                parameters.num_leaves_to_search,
                training_sample_size=min(count, TRAINING_SAMPLE_SIZE),
                avq=AVQ,
            )
            builder = builder.score_ah(
                DIMENSIONS_PER_BLOCK, anisotropic_quantization_threshold=ANISOTROPIC_QUANTIZATION_THRESHOLD
            )
            builder = builder.reorder(parameters.reorder, quantize=ReorderType.BFLOAT16)
        with native_log_hidden():  # no setting of ScaNN stops its messages; failures are exceptions
            return cls(builder.build().searcher, np.arange(count), 0)

    def search(
        self, queries: Float[np.ndarray, "q d"], k: int
    ) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """The k best rows of every query; see ``Backend.search``."""
        k = min(k, len(self._rows))
        if not len(queries):
            return np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
        leaves, reorder = self.parameters
        reorder = max(reorder, k * reorder // NEIGHBOURS)
        vectors = np.ascontiguousarray(queries, np.float32)
        found, similarities = self._searcher.search_batched(
            vectors, k, reorder, leaves, True, _batch(len(vectors), usable_cores())
        )
        missing = np.isnan(similarities)
        return np.where(missing, -1, self._rows[found]), np.where(missing, -np.inf, similarities)

    def update(self, removed: Int[np.ndarray, " m"], descriptors: Float[np.ndarray, "n d"]) -> "ScannBackend":
        """Changes the searcher in place, or trains a new one when a fifth of the rows has changed."""
        kept = len(self._rows) - len(removed)
        added = np.ascontiguousarray(descriptors[kept:], np.float32)
        changed = self._changed + len(removed) + len(added)
        if changed > REBUILD_SHARE * len(descriptors):
            return self.build(descriptors)
        rows = self._rows.copy()
        places = np.empty_like(rows)
        places[rows] = np.arange(len(rows))
        last = len(rows) - 1
        for row in removed:
            # ScaNN moves its last datapoint into the gap; the two maps follow.
            place = places[row]
            self._searcher.delete([int(place)])
            rows[place] = rows[last]
            places[rows[last]] = place
            last -= 1
        rows = rows[: last + 1]
        rows -= np.searchsorted(removed, rows)
        if len(added):
            self._searcher.upsert([None] * len(added), added, len(added))
        rows = np.concatenate([rows, np.arange(kept, len(descriptors))])
        return type(self)(self._searcher, rows, changed)

    def save(self, folder: Path) -> None:
        """Writes ScaNN's files, and the row of each of its datapoints."""
        self._searcher.serialize(str(folder.resolve()), True)
        np.save(folder / "rows.npy", self._rows)
        np.save(folder / "changed.npy", np.int64(self._changed))

    @classmethod
    def open(cls, folder: Path, descriptors: Float[np.ndarray, "n d"]) -> "ScannBackend":
        """Reads what ``save`` wrote."""
        # scann.load_searcher would unpickle a file of document ids if there is one; this reads the assets alone.
        assets = (folder / "scann_assets.pbtxt").read_text()
        with native_log_hidden():
            searcher = scann_ops_pybind.scann_pybind.ScannNumpy(str(folder.resolve()), assets)
        rows = np.load(folder / "rows.npy", allow_pickle=False)
        return cls(searcher, rows, int(np.load(folder / "changed.npy", allow_pickle=False)))


def _batch(queries: int, cores: int) -> int:
    """Queries that a thread takes at a time: equal shares, and large ones, whose queries share the codes they read."""
    turns = math.ceil(queries / (cores * LARGEST_BATCH))
    return max(SMALLEST_BATCH, math.ceil(queries / (cores * turns)))
