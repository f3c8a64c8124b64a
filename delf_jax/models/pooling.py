"""Pooling of the cells of a map into one vector a photo."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def gem(
    features: Float[Array | np.ndarray, "*b n c"], where: Bool[Array | np.ndarray, "*b n"], p: float | Array = 3.0
) -> Float[Array, "*b c"]:
    """Generalised mean of non-negative features over the usable cells: ``mean(max(f, 1e-6) ** p) ** (1 / p)``.

    p = 1 is the mean, large p comes close to the maximum; 3 is usual (Radenovic et al., GeM; DELG section 3.1).

    Args:
        features: float32 [..., n, C], cells of one layer behind a ReLU.
        where: bool [..., n], cells that count.
        p: the exponent, a number or a trained scalar.

    Returns:
        float32 [..., C], un-normalised; without a usable cell all of them are close to 0.
    """
    powers = jnp.where(where[..., None], jnp.maximum(features, 1e-6) ** p, 0)
    count = jnp.maximum(where.sum(axis=-1), 1)[..., None]
    return jnp.maximum(powers.sum(axis=-2) / count, 1e-6**p) ** (1 / p)
