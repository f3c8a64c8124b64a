"""Exact search: all dot products, on the device."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from retrieval.indexing.backends import Backend
from retrieval.nearest import QUERIES, blocked, top_neighbours


class ExactBackend(Backend):
    """All dot products: exact and deterministic. The device holds 4 bytes a dimension of each descriptor."""

    name = "exact"

    def __init__(self, descriptors: Float[np.ndarray, "n d"]) -> None:
        self._count = len(descriptors)
        self._blocks = blocked(descriptors)

    @classmethod
    def build(cls, descriptors: Float[np.ndarray, "n d"]) -> "ExactBackend":
        """Copies the descriptors to the device."""
        return cls(descriptors)

    def search(
        self, queries: Float[np.ndarray, "q d"], k: int
    ) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """The k best rows of every query; see ``Backend.search``."""
        k = min(k, self._count)
        ids, similarities = [np.zeros((0, k), np.int64)], [np.zeros((0, k), np.float32)]
        for start in range(0, len(queries), QUERIES):
            part = queries[start : start + QUERIES]
            # Powers of two, so that photos with any number of features share a few compiled programs.
            padded = np.zeros((1 << (len(part) - 1).bit_length(), queries.shape[1]), np.float32)
            padded[: len(part)] = part
            found, scores = top_neighbours(padded, self._blocks, np.int32(self._count), k=k)
            ids.append(np.asarray(found, np.int64)[: len(part)])
            similarities.append(np.asarray(scores)[: len(part)])
        return np.concatenate(ids), np.concatenate(similarities)

    def update(self, removed: Int[np.ndarray, " m"], descriptors: Float[np.ndarray, "n d"]) -> "ExactBackend":
        """Copies the new rows to the device."""
        return type(self)(descriptors)

    def save(self, folder: Path) -> None:
        """Writes nothing: this backend needs only the descriptor file of the index."""

    @classmethod
    def open(cls, folder: Path, descriptors: Float[np.ndarray, "n d"]) -> "ExactBackend":
        """Copies the index's descriptors to the device."""
        return cls(descriptors)
