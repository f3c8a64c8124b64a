"""The principal components are scikit-learn's, however the features arrive."""

from pathlib import Path

import numpy as np
import pytest

import delf_jax
from delf_jax.extraction.descriptors import describe
from delf_jax.extraction.head import Head
from delf_jax.extraction.pca import Pca, PcaStatistics

decomposition = pytest.importorskip("sklearn.decomposition", reason="scikit-learn is in the extra [test]")

CHANNELS, COUNT = 48, 6000


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """Correlated, non-negative features far from the origin, as behind a ReLU."""
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(12, CHANNELS))
    latent = generator.normal(size=(COUNT, 12)) * np.linspace(3, 0.3, 12)
    return np.maximum(latent @ mixing + 2 + 0.3 * generator.normal(size=(COUNT, CHANNELS)), 0).astype(np.float32) * 30


def streamed(features: np.ndarray, size: int) -> PcaStatistics:
    statistics = PcaStatistics.zero(features.shape[1])
    for start in range(0, len(features), size):
        statistics = statistics + PcaStatistics.of(features[start : start + size])
    return statistics


def unit(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.mark.parametrize("dimension", [1, 13, 40, CHANNELS])
def test_components_and_variances_are_those_of_scikit_learn(features: np.ndarray, dimension: int) -> None:
    reference = decomposition.PCA(dimension, svd_solver="full").fit(unit(features))
    ours = streamed(features, 700).solve(dimension)
    np.testing.assert_allclose(ours.mean, reference.mean_, atol=1e-5)
    np.testing.assert_allclose(ours.variance, reference.explained_variance_, rtol=1e-5, atol=1e-9)
    signs = np.sign((ours.basis * reference.components_).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(ours.basis, signs * reference.components_, atol=1e-5)


@pytest.mark.parametrize("whiten", [False, True])
def test_descriptors_are_those_of_scikit_learn(features: np.ndarray, whiten: bool) -> None:
    reference = decomposition.PCA(16, whiten=whiten, svd_solver="full").fit(unit(features))
    ours = streamed(features, 1000).solve(16)
    signs = np.sign((ours.basis * reference.components_).sum(axis=1))
    expected = unit(reference.transform(unit(features[:200])) * signs)
    head = Head(pca=ours, whiten=whiten)
    np.testing.assert_allclose(describe(features[:200], head.arrays()), expected, atol=1e-5)


def test_the_size_of_the_parts_does_not_matter(features: np.ndarray) -> None:
    small, large = streamed(features, 100).solve(20), streamed(features, COUNT).solve(20)
    np.testing.assert_allclose(small.basis, large.basis, atol=1e-5)
    np.testing.assert_allclose(small.variance, large.variance, rtol=1e-5)


def test_photos_give_the_same_as_scikit_learn(tiny_model: Path, demo_photos: Path) -> None:
    extractor = delf_jax.load(tiny_model, head=Head(), scorer="norm", max_side=128)
    paths = [str(demo_photos / f"{name}.jpg") for name in ("graf1", "box", "chelsea", "building")]
    statistics, cells = PcaStatistics.zero(128), []
    for _, maps in extractor.dense_stream((path, path) for path in paths):
        assert isinstance(maps, list)
        dense, usable = maps[0]
        statistics = statistics + PcaStatistics.of(dense[usable])
        cells.append(dense[usable])
    together = np.concatenate(cells)
    reference = decomposition.PCA(8, svd_solver="full").fit(unit(together[np.linalg.norm(together, axis=1) > 0]))
    ours = statistics.solve(8)
    assert isinstance(ours, Pca)
    np.testing.assert_allclose(ours.variance, reference.explained_variance_, rtol=1e-5)
    signs = np.sign((ours.basis * reference.components_).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(ours.basis, signs * reference.components_, atol=1e-5)
