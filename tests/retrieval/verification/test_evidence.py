"""The order of answers: by hand, and never against its two arguments."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.verification.evidence import LEAST_VOTES, WEIGHTS, Weights, log10_odds
from retrieval.verification.verify import Match, VerificationSettings

VOTES = st.floats(0, 1e4)
LOG10_NFA = st.floats(-1e4, 1e3)


def test_votes_and_geometry_worked_by_hand() -> None:
    weights = Weights(votes=2.0, doubling_nfa=4.0, geometry=0.5)
    # 10^2 (1 + (4 / 0.04)^0.5), 10^2 (1 + (4 / 4)^0.5), 10^2 (1 + 2e150), 10^2 without geometry, and no votes at all.
    found = log10_odds([10, 10, 10, 10, 0], [np.log10(0.04), np.log10(4), -300, np.inf, np.inf], weights)
    least = 2 * np.log10(LEAST_VOTES)
    np.testing.assert_allclose(found, [2 + np.log10(11), 2 + np.log10(2), 152 + np.log10(2), 2, least])


@given(VOTES, VOTES, LOG10_NFA, LOG10_NFA)
def test_more_votes_and_fewer_false_alarms_never_rank_lower(
    votes: float, other_votes: float, nfa: float, other_nfa: float
) -> None:
    less, more = sorted((votes, other_votes))
    surer, weaker = sorted((nfa, other_nfa))
    assert log10_odds(less, weaker) <= log10_odds(more, weaker) <= log10_odds(more, surer)
    assert log10_odds(less, weaker) <= log10_odds(less, surer) <= log10_odds(more, surer)


def test_geometry_of_chance_does_not_outweigh_votes() -> None:
    # A thousand false alarms are expected of the worse of the two, thirty of the other: both are chance.
    assert log10_odds(4.0, 3.0) > log10_odds(2.0, 1.5)
    assert log10_odds(2.0, -4.0) > log10_odds(4.0, 0.0)


@pytest.mark.parametrize("accepted", [False, True])
def test_matches_are_ordered_by_acceptance_and_then_by_evidence(accepted: bool) -> None:
    settings = VerificationSettings(threshold=-2.0)
    first = dataclasses.replace(Match.unverified("a", 4.0, settings), log10_nfa=-1.0, accepted=accepted)
    second = dataclasses.replace(first, image="b", score=3.0, inliers=50)
    third = Match.unverified("c", 3.0, settings)
    assert [match.image for match in sorted([third, second, first], key=Match.rank)] == ["a", "b", "c"]
    assert third.evidence == pytest.approx(WEIGHTS.votes * np.log10(3))
    surest = dataclasses.replace(third, image="d", score=1e9)
    assert (min([first, surest], key=Match.rank) is first) == accepted
