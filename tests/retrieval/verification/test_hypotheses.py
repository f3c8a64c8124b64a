"""Random samples and the best hypotheses of them."""

import jax
import jax.numpy as jnp
import numpy as np

from retrieval.verification.hypotheses import Proposals, ScoredTransforms, better_of, draw_samples


def test_samples_are_drawn_without_replacement_and_evenly():
    draws = jax.random.uniform(jax.random.key(0), (3, 20000))
    picks = np.asarray(draw_samples(draws, jnp.int32(6)))
    assert picks.min() == 0
    assert picks.max() == 5
    assert all(len(set(sample)) == 3 for sample in picks.T[:2000])
    counts = np.unique(np.sort(picks, axis=0), axis=1, return_counts=True)[1]
    assert len(counts) == 20
    np.testing.assert_allclose(counts, 1000, rtol=0.12)


def test_the_better_proposals_of_each_kind_are_kept():
    def proposals(*costs: float) -> ScoredTransforms:
        cost = jnp.array(costs)
        return ScoredTransforms(cost[:, None, None] * jnp.ones((3, 3)), cost)

    first = Proposals(proposals(1, 4, jnp.inf), proposals(5, 6))
    second = Proposals(proposals(2, 3, 7), None)
    found = better_of(first, second)
    np.testing.assert_array_equal(found.exact.cost, [1, 2, 3])
    np.testing.assert_array_equal(found.exact.transform[:, 0, 0], [1, 2, 3])
    np.testing.assert_array_equal(found.approximate.cost, [5, 6])
