"""Minimal filtering computes the plain convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from delf_jax.models import winograd


def plain(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )


@pytest.fixture(scope="module")
def kernel():
    return jnp.asarray(np.random.default_rng(1).standard_normal((3, 3, 8, 5)), jnp.float32)


def maps(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def test_its_matrices_are_exact():
    inputs, kernel, outputs = winograd.transforms()
    signal, taps = np.random.default_rng(0).standard_normal(6), np.array([1.0, -2.0, 0.5])
    found = outputs @ ((kernel @ taps) * (inputs @ signal))
    np.testing.assert_allclose(found, np.correlate(signal, taps, "valid"), atol=1e-13)


# Whole tiles, a part of one, one cell, several photos.
@pytest.mark.parametrize("shape", [(1, 8, 12, 8), (2, 7, 9, 8), (1, 1, 1, 8), (3, 4, 30, 8)])
def test_equals_the_plain_convolution(shape, kernel):
    x = maps(*shape)
    expected = plain(x, kernel)
    np.testing.assert_allclose(winograd.convolve(x, kernel), expected, atol=5e-6 * float(jnp.abs(expected).max()))


# Strips of one row of tiles, and of two of which the last one is not full.
@pytest.mark.parametrize("most_tiles", [1, 6])
def test_strips_change_no_number(most_tiles, kernel, monkeypatch):
    x = maps(2, 19, 12, 8)
    whole = winograd.convolve(x, kernel)
    monkeypatch.setattr(winograd, "_MOST_TILES", most_tiles)
    np.testing.assert_allclose(winograd.convolve(x, kernel), whole, atol=1e-6 * float(jnp.abs(whole).max()))


def test_gradients_are_those_of_the_plain_convolution(kernel):
    x = maps(1, 6, 7, 8)

    def loss(function):
        return lambda x, kernel: (function(x, kernel) ** 2).sum()

    found = jax.grad(loss(winograd.convolve), (0, 1))(x, kernel)
    expected = jax.grad(loss(plain), (0, 1))(x, kernel)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, atol=1e-5 * float(jnp.abs(other).max()))


def test_the_cells_of_one_photo_say_nothing_about_another(kernel):
    x = maps(2, 9, 9, 8)
    np.testing.assert_array_equal(winograd.convolve(x.at[1].set(jnp.nan), kernel)[0], winograd.convolve(x, kernel)[0])
