"""Exact search: blocked matrix products and a running top-k, in JAX."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from retrieval.indexing.backends import Backend

ROWS = 4096
QUERIES = 1024


@functools.partial(jax.jit, static_argnames="k")
def top_neighbours(
    queries: Float[Array, "q d"], blocks: Float[Array, "b r d"], count: Int[Array, ""], *, k: int
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """The k largest dot products of every query over the first ``count`` rows: (ids int32, similarities float32).

    Memory is bounded by one block of scores, ``[q, r + k]``. Among equal similarities the lower id comes first.
    """
    rows = blocks.shape[1]

    def step(
        best: tuple[Int[Array, "q k"], Float[Array, "q k"]], block: tuple[Int[Array, ""], Float[Array, "r d"]]
    ) -> tuple[tuple[Int[Array, "q k"], Float[Array, "q k"]], None]:
        start, vectors = block
        ids = start + jnp.arange(rows, dtype=jnp.int32)
        scores = jnp.matmul(queries, vectors.T, precision=lax.Precision.HIGHEST)
        scores = jnp.where(ids < count, scores, -jnp.inf)
        similarities, places = lax.top_k(jnp.concatenate([best[1], scores], axis=1), k)
        joined = jnp.concatenate([best[0], jnp.broadcast_to(ids, scores.shape)], axis=1)
        return (jnp.take_along_axis(joined, places, axis=1), similarities), None

    none_yet = (jnp.full((len(queries), k), -1, jnp.int32), jnp.full((len(queries), k), -jnp.inf, jnp.float32))
    starts = rows * jnp.arange(len(blocks), dtype=jnp.int32)
    return lax.scan(step, none_yet, (starts, blocks))[0]


def blocked(vectors: Float[np.ndarray, "n d"], rows: int = ROWS) -> Float[Array, "b r d"]:
    """The vectors as ``top_neighbours`` takes them: float32 on the device, in blocks of ``rows``, zeros at the end."""
    count, dimension = vectors.shape
    padded = np.zeros((-(-count // rows) * rows, dimension), np.float32)
    padded[:count] = vectors
    return jnp.asarray(padded.reshape(-1, rows, dimension))


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
