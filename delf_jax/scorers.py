"""Attention scorers: dense features -> one non-negative score a cell.

``learned``     softplus(conv1x1(relu(conv1x1(f)))), the trained attention (DELF section 3.3; official layers).
``foreground``  max(cos(f, w*), 0) * ||f|| = max(<f, w*>, 0): ``localization``'s closed form, training-free.
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
    """Scores of un-normalised features.

    Args:
        features: float32 [..., C], the dense features of one layer.
        head: arrays of the head file; ``foreground`` reads ``head["foreground"]`` [C] (unit length), ``learned`` reads
            ``head["attention"]``: hidden_kernel [C, 512], hidden_bias [512], kernel [512], bias [].
        scorer: which one.

    Returns:
        float32 [...], non-negative.
    """
    precision = lax.Precision.HIGHEST
    if scorer == "norm":
        return jnp.linalg.norm(features, axis=-1)
    if scorer == "foreground":
        return jnp.maximum(jnp.matmul(features, head["foreground"], precision=precision), 0)
    attention = head["attention"]
    hidden = jnp.matmul(features, attention["hidden_kernel"], precision=precision) + attention["hidden_bias"]
    logits = jnp.matmul(jax.nn.relu(hidden), attention["kernel"], precision=precision) + attention["bias"]
    return jax.nn.softplus(logits)
