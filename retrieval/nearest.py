"""The nearest descriptors of a query: exact ones by blocked matrix products and a running top-k, and merged ones."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

# Descriptors of one block, and the most queries of one call: they bound the memory of a search.
ROWS = 4096
QUERIES = 1024

# Neighbours that differ by less are equally near. Copies of a photo that were encoded anew (JPEG of quality 75 to 95)
# differ by 0.03 in the median; the 60 nearest among 157 000 descriptors of different photos by 0.06 at least.
LEAST_MARGIN = 0.04
# Lists that tell no photos apart are made four and then sixteen times as long.
LONGER = (4, 16)


class Neighbours(NamedTuple):
    """For each of q descriptors of a query its nearest descriptors, and which photos own those.

    Attributes:
        photos: int [q, k], numbers of the photos; -1 for photos that must not be found, and behind the last neighbour.
        similarities: float32 [q, k], dot products, descending; -inf behind the last neighbour.
    """

    photos: Int[np.ndarray, "q k"]
    similarities: Float[np.ndarray, "q k"]


def telling_neighbours(
    nearest: Callable[[Int[np.ndarray, " r"], int], Neighbours], queries: int, count: int, *, spare: int = 0
) -> Neighbours:
    """The ``count`` nearest descriptors of each descriptor of a query, and more where these tell no photos apart.

    Copies of one photo, or a pattern that repeats in one, can fill ``count`` places and hide every other photo. So a
    list goes on until it has two photos, and up to the first neighbour that is less similar than the best by
    ``LEAST_MARGIN``; but not beyond 16 times ``count``.

    Args:
        nearest: finds so many neighbours of some rows of the query.
        queries: number of descriptors of the query.
        count: shortest list, without those that must not be found.
        spare: so many more are found at first, in case that some of them must not be found.
    """
    asked = count + spare
    found = nearest(np.arange(queries), asked)
    lengths = _telling_lengths(found, count)
    for times in LONGER:
        short = np.flatnonzero((lengths == 0) & (found.similarities[:, -1] > -np.inf))
        if not len(short) or found.photos.shape[1] < asked:
            break
        asked = count * times
        found = _with_longer(found, short, nearest(short, asked))
        lengths = _telling_lengths(found, count)
    return _cut(found, lengths)


def merge_neighbours(parts: Sequence[Neighbours], count: int) -> Neighbours:
    """What ``telling_neighbours`` finds in one index of all photos, from what it found in several indexes.

    Of equal similarities that of the photo with the lower number comes first.
    """
    photos, similarities = (np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True))
    nearest = np.lexsort((photos, -similarities), axis=-1)[:, : count * LONGER[-1]]
    found = Neighbours(np.take_along_axis(photos, nearest, 1), np.take_along_axis(similarities, nearest, 1))
    return _cut(found, _telling_lengths(found, count))


def _telling_lengths(found: Neighbours, count: int) -> Int[np.ndarray, " q"]:
    """The shortest lists with ``count`` neighbours that can be found and tell photos apart; 0 where there is none."""
    photos, similarities = found
    can_be_found = photos >= 0
    best = np.arange(len(photos)), can_be_found.argmax(axis=1)
    two = np.logical_or.accumulate(can_be_found & (photos != photos[best][:, None]), axis=1)
    enough = two & (np.cumsum(can_be_found, axis=1) >= count)
    tells = enough & can_be_found & (similarities <= similarities[best][:, None] - LEAST_MARGIN)
    return np.where(tells.any(axis=1), tells.argmax(axis=1) + 1, 0)


def _with_longer(found: Neighbours, rows: Int[np.ndarray, " r"], longer: Neighbours) -> Neighbours:
    """Longer lists in some rows; the others end with places without a neighbour."""
    more = ((0, 0), (0, longer.photos.shape[1] - found.photos.shape[1]))
    photos = np.pad(found.photos, more, constant_values=-1)
    similarities = np.pad(found.similarities, more, constant_values=-np.inf)
    photos[rows], similarities[rows] = longer
    return Neighbours(photos, similarities)


def _cut(found: Neighbours, lengths: Int[np.ndarray, " q"]) -> Neighbours:
    """The lists up to these lengths; whole where the length is 0."""
    width = found.photos.shape[1]
    lengths = np.where(lengths == 0, width, lengths)
    width = lengths.max(initial=0)
    kept = np.arange(width) < lengths[:, None]
    photos, similarities = (column[:, :width] for column in found)
    return Neighbours(np.where(kept, photos, -1), np.where(kept, similarities, -np.inf))


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
