"""The foreground direction at finite lambda: binary cross-entropy or ridge regression on unit features.

Both tend to the closed form as lambda (``weight``) grows; docs/maths/foreground.md says why. By the representer theorem
the optimum is a sum over the training positions, w = sum_i alpha_i fhat_i, with r_i = ||f_i|| and fhat_i = f_i / r_i.
The gradient is zero there, which gives alpha_i:

    bce    J(w) = 1/N sum_i [log(1 + exp z_i) - y_i z_i] + weight ||w||^2, y_i = r_i / (2 tau)
           alpha_i = (y_i - sigmoid(z_i)) / (2 weight N)
    ridge  J(w) = 1/N sum_i (z_i - t_i)^2 + weight ||w||^2, t_i = r_i / tau - 1
           alpha_i = (t_i - z_i) / (weight N)

with z_i = <w, fhat_i>. Newton's method needs the sums of gradient and Hessian over all positions, which can be computed
in parts and added. Ridge regression takes one step, cross-entropy a few.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from delf_jax.errors import PredictorError
from localization.foreground.closed_form import Solution

Loss = Literal["bce", "ridge"]
# Each call goes through all positions again, in pairs (unit features [n, C], norms [n]).
Passes = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]


class NewtonSums(NamedTuple):
    """The gradient [C] and Hessian [C, C] of the data term, summed over some positions, and how many those are."""

    gradient: Float[np.ndarray, " c"]
    hessian: Float[np.ndarray, "c c"]
    positions: int

    def plus(self, other: "NewtonSums") -> "NewtonSums":
        """The sums over the positions of both."""
        return NewtonSums(
            self.gradient + other.gradient, self.hessian + other.hessian, self.positions + other.positions
        )


@dataclasses.dataclass(frozen=True, eq=False)
class FiniteSolution(Solution):
    """A direction fitted at finite lambda. ``w`` is the direction of the optimum and ``scale`` its length.

    Attributes:
        loss: ``bce`` or ``ridge``.
        weight: lambda.
    """

    loss: Loss = "bce"
    weight: float = 1.0

    def importance(
        self, norms: Float[np.ndarray, "*n"], cosines: Float[np.ndarray, "*n"] | None = None
    ) -> Float[np.ndarray, "*n"]:
        """alpha_i of training positions from their norms and their cosines with ``w``, so that w = sum alpha_i fhat_i.

        Raises:
            PredictorError: without ``cosines``.
        """
        if cosines is None:
            raise PredictorError("importance at finite lambda needs the cosines of the positions with w")
        r, z = np.asarray(norms, np.float64), self.scale * np.asarray(cosines, np.float64)
        if self.loss == "bce":
            alpha = (r / (2 * self.tau) - 1 / (1 + np.exp(-z))) / (2 * self.weight * self.count)
        else:
            alpha = (r / self.tau - 1 - z) / (self.weight * self.count)
        return alpha / self.scale


@jax.jit
def _bce_sums(
    unit: Float[Array, "n c"], norms: Float[Array, " n"], w: Float[Array, " c"], tau: Float[Array, ""]
) -> tuple[Array, Array]:
    s = jax.nn.sigmoid(jnp.matmul(unit, w, precision=lax.Precision.HIGHEST))
    gradient = jnp.matmul(s - norms / (2 * tau), unit, precision=lax.Precision.HIGHEST)
    return gradient, jnp.matmul(unit.T * (s * (1 - s)), unit, precision=lax.Precision.HIGHEST)


@jax.jit
def _ridge_sums(
    unit: Float[Array, "n c"], norms: Float[Array, " n"], w: Float[Array, " c"], tau: Float[Array, ""]
) -> tuple[Array, Array]:
    z = jnp.matmul(unit, w, precision=lax.Precision.HIGHEST)
    gradient = jnp.matmul(2 * (z - norms / tau + 1), unit, precision=lax.Precision.HIGHEST)
    return gradient, 2 * jnp.matmul(unit.T, unit, precision=lax.Precision.HIGHEST)


def newton_sums(
    unit: Float[np.ndarray, "n c"],
    norms: Float[np.ndarray, " n"],
    w: Float[np.ndarray, " c"],
    *,
    tau: float,
    loss: Loss,
) -> NewtonSums:
    """Newton's sums of one chunk of positions at ``w``, computed in float32 and returned in float64."""
    function = _bce_sums if loss == "bce" else _ridge_sums
    arrays = (jnp.asarray(a, jnp.float32) for a in (unit, norms, w, tau))
    gradient, hessian = function(*arrays)
    return NewtonSums(np.asarray(gradient, np.float64), np.asarray(hessian, np.float64), len(norms))


def solve(passes: Passes, start: Solution, *, loss: Loss, weight: float, tolerance: float = 1e-6) -> FiniteSolution:
    """Minimises the loss by Newton's method from zero.

    Args:
        passes: goes through the positions, chunk by chunk, each time it is called.
        start: the closed form of the same positions, for tau.
        weight: lambda, above 0.
        tolerance: stops when the norm of the gradient, divided by that at the start, is this small.

    Raises:
        PredictorError: no positions, a weight that is not above 0, or no convergence.
    """
    if not weight > 0:
        raise PredictorError(f"the regularisation weight is {weight}; it must be above 0")
    w = np.zeros_like(start.w)
    first = None
    for _ in range(50):
        total = None
        for unit, norms in passes():
            sums = newton_sums(unit, norms, w, tau=start.tau, loss=loss)
            total = sums if total is None else total.plus(sums)
        if total is None:
            raise PredictorError("no positions to fit on; fit with max_points above 0")
        gradient = total.gradient / total.positions + 2 * weight * w
        size = float(np.linalg.norm(gradient))
        first = first or size
        if size <= tolerance * first:
            length = float(np.linalg.norm(w))
            return FiniteSolution(w / length, start.tau, length, total.positions, start.angle, loss, weight)
        hessian = total.hessian / total.positions + 2 * weight * np.eye(len(w))
        w = w - np.linalg.solve(hessian, gradient)
    raise PredictorError(f"{loss} at weight {weight} did not converge; choose a larger weight")
