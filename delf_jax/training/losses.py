"""Losses: one number per photo."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from delf_jax.models.pooling import unit_length

ARCFACE_MARGIN = 0.1
ARCFACE_SCALE = 45.25


def cross_entropy(
    logits: Float[Array, "b k"], labels: Int[Array, " b"], *, smoothing: float = 0.0
) -> Float[Array, " b"]:
    """``-sum_k t_k log softmax(logits)_k`` with t = 1 - smoothing at the label, plus smoothing / K everywhere.

    A row of label -1 has no photo; ignore its number.
    """
    target = jax.nn.one_hot(labels, logits.shape[-1]) * (1 - smoothing) + smoothing / logits.shape[-1]
    return -(target * jax.nn.log_softmax(logits)).sum(axis=-1)


def arcface_logits(
    embeddings: Float[Array, "b d"],
    prototypes: Float[Array, "d k"],
    labels: Int[Array, " b"],
    *,
    margin: float = ARCFACE_MARGIN,
    scale: float = ARCFACE_SCALE,
) -> Float[Array, "b k"]:
    """``scale * cos(theta + margin [k is the label])`` for theta, the angle between photo and class (DELG section 3.2).

    Beyond theta = pi - margin the cosine would rise again; there the margin is left out.
    """
    cosines = jnp.matmul(unit_length(embeddings), unit_length(prototypes, axis=0), precision=lax.Precision.HIGHEST)
    # The arc cosine has no finite slope at -1 and 1.
    angles = jnp.arccos(jnp.clip(cosines, -1 + 1e-6, 1 - 1e-6))
    pushed = jnp.where(angles <= jnp.pi - margin, jnp.cos(angles + margin), cosines)
    return scale * jnp.where(jax.nn.one_hot(labels, cosines.shape[-1], dtype=bool), pushed, cosines)


def reconstruction(
    features: Float[Array, "b n c"], expanded: Float[Array, "b n c"], where: Bool[Array, "b n"]
) -> Float[Array, " b"]:
    """Mean squared error over usable cells and channels between features and the autoencoder's output."""
    squares = jnp.square(expanded - lax.stop_gradient(features)).mean(axis=-1)
    return jnp.where(where, squares, 0).sum(axis=-1) / jnp.maximum(where.sum(axis=-1), 1)
