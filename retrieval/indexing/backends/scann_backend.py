"""ScaNN: a tree of partitions, anisotropic hashing, exact reordering (Guo et al., ICML 2020)."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scann.scann_ops.py import scann_ops_pybind
from scann.scann_ops.py.scann_builder import ReorderType

from delf_jax.cores import usable_cores
from retrieval.indexing.backends import Backend

NEIGHBOURS = 60
EXHAUSTIVE_BELOW = 10_000
REBUILD_SHARE = 0.2
SMALLEST_BATCH, LARGEST_BATCH = 16, 256


class Effort(NamedTuple):
    """How far a search goes, on which recall and time depend.

    Attributes:
        partitions: searched by their codes, those of the nearest centres.
        rescored: descriptors scored again by themselves, those of the best codes, for ``NEIGHBOURS`` neighbours.
    """

    partitions: int
    rescored: int = 270


class ScannBackend(Backend):
    """ScaNN with parameters chosen from the number of descriptors.

    Below 10 000 rows all dot products are taken. Above, 2 sqrt(n) partitions, of which 9.5 n^(1/6) are searched with
    4-bit codes of two dimensions, and the best are scored again in bfloat16, which leaves similarities right to about
    0.001. Chosen on a million descriptors for 95 % of the 60 nearest neighbours (``python -m benchmarks.search``).
    Holds about 2.5 bytes a dimension a descriptor.

    Attributes:
        effort: of every search from now on.
    """

    name = "scann"

    def __init__(self, searcher: Any, rows: Int[np.ndarray, " n"], changed: int) -> None:
        self._searcher = searcher
        self._rows = rows
        self._changed = changed
        self.effort = default_effort(len(rows))

    @classmethod
    def build(cls, descriptors: Float[np.ndarray, "n d"]) -> "ScannBackend":
        """Trains partitions and codes, and indexes the descriptors."""
        count = len(descriptors)
        vectors = np.ascontiguousarray(descriptors, np.float32)
        builder = scann_ops_pybind.builder(vectors, min(NEIGHBOURS, count), "dot_product")
        if count < EXHAUSTIVE_BELOW:
            builder = builder.score_brute_force()
        else:
            effort = default_effort(count)
            # AVQ moves the centres to where dot products with the partition's descriptors are kept best.
            builder = builder.tree(
                2 * math.isqrt(count), effort.partitions, training_sample_size=min(count, 200_000), avq=2.0
            )
            builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2)
            builder = builder.reorder(effort.rescored, quantize=ReorderType.BFLOAT16)
        with _native_log_hidden():
            return cls(builder.build().searcher, np.arange(count), 0)

    def search(
        self, queries: Float[np.ndarray, "q d"], k: int
    ) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """The k best rows of every query; see ``Backend.search``."""
        k = min(k, len(self._rows))
        if not len(queries):
            return np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
        partitions, rescored = self.effort
        rescored = max(rescored, k * rescored // NEIGHBOURS)
        vectors = np.ascontiguousarray(queries, np.float32)
        found, similarities = self._searcher.search_batched(
            vectors, k, rescored, partitions, True, _batch(len(vectors), usable_cores())
        )
        missing = np.isnan(similarities)
        return np.where(missing, -1, self._rows[found]), np.where(missing, -np.inf, similarities)

    def update(self, removed: Int[np.ndarray, " m"], descriptors: Float[np.ndarray, "n d"]) -> "ScannBackend":
        """Changes the searcher in place, or rebuilds it once a fifth of the rows has changed since it was trained."""
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
            # ScaNN fills the gap with its last datapoint; the two maps follow.
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
        """Writes ScaNN's files and the map from its places to rows."""
        self._searcher.serialize(str(folder.resolve()), True)
        np.save(folder / "rows.npy", self._rows)
        np.save(folder / "changed.npy", np.int64(self._changed))

    @classmethod
    def open(cls, folder: Path, descriptors: Float[np.ndarray, "n d"]) -> "ScannBackend":
        """Reads what ``save`` wrote."""
        # scann.load_searcher would unpickle document ids if such a file lay there; this reads the assets alone.
        assets = (folder / "scann_assets.pbtxt").read_text()
        with _native_log_hidden():
            searcher = scann_ops_pybind.scann_pybind.ScannNumpy(str(folder.resolve()), assets)
        rows = np.load(folder / "rows.npy", allow_pickle=False)
        return cls(searcher, rows, int(np.load(folder / "changed.npy", allow_pickle=False)))


def default_effort(count: int) -> Effort:
    """What finds 95 % of the 60 nearest of ``count`` descriptors, or a little more."""
    return Effort(math.ceil(9.5 * count ** (1 / 6)))


def _batch(queries: int, cores: int) -> int:
    """Queries that a thread takes at once: equal shares, and large ones, whose queries share what they load."""
    turns = math.ceil(queries / (cores * LARGEST_BATCH))
    return max(SMALLEST_BATCH, math.ceil(queries / (cores * turns)))


@contextlib.contextmanager
def _native_log_hidden() -> Iterator[None]:
    """ScaNN writes its training notes straight to descriptor 2, which no setting stops; failures are exceptions."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
