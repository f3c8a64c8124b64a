"""Putative matches: mutual nearest neighbours between the descriptors of photos, by one masked matrix product."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Int

__all__ = ["Matches", "mutual_nearest"]


class Matches(NamedTuple):
    """For every descriptor of the first photo, its partner in the second.

    Attributes:
        index: int32 [n], row of the partner; 0 without a partner.
        where: bool [n], whether the row has a partner that passed every test.
        distance: float32 [n], Euclidean distance to the partner, between 0 and 2; infinite without a partner.
    """

    index: Int[Array, " n"]  # type: ignore[assignment]  # the field's name, which hides tuple.index
    where: Bool[Array, " n"]
    distance: Float[Array, " n"]


def mutual_nearest(
    a: Float[Array | np.ndarray, "n d"],
    b: Float[Array | np.ndarray, "m d"],
    *,
    where_a: Bool[Array | np.ndarray, " n"] | None = None,
    where_b: Bool[Array | np.ndarray, " m"] | None = None,
    max_distance: float | None = None,
    ratio: float | None = None,
) -> Matches:
    """Matches descriptors that are each other's nearest neighbour.

    Of equal distances, the lower row is the nearest. Descriptors with NaN or infinite values never match. The function
    is pure: it runs under ``jit``, and under ``vmap`` for a batch of pairs.

    Args:
        a: descriptors [n, d] of the first photo, of unit length, so that distance² = 2 - 2 cosine.
        b: descriptors [m, d] of the second photo.
        where_a: rows of ``a`` that count; the others neither match nor are neighbours. All if not given.
        where_b: the same for ``b``.
        max_distance: largest Euclidean distance of a match (inclusive).
        ratio: a match's distance must be below ``ratio`` times the distance to the second nearest row of ``b`` (Lowe,
            2004, section 7.1). A row that is alone in ``b`` passes.

    >>> import numpy as np
    >>> matches = mutual_nearest(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[[2, 0]])
    >>> matches.index.tolist(), matches.where.tolist()
    ([1, 0, 0], [True, False, True])
    """
    n, m = a.shape[0], b.shape[0]
    if n == 0 or m == 0:
        return Matches(jnp.zeros(n, jnp.int32), jnp.zeros(n, bool), jnp.full(n, jnp.inf, jnp.float32))
    a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    known_a, known_b = (jnp.isfinite(rows).all(axis=1) for rows in (a, b))
    known_a = known_a if where_a is None else known_a & where_a
    known_b = known_b if where_b is None else known_b & where_b
    # Accelerators round the factors by default, which would change the order of near neighbours.
    cosine = jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)
    cosine = jnp.where(known_a[:, None] & known_b, cosine, -jnp.inf)
    nearest, nearest_back = _first_largest(cosine, axis=1), _first_largest(cosine, axis=0)
    rows = jnp.arange(n)
    distance = _distance(cosine[rows, nearest])
    found = known_a & jnp.isfinite(distance) & (nearest_back[nearest] == rows)
    if max_distance is not None:
        found &= distance <= max_distance
    if ratio is not None:
        rivals = cosine.at[rows, nearest].set(-jnp.inf)
        found &= distance < ratio * _distance(jnp.max(rivals, axis=1))
    index = jnp.where(found, nearest, 0).astype(jnp.int32)
    return Matches(index, found, jnp.where(found, distance, jnp.inf))


@jax.jit
def nearest_in_photos(
    photos: tuple[Float[Array, "c m d"], Bool[Array, "c m"]],
    count: Int[Array, ""],
    query: Float[Array, "n d"],
    where_query: Bool[Array, " n"],
) -> Matches:
    """``mutual_nearest`` of one query in each of the first ``count`` photos: the fields are [c, n]."""
    shape = len(photos[0]), len(query)

    def pair(i: Array, found: Matches) -> Matches:
        new = mutual_nearest(query, photos[0][i], where_a=where_query, where_b=photos[1][i])
        return Matches(*(x.at[i].set(field) for x, field in zip(found, new, strict=True)))

    nothing = Matches(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(shape))
    return lax.fori_loop(0, count, pair, nothing)


def _first_largest(values: Float[Array, "n m"], *, axis: int) -> Int[Array, " k"]:
    """argmax, computed by a maximum and a minimum, which are vectorised: twice as fast on a CPU."""
    largest = jnp.max(values, axis=axis, keepdims=True)
    places = lax.broadcasted_iota(jnp.int32, values.shape, axis)
    return jnp.min(jnp.where(values >= largest, places, values.shape[axis] - 1), axis=axis)


def _distance(cosine: Float[Array, " n"]) -> Float[Array, " n"]:
    return jnp.sqrt(jnp.maximum(2.0 - 2.0 * cosine, 0.0))
