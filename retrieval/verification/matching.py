"""Putative matches between the descriptors of two photos, as one masked matrix product."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Int


class Matches(NamedTuple):
    """For every descriptor of the first photo, its partner in the second.

    Attributes:
        index: int32 [n], row of the partner; 0 where there is none.
        where: bool [n], True where the row has a partner that passed every test.
        distance: float32 [n], Euclidean distance to the partner, between 0 and 2; infinite where there is none.
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
    """Match descriptors that are each other's nearest neighbour.

    ``a`` [n, d] and ``b`` [m, d] are unit-length rows, so that distance² = 2 - 2 cosine; rows where ``where_a`` or
    ``where_b`` is False neither match nor count as a neighbour. Equal distances go to the lower row. Pure: runs under
    ``jit``, and under ``vmap`` for a batch of pairs.

    Args:
        max_distance: largest Euclidean distance of a match (inclusive).
        ratio: a match's distance must be below ``ratio`` times the distance to the second nearest row of ``b`` (Lowe,
            2004, section 7.1). A row that is alone in ``b`` has no rival and passes.

    >>> import numpy as np
    >>> matches = mutual_nearest(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[[2, 0]])
    >>> matches.index.tolist(), matches.where.tolist()
    ([1, 0, 0], [True, False, True])
    """
    n, m = a.shape[0], b.shape[0]
    if n == 0 or m == 0:
        return Matches(jnp.zeros(n, jnp.int32), jnp.zeros(n, bool), jnp.full(n, jnp.inf, jnp.float32))
    known_a = jnp.ones(n, bool) if where_a is None else jnp.asarray(where_a)
    known_b = jnp.ones(m, bool) if where_b is None else jnp.asarray(where_b)
    # Full precision: the default of accelerators rounds the factors, and near neighbours would change places.
    cosine = jnp.matmul(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32).T, precision=lax.Precision.HIGHEST)
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


def _first_largest(values: Float[Array, "n m"], *, axis: int) -> Int[Array, " k"]:
    """argmax as a maximum and a minimum, which processors do many at a time: twice as fast on CPU."""
    largest = jnp.max(values, axis=axis, keepdims=True)
    places = lax.broadcasted_iota(jnp.int32, values.shape, axis)
    return jnp.min(jnp.where(values >= largest, places, values.shape[axis] - 1), axis=axis)


def _distance(cosine: Float[Array, " n"]) -> Float[Array, " n"]:
    return jnp.sqrt(jnp.maximum(2.0 - 2.0 * cosine, 0.0))
