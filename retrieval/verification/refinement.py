"""Refinement of hypotheses by weighted least squares on the matches around them (local optimisation of RANSAC).

Source: Chum, Matas and Kittler, DAGM 2003.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from retrieval.verification import epipolar, planar
from retrieval.verification.hypotheses import APPROACH, Proposals, ScoredTransforms
from retrieval.verification.residuals import NormalisedMatches
from retrieval.verification.transforms import Hypotheses, Model, rows_of

# Hypotheses that take all steps: the best ones after the first step.
KEPT = 8
# Tolerances of the steps, in units of the threshold; they shrink towards it.
POLISH = (1.5, 1.2, 1.0, 1.0)


class _State(NamedTuple):
    """Where k hypotheses stand: refined so far, with squared residuals, and the best of each on its way."""

    transform: Float[Array, "k 3 3"]
    squared: Float[Array, "k n"]
    best: ScoredTransforms


def refine(
    matches: NormalisedMatches, proposals: Proposals, *, model: Model
) -> tuple[Float[Array, "3 3"], Float[Array, ""]]:
    """The transform of least cost, and that cost; infinite if there is none.

    All steps are turns of one loop, because every copy of a step takes a second to compile. A turn takes at most
    ``KEPT`` hypotheses. Similarities near a planar model first approach it: they are fitted to the matches around
    them, as affine transforms unless ``model`` is a similarity. Then all take the first step, and the best the others.
    """
    start = proposals.exact
    exact = len(start.cost)
    approach: tuple[float, ...] = ()
    if proposals.approximate is not None:
        start = jax.tree.map(lambda *kinds: jnp.concatenate(kinds), start, proposals.approximate)
        approach = APPROACH
    total = len(start.cost)
    width = min(total, KEPT)
    parts = [*range(0, total, width)]
    # Of each turn: the tolerance, the first hypothesis, and whether it is an approach.
    turns = [
        *((factor, parts[-1]) for factor in approach),
        *((POLISH[0], part) for part in parts),
        *((factor, 0) for factor in POLISH[1:]),
    ]
    factors, places = jnp.asarray([turn[0] for turn in turns]), jnp.asarray([turn[1] for turn in turns])
    last = len(approach) + len(parts)

    def turn(i: Array, state: _State) -> _State:
        if width < total:
            state = lax.cond(i == last, _best_first, lambda state: state, state)
        part, usable = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, places[i], width), (state, known))
        approaching = i < len(approach)
        is_start = approaching & (places[i] + jnp.arange(width) >= exact)
        part = _step(matches, part, usable, factor=factors[i], approaching=approaching, is_start=is_start, model=model)
        return jax.tree.map(lambda x, new: lax.dynamic_update_slice_in_dim(x, new, places[i], axis=0), state, part)

    known = jnp.isfinite(start.cost)
    squared = matches.squared_residuals(start.transform, model=model)
    best = lax.fori_loop(0, len(turns), turn, _State(start.transform, squared, start)).best
    least = jnp.argmin(best.cost)
    return rows_of(best.transform, least), best.cost[least]


def _best_first(state: _State) -> _State:
    """The state with the best hypotheses copied over the first ones."""
    kept = lax.top_k(-state.best.cost, KEPT)[1]
    return jax.tree.map(lambda x, first: x.at[:KEPT].set(first), state, rows_of(state, kept))


def _step(
    matches: NormalisedMatches,
    state: _State,
    usable: Bool[Array, " k"],
    *,
    factor: Float[Array, ""],
    approaching: Bool[Array, ""],
    is_start: Bool[Array, " k"],
    model: Model,
) -> _State:
    """One step of least squares.

    The result of an approach is where a hypothesis starts (``is_start``). It is not usable if its matches do not
    determine the model: points on a line agree with many affine transforms. Hypotheses that are exact already wait.
    """
    best, cost = state.best
    weights = matches.weights(state.squared, factor)
    transform, determined = _refit(matches, state.transform, weights, approaching, model=model)
    transform = jnp.where((is_start | ~approaching)[:, None, None], transform, state.transform)
    usable = determined & jnp.where(is_start, usable, jnp.isfinite(cost))
    squared = matches.squared_residuals(transform, model=model)
    step_cost = matches.cost(squared, usable)
    better = is_start | (~approaching & (step_cost < cost))
    best = jnp.where(better[:, None, None], transform, best)
    return _State(transform, squared, ScoredTransforms(best, jnp.where(better, step_cost, cost)))


def _refit(
    matches: NormalisedMatches, transform: Array, weights: Array, approaching: Bool[Array, ""], *, model: Model
) -> Hypotheses:
    if model == "fundamental":
        return epipolar.refit_fundamental(transform, matches.src, matches.dst, weights)
    return planar.refit(transform, matches.src, matches.dst, weights, model=model, as_affine=approaching)
