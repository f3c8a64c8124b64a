"""Descriptors: features reduced by PCA or by a trained autoencoder, at unit length."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from delf_jax.extraction.attention import encoded
from delf_jax.extraction.pca import project


def describe(features: Float[Array | np.ndarray, "*b c"], head: Mapping[str, Any]) -> Float[Array, "*b d"]:
    """Unit-length descriptors of features that are not normalised.

    PCA: L2 normalisation, projection with optional whitening, L2 again (as in the official code). Autoencoder: the
    reduced feature, then L2 (DELG section 3.3); a head that has one uses it in place of the PCA. Without either, the
    descriptor is the L2-normalised feature, and a zero feature stays zero.

    Args:
        features: float32 [..., C].
        head: ``Head.arrays()``: ``autoencoder``, or ``pca_mean`` [C] and ``pca_projection`` [C, d] (whitening folded
            in), or neither.
    """
    if "autoencoder" in head:
        return _l2_normalise(encoded(features, head["autoencoder"]))
    unit = _l2_normalise(jnp.asarray(features))
    if "pca_projection" not in head:
        return unit
    return _l2_normalise(project(unit, head["pca_mean"], head["pca_projection"]))


def _l2_normalise(vectors: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    squared = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    return vectors * lax.rsqrt(jnp.maximum(squared, 1e-24))
