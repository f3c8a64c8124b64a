"""Pooling of all cells of a map into one vector per photo: GeM, and by attention.

The scores of the attention are in ``delf_jax.extraction.attention``.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float


def gem(
    features: Float[Array | np.ndarray, "*b n c"], where: Bool[Array | np.ndarray, "*b n"], p: float | Array = 3.0
) -> Float[Array, "*b c"]:
    """Generalised mean of non-negative features over the usable cells: ``mean(max(f, 1e-6) ** p) ** (1 / p)``.

    p = 1 is the mean, large p approaches the maximum; 3 is usual (Radenovic et al., GeM; DELG section 3.1).

    Args:
        features: float32 [..., n, C], cells of one layer behind a ReLU.
        where: bool [..., n], the usable cells.
        p: the exponent, a number or a trained scalar.

    Returns:
        float32 [..., C], not normalised; close to 0 if no cell is usable.
    """
    powers = jnp.where(where[..., None], jnp.maximum(features, 1e-6) ** p, 0)
    count = jnp.maximum(where.sum(axis=-1), 1)[..., None]
    return jnp.maximum(powers.sum(axis=-2) / count, 1e-6**p) ** (1 / p)


def attentive_pool(
    features: Float[Array, "b n c"],
    scores: Float[Array, "b n"],
    where: Bool[Array, "b n"],
    *,
    pooling: Literal["sum", "mean", "unit"],
    cells: float | Array = 1.0,
    temperature: float = 1.0,
) -> Float[Array, "b c"]:
    """One vector per photo from weighted cells.

    ``sum``: sum_n alpha_n f_n, un-normalised (DELF equation 2). ``mean``: mean_n alpha_n f_n / ||f_n|| (official code).
    ``unit``: the sum scaled to length ``temperature``, so that only directions of features can tell classes apart.

    Args:
        features: [b, n, C], scaled so that their root mean square is about 1.
        scores: alpha, non-negative.
        where: usable cells.
        pooling: which pooling.
        cells: a constant that ``sum`` is divided by, so that the classifier starts at the right order of magnitude;
            it is part of W. ``mean`` is multiplied by sqrt(C) for the same reason.
        temperature: length of the result of ``unit``.
    """
    weights = jnp.where(where, scores, 0)
    if pooling == "mean":
        features = unit_length(features) * features.shape[-1] ** 0.5
        return jnp.einsum("bn,bnc->bc", weights, features) / jnp.maximum(where.sum(axis=-1), 1)[:, None]
    total = jnp.einsum("bn,bnc->bc", weights, features, precision=lax.Precision.HIGHEST)
    return temperature * unit_length(total) if pooling == "unit" else total / cells


def unit_length(vectors: Float[Array, "*b c"], *, axis: int = -1) -> Float[Array, "*b c"]:
    """The vectors along ``axis`` divided by their L2 norms; a zero vector stays zero."""
    return vectors * lax.rsqrt(jnp.maximum(jnp.square(vectors).sum(axis=axis, keepdims=True), 1e-12))
