"""The nearest descriptors of a query: exact ones by blocked matrix products and a running top-k, and merged ones."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

# Descriptors of one block, and the most queries of one call: they bound the memory of a search.
ROWS = 4096
QUERIES = 1024


class Neighbours(NamedTuple):
    """For each of q descriptors of a query its k nearest descriptors, and which photos own those.

    Attributes:
        photos: int [q, k], numbers of the photos; -1 if fewer than k neighbours were found.
        similarities: float32 [q, k], dot products, descending.
    """

    photos: Int[np.ndarray, "q k"]
    similarities: Float[np.ndarray, "q k"]


def merge_neighbours(parts: Sequence[Neighbours], count: int) -> Neighbours:
    """The nearest ``count`` of several indexes: those that one index of all their photos would find.

    Of equal similarities that of the photo with the lower number comes first.
    """
    photos, similarities = (np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True))
    nearest = np.lexsort((photos, -similarities), axis=-1)[:, :count]
    return Neighbours(np.take_along_axis(photos, nearest, 1), np.take_along_axis(similarities, nearest, 1))


@functools.partial(jax.jit, static_argnames="k")
def top_neighbours(
    queries: Float[Array, "q d"], blocks: Float[Array, "b r d"], count: Int[Array, ""], *, k: int
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """The k largest dot products of every query over the first ``count`` rows: (ids int32, similarities float32).

    Memory is bounded by one block of scores, ``[q, r + k]``. Among equal similarities the lower id comes
    first. Products that are NaN or infinite do not count; where fewer than k are left, the id is -1.
    """
    rows = blocks.shape[1]

    def step(
        best: tuple[Int[Array, "q k"], Float[Array, "q k"]], block: tuple[Int[Array, ""], Float[Array, "r d"]]
    ) -> tuple[tuple[Int[Array, "q k"], Float[Array, "q k"]], None]:
        start, vectors = block
        ids = start + jnp.arange(rows, dtype=jnp.int32)
        scores = jnp.matmul(queries, vectors.T, precision=lax.Precision.HIGHEST)
        # A NaN would count as the largest.
        scores = jnp.where((ids < count) & jnp.isfinite(scores), scores, -jnp.inf)
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
