"""The fit of the order of answers finds planted weights."""

import numpy as np
import pytest

from benchmarks.evidence import Candidates, fitted
from retrieval.verification.evidence import Weights, log10_odds


def test_planted_weights_are_found() -> None:
    rng = np.random.default_rng(0)
    planted = Weights(votes=1.5, doubling_nfa=0.2, geometry=0.6)
    found = []
    for _ in range(1000):
        votes, log10_nfa = np.exp(rng.normal(0, 0.7, 10)), np.minimum(1.5 - rng.exponential(1.5, 10), 1.0)
        odds = 10 ** log10_odds(votes, log10_nfa, planted)
        right = np.arange(10) == rng.choice(10, p=odds / odds.sum())
        found.append(Candidates(votes, log10_nfa, right, "one"))
    assert fitted(found) == pytest.approx(planted, rel=0.3)
