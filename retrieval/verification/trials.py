"""How many samples each candidate photo gets: a few for all, the others only for candidates in doubt.

This is RANSAC's stopping criterion.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from retrieval.verification.hypotheses import better_of, propose
from retrieval.verification.refinement import refine
from retrieval.verification.residuals import NormalisedMatches
from retrieval.verification.transforms import SAMPLE_SIZE, Model

# Samples that every candidate gets. It gets no more if the best transform so far has at least ``CLEAR`` inliers, and if
# so large a share of all matches are inliers that ``ENOUGH`` of as many pairs of matches consist of inliers alone (for
# a fundamental matrix: whole samples).
FIRST_TRIALS = 128
ENOUGH = 5.0
CLEAR = 24
# Hypotheses of each kind that are refined before that decision.
JUDGED = 2

# A transform [3, 3] and its cost.
Found = tuple[Float[Array, "3 3"], Float[Array, ""]]


def best_transform(matches: NormalisedMatches, draws: Float[Array, "m trials"], *, model: Model) -> Found:
    """The transform of least cost for one candidate, and that cost; infinite if there is none.

    Args:
        matches: of the candidate, without gaps.
        draws: uniform numbers in [0, 1), m a sample.
        model: kind of the transform.
    """
    proposals = propose(matches, draws[:, :FIRST_TRIALS], model=model)
    if draws.shape[1] <= FIRST_TRIALS:
        return refine(matches, proposals, model=model)
    first = refine(matches, jax.tree.map(lambda x: x[:JUDGED], proposals), model=model)
    inliers = jnp.sum(matches.inliers(first[0], model=model))
    clean = (inliers / jnp.maximum(matches.valid, 1)) ** (SAMPLE_SIZE[model] if model == "fundamental" else 2)
    in_doubt = (FIRST_TRIALS * clean < ENOUGH) | (inliers < CLEAR)

    def search_on() -> Found:
        """The best of all samples."""
        # Single matches have proposed already.
        more = propose(matches._replace(magnification=None), draws[:, FIRST_TRIALS:], model=model)
        second = refine(matches, better_of(proposals, more), model=model)
        return jax.tree.map(lambda new, old: jnp.where(second[1] < first[1], new, old), second, first)

    return lax.cond(in_doubt & (matches.valid > SAMPLE_SIZE[model]), search_on, lambda: first)
