"""Pooling of all cells of a map into one vector per photo."""

import jax.numpy as jnp
import numpy as np
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
