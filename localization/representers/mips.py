"""Maximum inner product search (MIPS) over very many points, with ScaNN.

One index of alpha_i fhat_i answers ``value`` and ``centred`` queries, and the negated query finds inhibitory points;
``local`` needs an index of fhat_i alone. The points that are found are scored again from the stored features: only the
choice of points is approximate, their values are exact.
"""

import importlib.util
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from delf_jax.errors import PredictorError

_TRAINING_SAMPLE = 20_000
# Up to this number all points are scored. A tree would miss many of the best points for centred queries, which do not
# look like the points themselves.
_MOST_WITHOUT_TREE = 1_000_000


def is_installed() -> bool:
    """Whether ScaNN is installed; it does not have a wheel for every platform."""
    return importlib.util.find_spec("scann") is not None


class PointIndex:
    """Finds the largest inner products of a query with weighted unit features.

    Args:
        unit: float16 or float32 [n, C], unit features.
        weights: [n], the factor of each row (alpha_i, or 1).

    Raises:
        PredictorError: ScaNN is not installed.
    """

    def __init__(self, unit: Float[np.ndarray, "n c"], weights: Float[np.ndarray, " n"]) -> None:
        try:
            import scann
        except ImportError as error:
            raise PredictorError("ScaNN is not installed; explain with index='exact'") from error
        # Importance is about 1 / (number of positions): scaled to 1 to stay accurate in the quantiser's float32.
        scale = 1 / max(float(np.abs(weights).max(initial=0)), 1e-30)
        vectors = unit.astype(np.float32) * (weights * scale).astype(np.float32)[:, None]
        builder: Any = scann.scann_ops_pybind.builder(vectors, 10, "dot_product")
        sample = min(len(vectors), _TRAINING_SAMPLE)
        if len(vectors) > _MOST_WITHOUT_TREE:
            leaves = math.isqrt(len(vectors))
            builder = builder.tree(leaves, leaves // 2, training_sample_size=sample)
        # Not the anisotropic quantiser: it favours queries parallel to the points, and centred queries are not.
        self._searcher: Any = builder.score_ah(2, training_sample_size=sample).build()
        self._size = len(vectors)

    def nearest(self, query: Float[np.ndarray, " c"], count: int) -> Int[np.ndarray, " k"]:
        """Rows of about the ``count`` largest inner products with ``query``, best first."""
        rows, products = self._searcher.search(query.astype(np.float32), final_num_neighbors=min(count, self._size))
        return np.asarray(rows, np.int64)[np.isfinite(products)]
