"""Hypotheses of RANSAC: transforms through random samples of the matches, and the best of them by cost."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int

from retrieval.verification import epipolar, planar
from retrieval.verification.residuals import Kind, NormalisedMatches
from retrieval.verification.transforms import SAMPLE_SIZE, Hypotheses, Model, rows_of

# Hypotheses of each kind that are refined. Several, because the best by chance is often not the best after refinement.
PROPOSED = 8
# Tolerances in units of the threshold for similarities that stand for another planar model. Such a similarity is right
# only near its own matches, and a single correspondence knows no rotation, so their first fits look further.
APPROACH = (3.0, 2.0)
# The first samples are drawn among this share of the matches, because callers put the likely ones first. The share
# grows until the second half of the samples is drawn among all matches.
FIRST_DRAWN = 0.1
# So many of the first matches propose a transform each, if their scales are known.
SINGLES = 64


class ScoredTransforms(NamedTuple):
    """The best transforms of one kind, [k, 3, 3], and their costs [k], least first; infinite: not usable."""

    transform: Float[Array, "k 3 3"]
    cost: Float[Array, " k"]


class Proposals(NamedTuple):
    """The best hypotheses of random samples, before any refinement.

    Attributes:
        exact: transforms of the model through minimal samples.
        approximate: similarities near a planar model; None if there are none for the model.
    """

    exact: ScoredTransforms
    approximate: ScoredTransforms | None


def propose(matches: NormalisedMatches, draws: Float[Array, "m trials"], *, model: Model) -> Proposals:
    """The hypotheses of least cost, for matches without gaps.

    Args:
        matches: of one candidate.
        draws: uniform numbers in [0, 1) for every sample.
        model: kind of the transforms.
    """
    # With too few matches for a sample, the draws repeat matches; no solver accepts those.
    share = jnp.minimum(jnp.linspace(FIRST_DRAWN, 2.0 - FIRST_DRAWN, draws.shape[1]), 1.0)
    first = jnp.ceil(matches.valid * share).astype(jnp.int32)
    drawn = draw_samples(draws, jnp.maximum(first, jnp.minimum(2 * SAMPLE_SIZE[model], matches.valid)))
    src, dst = _picked(matches.src, drawn), _picked(matches.dst, drawn)
    exact = epipolar.from_seven(src, dst) if model == "fundamental" else planar.from_samples(src, dst, model=model)
    approximate = _approximate(matches, src, dst, model=model)
    kinds = [Kind(exact, model, 1.0)]
    if approximate is not None:
        kinds.append(Kind(approximate, "similarity", APPROACH[0]))
    best = [_best(kind.hypotheses, cost) for kind, cost in zip(kinds, matches.cost_of_many(kinds), strict=True)]
    return Proposals(best[0], best[1] if approximate is not None else None)


def better_of(first: Proposals, second: Proposals) -> Proposals:
    """The best of both, of equal costs the ``first``; ``first`` has all kinds of ``second``."""

    def merge(a: ScoredTransforms, b: ScoredTransforms | None) -> ScoredTransforms:
        if b is None:
            return a
        both = ScoredTransforms(*(jnp.concatenate(pair) for pair in zip(a, b, strict=True)))
        return rows_of(both, lax.top_k(-both.cost, len(a.cost))[1])

    approximate = None if first.approximate is None else merge(first.approximate, second.approximate)
    return Proposals(merge(first.exact, second.exact), approximate)


def _picked(points: Float[Array, "n 2"], drawn: Int[Array, "m trials"]) -> Float[Array, "trials m 2"]:
    # Coordinate by coordinate, so that each stays contiguous: see transforms.matrix.
    return jnp.moveaxis(jnp.stack([rows_of(points[:, i], drawn) for i in range(2)]), (0, 1), (2, 1))


def _best(hypotheses: Hypotheses, cost: Float[Array, " t"]) -> ScoredTransforms:
    """The ``PROPOSED`` hypotheses of least cost; of equal costs the earlier one. Those that lack have infinite cost."""
    few = max(0, PROPOSED - len(cost))
    least, chosen = lax.top_k(-jnp.pad(cost, (0, few), constant_values=jnp.inf), PROPOSED)
    chosen = jnp.minimum(chosen, len(cost) - 1) if few else chosen
    return ScoredTransforms(rows_of(hypotheses.transform, chosen), -least)


def _approximate(
    matches: NormalisedMatches,
    src: Float[Array, "trials m 2"],
    dst: Float[Array, "trials m 2"],
    *,
    model: Model,
) -> Hypotheses | None:
    """Similarities near a planar model: through two matches of each sample, and of single matches with known scales.

    Two random matches are both inliers far more often than three or four are. Refinement does the rest.
    """
    kinds = []
    if model in ("affine", "homography"):
        kinds.append(planar.from_samples(src[:, :2], dst[:, :2], model="similarity"))
    if matches.magnification is not None:
        kinds.append(
            planar.from_single_correspondences(
                matches.src[:SINGLES], matches.dst[:SINGLES], matches.magnification[:SINGLES], matches.where[:SINGLES]
            )
        )
    return Hypotheses(*(jnp.concatenate(field) for field in zip(*kinds, strict=True))) if kinds else None


def draw_samples(draws: Float[Array, "m trials"], count: Int[Array, "*trials"]) -> Int[Array, "m trials"]:
    """``m`` different numbers below ``count`` for each trial, from uniform numbers in [0, 1).

    Every set is equally likely. Numbers repeat if ``count`` is below m. Source: Bentley and Floyd, "A sample of
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
