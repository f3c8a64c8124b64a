"""Convolutions on blocks of pixels give the plain sum."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from delf_jax.models import space_to_depth


@pytest.mark.parametrize("size", [(16, 20), (15, 20), (7, 9)])
@pytest.mark.parametrize(("kernel", "padding"), [(7, (3, 3)), (7, (2, 3)), (3, (1, 1)), (3, (0, 1))])
def test_blocks_give_the_plain_convolution(size: tuple[int, int], kernel: int, padding: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.standard_normal((2, *size, 3)), jnp.float32)
    weights = jnp.asarray(generator.standard_normal((kernel, kernel, 3, 5)), jnp.float32)
    expected = lax.conv_general_dilated(
        x, weights, (2, 2), (padding, padding), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(space_to_depth.convolve(x, weights, padding), expected, atol=1e-4)
