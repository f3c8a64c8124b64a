"""Learned whitening: the projection in which views of the same spot lie close, from sums over matching pairs.

Sources: Mikolajczyk and Matas, ICCV 2007 ("Improving descriptors for fast tree matching by optimal linear projection");
Radenovic, Tolias and Chum, ECCV 2016, section 3.3.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from delf_jax.extraction.pca import Pca, PcaStatistics

# Share of the same variance in all directions that is mixed into the differences of pairs; chosen on landmarks that
# were left out (benchmarks/NOTES.md). Without it directions that few pairs know decide.
SHRINKAGE = 0.7


@dataclasses.dataclass(frozen=True, eq=False)
class PairStatistics:
    """Sums over pairs of unit features that see the same spot; ``a + b`` are those of both sets together.

    Attributes:
        count: number of pairs.
        moment: float64 [C, C], the sum of the outer products of their differences.
    """

    count: int
    moment: Float[np.ndarray, "c c"]

    @classmethod
    def zero(cls, channels: int) -> "PairStatistics":
        """Statistics of no pairs."""
        return cls(0, np.zeros((channels, channels)))

    @classmethod
    def of(cls, a: Float[np.ndarray, "n c"], b: Float[np.ndarray, "n c"]) -> "PairStatistics":
        """Statistics of the pairs of rows of ``a`` and ``b``, unit vectors [n, C]."""
        differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
        return cls(len(differences), differences.T @ differences)

    def __add__(self, other: "PairStatistics") -> "PairStatistics":
        return PairStatistics(self.count + other.count, self.moment + other.moment)


def solve(features: PcaStatistics, pairs: PairStatistics, dimension: int, *, shrinkage: float = SHRINKAGE) -> Pca:
    """The projection to ``dimension`` components, the most telling first; fewer of them are its first rows.

    With W the inverse square root of the covariance D of the differences of pairs, it is the PCA of the features after
    W: of all directions, those in which features differ most in units of what views of one spot differ. D is mixed with
    ``shrinkage`` of an even covariance of the same trace. The rows are not orthogonal, and the variances are 1, because
    they say nothing more.

    Raises:
        ValueError: there are no pairs, or too few features for ``dimension``.
    """
    if not pairs.count:
        raise ValueError("no two photos are proved to show the same place; give photos that do")
    differences = pairs.moment / pairs.count
    channels = len(differences)
    even = np.trace(differences) / channels * np.eye(channels)
    values, vectors = np.linalg.eigh((1 - shrinkage) * differences + shrinkage * even)
    weights = (vectors / np.sqrt(np.maximum(values, 1e-12))) @ vectors.T
    moved = PcaStatistics(features.count, weights @ features.total, weights @ features.moment @ weights)
    basis = moved.solve(dimension).basis.astype(np.float64) @ weights
    mean = features.total / features.count
    return Pca(mean.astype(np.float32), basis.astype(np.float32), np.ones(dimension, np.float32))
