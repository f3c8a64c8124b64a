"""Poolings against numbers worked by hand."""

import jax.numpy as jnp
import numpy as np

from delf_jax.models.pooling import attentive_pool, gem


def test_gem_is_the_power_mean_of_usable_cells() -> None:
    features = np.array([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]], np.float32)
    where = np.array([[True, True, False]])
    expected = [((1 + 27) / 2) ** (1 / 3), ((8 + 64) / 2) ** (1 / 3)]
    np.testing.assert_allclose(gem(features, where)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(gem(features, where, 1.0)[0], [2, 3], rtol=1e-6)


def test_the_paper_sums_and_the_official_code_averages_unit_features() -> None:
    features = jnp.array([[[3.0, 4.0], [0.0, 2.0], [9.0, 9.0]]])
    scores = jnp.array([[2.0, 1.0, 5.0]])
    where = jnp.array([[True, True, False]])
    pooled = attentive_pool(features, scores, where, pooling="sum")
    np.testing.assert_allclose(pooled, [[6, 10]], rtol=1e-6)
    halved = attentive_pool(features, scores, where, pooling="sum", cells=2.0)
    np.testing.assert_allclose(halved, [[3, 5]], rtol=1e-6)
    mean = attentive_pool(features, scores, where, pooling="mean")
    np.testing.assert_allclose(mean, [[2 * 0.6 / 2 * 2**0.5, (2 * 0.8 + 1) / 2 * 2**0.5]], rtol=1e-6)
    unit = attentive_pool(features, scores, where, pooling="unit", temperature=10.0)
    np.testing.assert_allclose(unit, 10 * np.array([[6, 10]]) / 136**0.5, rtol=1e-6)
