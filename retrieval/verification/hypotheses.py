"""Transforms proposed by random samples of the matches, and their refinement."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from retrieval.verification import epipolar, geometry
from retrieval.verification.geometry import SAMPLE_SIZE, Candidates, Model
from retrieval.verification.normalised import BLOCK, Fit

# Hypotheses of each kind that are refined. Several, because the best by chance is often not the best after refinement.
SEEDS = 8
# Of all these, the ones that are best after one step of refinement go on.
KEPT = 8
# Tolerances of the refinement in units of the threshold: a similarity is near a planar model only around its matches,
# and a single correspondence knows no rotation, so their first fits look further; then all shrink to the threshold.
APPROACH = (3.0, 2.0)
POLISH = (1.5, 1.2, 1.0, 1.0)
# The first samples are drawn among this share of the matches, growing until the second half is drawn among all of them:
# callers put the likely ones first.
FIRST_DRAWN = 0.1
# Of the likeliest matches, the ones with known scales propose a transform each.
SINGLES = 64


class Ranked(NamedTuple):
    """The best transforms of one kind, [..., k, 3, 3], and their costs [..., k], the least first; infinite: none."""

    transform: Float[Array, "*c k 3 3"]
    cost: Float[Array, "*c k"]


class Seeds(NamedTuple):
    """What random samples of the matches proposed, before any refinement.

    Attributes:
        exact: transforms of the model through minimal samples.
        rough: similarities that stand near a planar model; None where the model has none such.
    """

    exact: Ranked
    rough: Ranked | None


def propose(fit: Fit, draws: Float[Array, "m trials"], *, model: Model, singles: bool) -> Seeds:
    """The hypotheses of least cost for each candidate; ``singles`` lets single correspondences propose too."""
    # Padding costs no time where all candidates have it.
    blocks = (jnp.max(fit.valid) + BLOCK - 1) // BLOCK

    def one(fit: Fit) -> Seeds:
        # With too few matches for a sample the draws repeat matches, which no solver accepts.
        share = jnp.minimum(jnp.linspace(FIRST_DRAWN, 2.0 - FIRST_DRAWN, draws.shape[1]), 1.0)
        first = jnp.ceil(fit.valid * share).astype(jnp.int32)
        drawn = draw_samples(draws, jnp.maximum(first, jnp.minimum(2 * SAMPLE_SIZE[model], fit.valid)))
        src, dst = _picked(fit.src, drawn), _picked(fit.dst, drawn)
        exact = (
            epipolar.from_seven(src, dst) if model == "fundamental" else geometry.from_samples(src, dst, model=model)
        )
        rough = _rough(fit, src, dst, model=model, singles=singles)
        return Seeds(
            _best(fit, exact, blocks, model=model),
            None if rough is None else _best(fit, rough, blocks, APPROACH[0], model=model),
        )

    return jax.vmap(one)(fit)


def better_of(first: Seeds, second: Seeds) -> Seeds:
    """The best of both for each candidate; equal costs go to ``first``, which has every kind that ``second`` has."""

    def merge(a: Ranked, b: Ranked | None) -> Ranked:
        if b is None:
            return a
        both = Ranked(*(jnp.concatenate(pair, axis=1) for pair in zip(a, b, strict=True)))
        chosen = lax.top_k(-both.cost, a.cost.shape[1])[1]
        return jax.tree.map(lambda x: jax.vmap(lambda row, i: row[i])(x, chosen), both)

    rough = None if first.rough is None else merge(first.rough, second.rough)
    return Seeds(merge(first.exact, second.exact), rough)


def refine(fit: Fit, seeds: Seeds, *, model: Model) -> tuple[Float[Array, "c 3 3"], Float[Array, " c"]]:
    """The transform of least cost for each candidate, and that cost; infinite where there is none."""

    def one(fit: Fit, seeds: Seeds) -> tuple[Array, Array]:
        start = Candidates(seeds.exact.transform, jnp.isfinite(seeds.exact.cost))
        if seeds.rough is not None:
            approached = _approach(fit, seeds.rough, model=model)
            start = Candidates(*(jnp.concatenate(pair) for pair in zip(start, approached, strict=True)))
        return _polish(fit, start, model=model)

    return jax.vmap(one)(fit, seeds)


def _picked(points: Float[Array, "n 2"], drawn: Int[Array, "m trials"]) -> Float[Array, "trials m 2"]:
    # Coordinate by coordinate, so that each stays contiguous: see geometry.matrix.
    return jnp.moveaxis(jnp.stack([points[:, i].at[drawn].get(mode="clip") for i in range(2)]), (0, 1), (2, 1))


def _best(fit: Fit, hypotheses: Candidates, blocks: Int[Array, ""], factor: float = 1.0, *, model: Model) -> Ranked:
    """The ``SEEDS`` hypotheses of least cost; equal costs go to the earlier one."""
    cost = fit.cost_of_many(hypotheses, blocks, factor, model=model)
    chosen = lax.top_k(-cost, min(SEEDS, cost.shape[0]))[1]
    return Ranked(hypotheses.transform[chosen], cost[chosen])


def _rough(
    fit: Fit, src: Float[Array, "trials m 2"], dst: Float[Array, "trials m 2"], *, model: Model, singles: bool
) -> Candidates | None:
    """Similarities that stand near a planar model: of two matches a sample, and of every match with known scales.

    Two matches are all inliers far more often than three or four, and the refinement bridges the rest.
    """
    kinds = []
    if model in ("affine", "homography"):
        kinds.append(geometry.from_samples(src[:, :2], dst[:, :2], model="similarity"))
    if singles and fit.magnification is not None:
        kinds.append(
            geometry.from_single_correspondences(
                fit.src[:SINGLES], fit.dst[:SINGLES], fit.magnification[:SINGLES], fit.where[:SINGLES]
            )
        )
    return Candidates(*(jnp.concatenate(field) for field in zip(*kinds, strict=True))) if kinds else None


def _approach(fit: Fit, rough: Ranked, *, model: Model) -> Candidates:
    """Let similarities turn and stretch towards the matches around them.

    Not usable where those matches do not determine the model: points on a line agree with many an affine transform.
    """
    towards: Model = "similarity" if model == "similarity" else "affine"

    def step(transform: Array, factor: Array) -> tuple[Array, Array]:
        weights = fit.weights(fit.squared_residuals(transform, model=towards), factor)
        return geometry.refit(transform, fit.src, fit.dst, weights, model=towards)

    transform, determined = lax.scan(step, rough.transform, jnp.asarray(APPROACH))
    return Candidates(transform, jnp.isfinite(rough.cost) & determined[-1])


def _polish(fit: Fit, seeds: Candidates, *, model: Model) -> tuple[Float[Array, "3 3"], Float[Array, ""]]:
    """The least-cost transform among the seeds and every step of their refinement, and its cost."""

    def step(
        carry: tuple[Array, Array, Array, Array], factor: ArrayLike
    ) -> tuple[tuple[Array, Array, Array, Array], None]:
        transform, squared, best, cost = carry
        weights = fit.weights(squared, factor)
        if model == "fundamental":
            transform, usable = epipolar.refit_fundamental(transform, fit.src, fit.dst, weights)
        else:
            transform, usable = geometry.refit(transform, fit.src, fit.dst, weights, model=model)
        squared = fit.squared_residuals(transform, model=model)
        step_cost = fit.cost(squared, usable & seeds.usable)
        better = step_cost < cost
        best, cost = jnp.where(better[:, None, None], transform, best), jnp.where(better, step_cost, cost)
        return (transform, squared, best, cost), None

    squared = fit.squared_residuals(seeds.transform, model=model)
    state = seeds.transform, squared, seeds.transform, fit.cost(squared, seeds.usable)
    state, _ = step(state, POLISH[0])
    kept = lax.top_k(-state[3], min(KEPT, state[3].shape[0]))[1]
    state, seeds = jax.tree.map(lambda x: x[kept], (state, seeds))
    (_, _, best, cost), _ = lax.scan(step, state, jnp.asarray(POLISH[1:]))
    first = jnp.argmin(cost)
    return best[first], cost[first]


def draw_samples(draws: Float[Array, "m trials"], count: Int[Array, "*trials"]) -> Int[Array, "m trials"]:
    """``m`` different numbers below ``count`` for each trial, from uniform numbers in [0, 1).

    Every set is equally likely. Where ``count`` is below m, numbers repeat. Source: Bentley and Floyd, "A sample of
    brilliance", CACM 1987.
    """
    picks: list[Array] = []
    sample = draws.shape[0]
    for i in range(sample):
        last = jnp.maximum(count - sample + i, 0)
        pick = jnp.minimum((draws[i] * (last + 1)).astype(jnp.int32), last)
        taken = jnp.zeros_like(pick, bool)
        for earlier in picks:
            taken |= earlier == pick
        picks.append(jnp.where(taken, last, pick))
    return jnp.stack(picks)
