"""The closed form against plain NumPy, and its identities in docs/maths/foreground.md."""

import numpy as np
import pytest

from delf_jax.errors import PredictorError
from localization.foreground.closed_form import diagnostics, solve
from localization.foreground.statistics import Statistics
from tests.localization.foreground.positions import ALL, MAPS, NORMS, TAU, UNITS, U, V, W, fitted, positions


def test_equals_the_single_pass() -> None:
    solution = solve(fitted(MAPS))
    np.testing.assert_allclose(solution.w, W, atol=1e-6)
    assert solution.tau == pytest.approx(TAU, rel=1e-6)
    assert solution.count == len(ALL)
    assert solution.scale == pytest.approx(np.linalg.norm(V - TAU * U), rel=1e-5)


def test_identities() -> None:
    solution = solve(fitted(MAPS))
    w = solution.w
    importance = solution.importance(NORMS)
    share = (1 - solution.tau / NORMS) / (solution.count * solution.scale)
    np.testing.assert_allclose(share @ ALL, w, atol=1e-6)  # w* is a sum of features
    np.testing.assert_allclose(importance @ UNITS, w, atol=1e-6)
    assert np.array_equal(importance > 0, NORMS > solution.tau)
    v_hat, u_hat = V / np.linalg.norm(V), U / np.linalg.norm(U)
    np.testing.assert_allclose((v_hat - u_hat) / np.linalg.norm(v_hat - u_hat), w, atol=1e-6)
    assert abs(w @ (v_hat + u_hat)) < 1e-6  # zero is the bisector
    covariance = ((NORMS - NORMS.mean())[:, None] * (UNITS - U)).mean(0)
    np.testing.assert_allclose(covariance + (NORMS.mean() - TAU) * U, V - TAU * U, atol=1e-10)
    test_unit = positions(99).reshape(-1, 24).astype(np.float64)
    test_unit /= np.linalg.norm(test_unit, axis=1, keepdims=True)
    values = importance[:, None] * (UNITS @ test_unit.T)
    np.testing.assert_allclose(values.sum(0), test_unit @ w, atol=1e-6)  # representer values sum to the map


def test_constant_norms_are_refused() -> None:
    dense = MAPS[0] / np.linalg.norm(MAPS[0], axis=-1, keepdims=True) * 7
    with pytest.raises(PredictorError, match="norms hardly vary"):
        solve(Statistics.of_photo(dense))
    assert diagnostics(Statistics.of_photo(dense)).norm_spread < 1e-3


def test_diagnostics() -> None:
    found = diagnostics(fitted(MAPS))
    v_hat, u_hat = V / np.linalg.norm(V), U / np.linalg.norm(U)
    assert found.angle_degrees == pytest.approx(np.degrees(np.arccos(v_hat @ u_hat)), rel=1e-5)
    assert found.positive_share == pytest.approx((NORMS > TAU).mean(), abs=0.03)
    assert found.norm_spread == pytest.approx(NORMS.std() / NORMS.mean(), rel=1e-4)
