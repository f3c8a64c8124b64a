"""How many samples each candidate photo gets: a few for all, the others only for candidates in doubt.

This is RANSAC's stopping criterion for a batch. Candidates that stop early are taken out, and those in doubt are
brought together in groups, so that no time is spent on the rest of the batch.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from retrieval.verification.hypotheses import Proposals, better_of, propose
from retrieval.verification.refinement import refine
from retrieval.verification.residuals import NormalisedMatches
from retrieval.verification.transforms import SAMPLE_SIZE, Model, rows_of

# Samples that every candidate gets. It gets no more if the best transform so far has at least ``CLEAR`` inliers, and if
# so large a share of all matches are inliers that ``ENOUGH`` of as many pairs of matches consist of inliers alone (for
# a fundamental matrix: whole samples).
FIRST_TRIALS = 128
ENOUGH = 5.0
CLEAR = 24
# Hypotheses of each kind that are refined before that decision.
JUDGED = 2
# Candidates in doubt that are searched at once: their hypotheses stay in the cache of a CPU.
IN_DOUBT_AT_ONCE = 4

# Transforms [c, 3, 3] and their costs [c].
Found = tuple[Float[Array, "c 3 3"], Float[Array, " c"]]


def best_transforms(matches: NormalisedMatches, draws: Float[Array, "m trials"], *, model: Model) -> Found:
    """The transform of least cost for each candidate, and that cost; infinite if there is none.

    Args:
        matches: of a batch of candidates, without gaps.
        draws: uniform numbers in [0, 1), m a sample.
        model: kind of the transforms.
    """
    proposals = propose(matches, draws[:, :FIRST_TRIALS], model=model)
    if draws.shape[1] <= FIRST_TRIALS:
        return refine(matches, proposals, model=model)
    found = refine(matches, jax.tree.map(lambda x: x[:, :JUDGED], proposals), model=model)
    inliers = jax.vmap(partial(_support, model=model))(matches, found[0])
    clean = (inliers / jnp.maximum(matches.valid, 1)) ** (SAMPLE_SIZE[model] if model == "fundamental" else 2)
    in_doubt = (FIRST_TRIALS * clean < ENOUGH) | (inliers < CLEAR)
    return _search_on(
        matches, draws[:, FIRST_TRIALS:], proposals, found, in_doubt & (matches.valid > SAMPLE_SIZE[model]), model=model
    )


def _search_on(
    matches: NormalisedMatches,
    draws: Float[Array, "m trials"],
    proposals: Proposals,
    found: Found,
    in_doubt: Bool[Array, " c"],
    *,
    model: Model,
) -> Found:
    """Draws the other samples for the candidates in doubt, and refines the best hypotheses of all samples."""
    candidates = in_doubt.shape[0]
    group = min(IN_DOUBT_AT_ONCE, candidates)
    order = jnp.argsort(~in_doubt, stable=True)
    # Single matches have proposed already.
    matches = matches._replace(magnification=None)
    # Rows beyond the last one are read as the last and never written.
    order = jnp.concatenate([order, jnp.full(-candidates % group, candidates)])

    def search(state: tuple[Array, Any]) -> tuple[Array, Any]:
        done, found = state
        rows = lax.dynamic_slice(order, (done,), (group,))
        here, so_far, best = rows_of((matches, proposals, found), jnp.minimum(rows, candidates - 1))
        new = refine(here, better_of(so_far, propose(here, draws, model=model)), model=model)
        better = (done + jnp.arange(group) < jnp.sum(in_doubt)) & (new[1] < best[1])
        rows = jnp.where(better, rows, candidates)
        return done + group, jax.tree.map(lambda x, new: x.at[rows].set(new, mode="drop"), found, new)

    start = jnp.zeros((), jnp.int32), found
    return lax.while_loop(lambda state: state[0] < jnp.sum(in_doubt), search, start)[1]


def _support(matches: NormalisedMatches, transform: Float[Array, "3 3"], *, model: Model) -> Int[Array, ""]:
    return jnp.sum(matches.inliers(transform, model=model))
