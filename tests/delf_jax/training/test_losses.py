"""Losses against numbers worked by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from delf_jax.training import losses


def test_cross_entropy_with_and_without_smoothing() -> None:
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
    labels = jnp.array([1])
    np.testing.assert_allclose(losses.cross_entropy(logits, labels), [-np.log(0.2)], rtol=1e-6)
    smoothed = -(0.05 * np.log(0.7) + 0.85 * np.log(0.2) + 0.05 * np.log(0.1)) - 0.05 * np.log(0.2)
    np.testing.assert_allclose(losses.cross_entropy(logits, labels, smoothing=0.15), [smoothed], rtol=1e-6)


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (60.0, 45.25 * np.cos(np.deg2rad(60) + 0.1)),
        # Beyond pi - margin = 174.27 degrees there is no margin.
        (178.0, 45.25 * np.cos(np.deg2rad(178))),
        (174.0, 45.25 * np.cos(np.deg2rad(174) + 0.1)),
    ],
)
def test_arcface_adds_its_margin_to_the_angle_of_the_right_class(degrees: float, expected: float) -> None:
    angle = np.deg2rad(degrees)
    embeddings = jnp.array([[3.0, 0.0]])
    prototypes = 2 * jnp.array([[np.cos(angle), np.cos(angle)], [np.sin(angle), np.sin(angle)]], jnp.float32)
    logits = losses.arcface_logits(embeddings, prototypes, jnp.array([0]))
    np.testing.assert_allclose(logits[0], [expected, 45.25 * np.cos(angle)], rtol=1e-4)


def test_reconstruction_counts_usable_cells_alone() -> None:
    features = jnp.array([[[1.0, 2.0], [5.0, 5.0]]])
    expanded = jnp.array([[[2.0, 0.0], [0.0, 0.0]]])
    error = losses.reconstruction(features, expanded, jnp.array([[True, False]]))
    np.testing.assert_allclose(error, [(1 + 4) / 2])
