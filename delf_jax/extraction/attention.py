"""Attention scorers: dense features -> one non-negative score per cell.

``learned``     softplus(conv1x1(relu(conv1x1(f)))), the trained attention (DELF section 3.3, layers of the official
                code). With an autoencoder, relu(decode(encode(f))) takes the place of f (DELG section 3.3).
``foreground``  max(cos(f, w*), 0) * ||f|| = max(<f, w*>, 0): the closed form of ``localization``, without training.
``norm``        ||f||.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from delf_jax.settings import Scorer


def score(features: Float[Array | np.ndarray, "*b c"], head: Mapping[str, Any], scorer: Scorer) -> Float[Array, "*b"]:
    """Attention scores of features that are not normalised.

    Args:
        features: float32 or bfloat16 [..., C], the dense features of one layer; products are computed in their type.
        head: ``Head.arrays()``. ``foreground`` reads ``head["foreground"]`` [C] (unit length). ``learned`` reads
            ``head["attention"]``: hidden_kernel [C, h], hidden_bias [h], kernel [h], bias []; and, if the head has one,
            ``head["autoencoder"]``: encode_kernel [C, d], encode_bias [d], decode_kernel [d, C], decode_bias [C].
        scorer: which formula.

    Returns:
        float32 [...], non-negative.
    """
    if scorer == "norm":
        return jnp.linalg.norm(features.astype(jnp.float32), axis=-1)
    if scorer == "foreground":
        return jnp.maximum(_product(features, head["foreground"]), 0)
    attention = head["attention"]
    if "autoencoder" in head:
        features = _expanded(features, head["autoencoder"])
    hidden = jax.nn.relu(_product(features, attention["hidden_kernel"]) + attention["hidden_bias"])
    return jax.nn.softplus(_product(hidden.astype(features.dtype), attention["kernel"]) + attention["bias"])


def encoded(features: Float[Array | np.ndarray, "*b c"], autoencoder: Mapping[str, Any]) -> Float[Array, "*b d"]:
    """Features reduced by the encoder of the autoencoder, not normalised."""
    return _product(features, autoencoder["encode_kernel"]) + autoencoder["encode_bias"]


def _expanded(features: Float[Array | np.ndarray, "*b c"], autoencoder: Mapping[str, Any]) -> Float[Array, "*b c"]:
    decoded = _product(encoded(features, autoencoder).astype(features.dtype), autoencoder["decode_kernel"])
    return jax.nn.relu(decoded + autoencoder["decode_bias"]).astype(features.dtype)


def _product(features: Array | np.ndarray, kernel: Array | np.ndarray) -> Array:
    """``features @ kernel`` in the features' type, summed in float32."""
    kernel = jnp.asarray(kernel, features.dtype)
    return jnp.matmul(features, kernel, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
