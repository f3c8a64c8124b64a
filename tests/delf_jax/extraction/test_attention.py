"""Every scorer's formula worked out by hand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from delf_jax.extraction.attention import score

HEAD = {
    "foreground": np.array([0.6, 0.8], np.float32),
    "attention": {
        "hidden_kernel": np.array([[1, 0], [0, -1]], np.float32),
        "hidden_bias": np.array([0.5, 1], np.float32),
        "kernel": np.array([2, 3], np.float32),
        "bias": np.float32(-1),
    },
}
AUTOENCODER = {
    "encode_kernel": np.array([[1], [1]], np.float32),
    "encode_bias": np.array([1], np.float32),
    "decode_kernel": np.array([[0.5, -1]], np.float32),
    "decode_bias": np.array([0, 1], np.float32),
}


def test_norm() -> None:
    np.testing.assert_allclose(score(jnp.array([[3.0, 4], [0, 0]]), {}, "norm"), [5, 0])


def test_foreground_is_the_length_times_the_cosine_and_never_negative() -> None:
    features = jnp.array([[3.0, 4], [-3, -4], [4, -3], [5, 0]])
    # Along w*, against it, across it, at an angle of cosine 0.6.
    np.testing.assert_allclose(score(features, HEAD, "foreground"), [5, 0, 0, 3], atol=1e-6)


@pytest.mark.parametrize(("autoencoder", "logit"), [({}, 2), ({"autoencoder": AUTOENCODER}, 7)])
def test_learned(autoencoder: dict, logit: float) -> None:
    # f = [1, 2]: hidden = relu([1.5, -1]) = [1.5, 0]; 2 * 1.5 - 1 = 2.
    # With the autoencoder: encoded 1 + 2 + 1 = 4, decoded relu([2, -3]) = [2, 0], hidden [2.5, 1]; 5 + 3 - 1 = 7.
    found = score(jnp.array([[1.0, 2]]), HEAD | autoencoder, "learned")
    np.testing.assert_allclose(found, [math.log1p(math.exp(logit))], rtol=1e-6)
