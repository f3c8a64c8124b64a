"""Maps in parts: the same numbers as whole ones, with less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from delf_jax.models import parts

_GENERATOR = np.random.default_rng(0)
X = jnp.asarray(_GENERATOR.standard_normal((2, 256, 256, 16)), jnp.float32)
Y = jnp.asarray(_GENERATOR.standard_normal((2, 256, 256, 4)), jnp.float32)
WIDER = jnp.asarray(_GENERATOR.standard_normal((4, 16)), jnp.float32)
SQUARE = jnp.asarray(_GENERATOR.standard_normal((16, 16)), jnp.float32)


def identity(x: Array, y: Array) -> Array:
    return parts.sum_of_cells(x, y, lambda y: y @ WIDER)


def projected(x: Array, y: Array) -> Array:
    return parts.sum_of_cells(x, y, lambda y: y @ WIDER, lambda x: x @ SQUARE)


@pytest.mark.parametrize("function", [identity, projected])
def test_parts_change_no_number(function, monkeypatch: pytest.MonkeyPatch) -> None:
    in_parts = jax.jit(function).lower(X, Y).compile()
    assert "while" in in_parts.as_text()
    monkeypatch.setattr(parts, "_LARGE", 1 << 20)
    whole = jax.jit(lambda x, y: function(x, y)).lower(X, Y).compile()
    assert "while" not in whole.as_text()
    np.testing.assert_allclose(in_parts(X, Y), whole(X, Y), rtol=1e-6, atol=1e-6)


def test_the_sum_takes_the_place_of_its_first_term() -> None:
    compiled = jax.jit(identity, donate_argnums=0).lower(X, Y).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < X.nbytes / 4


def test_a_map_without_even_parts_is_whole() -> None:
    x, y = jnp.ones((1, 65537, 1, 2)), jnp.ones((1, 65537, 1, 2))  # a prime
    assert float(parts.sum_of_cells(x, y, jnp.negative).max()) == 0
