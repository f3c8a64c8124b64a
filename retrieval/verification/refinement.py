"""Refinement of hypotheses by weighted least squares on the matches around them (local optimisation of RANSAC).

Source: Chum, Matas and Kittler, DAGM 2003.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float

from retrieval.verification import epipolar, planar
from retrieval.verification.hypotheses import APPROACH, Proposals, ScoredTransforms
from retrieval.verification.residuals import NormalisedMatches
from retrieval.verification.transforms import Hypotheses, Model

# Hypotheses that take all steps: the best ones after the first step.
KEPT = 8
# Tolerances of the steps, in units of the threshold; they shrink towards it.
POLISH = (1.5, 1.2, 1.0, 1.0)


def refine(
    matches: NormalisedMatches, proposals: Proposals, *, model: Model
) -> tuple[Float[Array, "c 3 3"], Float[Array, " c"]]:
    """The transform of least cost for each candidate, and that cost; infinite if there is none."""

    def one(matches: NormalisedMatches, proposals: Proposals) -> tuple[Array, Array]:
        start = Hypotheses(proposals.exact.transform, jnp.isfinite(proposals.exact.cost))
        if proposals.approximate is not None:
            approached = _approach(matches, proposals.approximate, model=model)
            start = Hypotheses(*(jnp.concatenate(pair) for pair in zip(start, approached, strict=True)))
        return _polish(matches, start, model=model)

    return jax.vmap(one)(matches, proposals)


def _approach(matches: NormalisedMatches, approximate: ScoredTransforms, *, model: Model) -> Hypotheses:
    """Fits each similarity to the matches around it, as an affine transform unless ``model`` is a similarity.

    A hypothesis is not usable if those matches do not determine the model: points on a line agree with many affine
    transforms.
    """
    towards: Model = "similarity" if model == "similarity" else "affine"

    def step(transform: Array, factor: Array) -> tuple[Array, Array]:
        weights = matches.weights(matches.squared_residuals(transform, model=towards), factor)
        return planar.refit(transform, matches.src, matches.dst, weights, model=towards)

    transform, determined = lax.scan(step, approximate.transform, jnp.asarray(APPROACH))
    return Hypotheses(transform, jnp.isfinite(approximate.cost) & determined[-1])


def _polish(
    matches: NormalisedMatches, start: Hypotheses, *, model: Model
) -> tuple[Float[Array, "3 3"], Float[Array, ""]]:
    """The least-cost transform among ``start`` and all steps of its refinement, and its cost."""

    def step(
        carry: tuple[Array, Array, Array, Array], factor: ArrayLike
    ) -> tuple[tuple[Array, Array, Array, Array], None]:
        transform, squared, best, cost = carry
        weights = matches.weights(squared, factor)
        if model == "fundamental":
            transform, usable = epipolar.refit_fundamental(transform, matches.src, matches.dst, weights)
        else:
            transform, usable = planar.refit(transform, matches.src, matches.dst, weights, model=model)
        squared = matches.squared_residuals(transform, model=model)
        step_cost = matches.cost(squared, usable & start.usable)
        better = step_cost < cost
        best, cost = jnp.where(better[:, None, None], transform, best), jnp.where(better, step_cost, cost)
        return (transform, squared, best, cost), None

    squared = matches.squared_residuals(start.transform, model=model)
    state = start.transform, squared, start.transform, matches.cost(squared, start.usable)
    state, _ = step(state, POLISH[0])
    kept = lax.top_k(-state[3], min(KEPT, state[3].shape[0]))[1]
    state, start = jax.tree.map(lambda x: x[kept], (state, start))
    (_, _, best, cost), _ = lax.scan(step, state, jnp.asarray(POLISH[1:]))
    first = jnp.argmin(cost)
    return best[first], cost[first]
