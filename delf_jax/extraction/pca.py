"""PCA of L2-normalised features: fitted to float64 sums that add up over batches and machines, and its projection."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True, eq=False)
class PcaStatistics:
    """Count, sum and second moment of L2-normalised features; ``a + b`` are the statistics of both sets together.

    Attributes:
        count: number of features.
        total: float64 [C], their sum.
        moment: float64 [C, C], the sum of their outer products.
    """

    count: int
    total: Float[np.ndarray, " c"]
    moment: Float[np.ndarray, "c c"]

    @classmethod
    def zero(cls, channels: int) -> "PcaStatistics":
        """Statistics of an empty set of features."""
        return cls(0, np.zeros(channels), np.zeros((channels, channels)))

    @classmethod
    def of(cls, features: Float[np.ndarray, "n c"]) -> "PcaStatistics":
        """Statistics of ``features`` [n, C], which are L2-normalised first; zero features are left out."""
        # Products in float32 would change the components of small variance by more than 1e-5.
        features = np.asarray(features, np.float64)
        norms = np.linalg.norm(features, axis=1)
        unit = features[norms > 0] / norms[norms > 0, None]
        return cls(len(unit), unit.sum(axis=0), unit.T @ unit)

    def __add__(self, other: "PcaStatistics") -> "PcaStatistics":
        return PcaStatistics(self.count + other.count, self.total + other.total, self.moment + other.moment)

    def solve(self, dimension: int) -> "Pca":
        """The first ``dimension`` principal components.

        Raises:
            ValueError: there are too few features, or more dimensions than channels.
        """
        channels = len(self.total)
        if not 1 <= dimension <= channels:
            raise ValueError(f"{dimension} dimensions of {channels} channels; choose 1 to {channels}")
        if self.count <= dimension:
            raise ValueError(f"{self.count} features are too few for {dimension} dimensions; give more photos")
        mean = self.total / self.count
        covariance = (self.moment - self.count * np.outer(mean, mean)) / (self.count - 1)
        variances, vectors = np.linalg.eigh(covariance)
        order = np.argsort(variances)[::-1][:dimension]
        basis = vectors[:, order].T
        # The sign of an eigenvector is free; a positive largest entry makes repeated fits comparable.
        signs = np.sign(basis[np.arange(dimension), np.abs(basis).argmax(axis=1)])
        return Pca(
            mean.astype(np.float32),
            (basis * signs[:, None]).astype(np.float32),
            np.maximum(variances[order], 0).astype(np.float32),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Pca:
    """A fitted projection: ``(f / ||f|| - mean) @ basis.T``, divided by ``sqrt(variance)`` if whitened, then L2.

    Attributes:
        mean: float32 [C].
        basis: float32 [d, C], the most telling rows first. Those of a PCA are orthonormal, by descending variance; rows
            of learned whitening (``delf_jax.training.descriptors``) are not orthogonal.
        variance: float32 [d]; 1 for learned whitening.
    """

    mean: Float[np.ndarray, " c"]
    basis: Float[np.ndarray, "d c"]
    variance: Float[np.ndarray, " d"]

    def projection(self, *, whiten: bool) -> Float[np.ndarray, "c d"]:
        """The matrix of ``project``, float32; whitening is part of it."""
        scale = 1 / np.sqrt(np.maximum(self.variance, 1e-12)) if whiten else 1.0
        return (self.basis.T * scale).astype(np.float32)

    def descriptors(self, unit: Float[np.ndarray, "n c"], *, whiten: bool) -> Float[np.ndarray, "n d"]:
        """Descriptors of unit features, float32 of unit length: as ``descriptors.describe``, but compiles nothing."""
        moved = (np.asarray(unit, np.float32) - self.mean) @ self.projection(whiten=whiten)
        return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)


def project(
    unit: Float[Array, "*b c"], mean: Float[Array | np.ndarray, " c"], projection: Float[Array | np.ndarray, "c d"]
) -> Float[Array, "*b d"]:
    """L2-normalised features in the space of a PCA: ``(unit - mean) @ projection``, not normalised again."""
    return jnp.matmul(unit - mean, projection, precision=lax.Precision.HIGHEST)
