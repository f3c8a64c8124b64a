"""Finite regularisation: stationarity, the representer theorem, and the limit."""

import numpy as np
import pytest

from delf_jax.errors import PredictorError
from localization.foreground import closed_form
from localization.foreground.closed_form import Solution
from localization.foreground.solvers import FiniteSolution, Loss, newton_sums, solve
from tests.localization.foreground.positions import MAPS, NORMS, UNITS, fitted

CHUNKS = [
    (UNITS[i : i + 60].astype(np.float32), NORMS[i : i + 60].astype(np.float32)) for i in range(0, len(UNITS), 60)
]


def closed() -> Solution:
    return closed_form.solve(fitted(MAPS))


@pytest.mark.parametrize("loss", ["bce", "ridge"])
@pytest.mark.parametrize("weight", [1e-3, 0.1, 10.0])
def test_stationary_and_a_sum_of_its_points(loss: Loss, weight: float) -> None:
    solution = solve(lambda: CHUNKS, closed(), loss=loss, weight=weight)
    alpha = solution.importance(NORMS, UNITS @ solution.w)
    # The gradient vanishes exactly where w is the sum of its representers.
    np.testing.assert_allclose(alpha @ UNITS, solution.w, atol=2e-5)


@pytest.mark.parametrize("loss", ["bce", "ridge"])
def test_closed_form_is_the_limit(loss: Loss) -> None:
    cosines = [solve(lambda: CHUNKS, closed(), loss=loss, weight=w).w @ closed().w for w in (1e-3, 0.1, 1e3)]
    assert cosines[0] < cosines[1] < cosines[2]
    assert cosines[2] == pytest.approx(1, abs=1e-6)


def test_bce_agrees_with_plain_gradient_descent() -> None:
    tau, weight = closed().tau, 0.05
    w = np.zeros(UNITS.shape[1])
    for _ in range(4000):
        residual = 1 / (1 + np.exp(-UNITS @ w)) - NORMS / (2 * tau)
        w -= 1.0 * (residual @ UNITS / len(UNITS) + 2 * weight * w)
    solution = solve(lambda: CHUNKS, closed(), loss="bce", weight=weight)
    np.testing.assert_allclose(solution.w * solution.scale, w, atol=1e-5)


def test_shards_add() -> None:
    w = closed().w
    whole = newton_sums(UNITS, NORMS, w, tau=1.5, loss="bce")
    parts = newton_sums(UNITS[:50], NORMS[:50], w, tau=1.5, loss="bce").plus(
        newton_sums(UNITS[50:], NORMS[50:], w, tau=1.5, loss="bce")
    )
    np.testing.assert_allclose(parts.gradient, whole.gradient, atol=1e-4)
    np.testing.assert_allclose(parts.hessian, whole.hessian, atol=1e-4)


def test_refusals() -> None:
    with pytest.raises(PredictorError, match="must be above 0"):
        solve(lambda: CHUNKS, closed(), loss="bce", weight=0)
    with pytest.raises(PredictorError, match="no positions"):
        solve(lambda: [], closed(), loss="bce", weight=1.0)
    with pytest.raises(PredictorError, match="cosines"):
        solve(lambda: CHUNKS, closed(), loss="bce", weight=1.0).importance(NORMS)
    assert isinstance(solve(lambda: CHUNKS, closed(), loss="ridge", weight=1.0), FiniteSolution)
