"""Bounds on wrong acceptances: exact values by hand, and coverage by simulation."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest

from retrieval.verification import risk_control


def binomial_cdf(k: int, n: int, p: Fraction) -> Fraction:
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), Fraction(0))


@pytest.mark.parametrize(("rate", "confidence", "needed"), [(0.05, 0.95, 59), (0.01, 0.95, 299), (0.001, 0.95, 2995)])
def test_strangers_needed_are_the_least_that_prove_a_rate(rate: float, confidence: float, needed: int) -> None:
    assert risk_control.strangers_needed(rate, confidence=confidence) == needed
    assert risk_control.most_accepted(needed, rate=rate, confidence=confidence) == 0
    assert risk_control.most_accepted(needed - 1, rate=rate, confidence=confidence) == -1


@pytest.mark.parametrize(("accepted", "strangers"), [(0, 20), (1, 10), (3, 100), (10, 10)])
def test_bounds_are_those_of_clopper_and_pearson(accepted: int, strangers: int) -> None:
    upper = risk_control.upper_bound(accepted, strangers, confidence=0.95)
    lower = risk_control.lower_bound(accepted, strangers, confidence=0.95)
    # SciPy's two-sided interval at 90 % has 5 % on each side.
    interval = binomtest(accepted, strangers).proportion_ci(0.9, method="exact")
    np.testing.assert_allclose((lower, upper), interval, atol=1e-9)
    if accepted < strangers:
        assert float(binomial_cdf(accepted, strangers, Fraction(upper))) == pytest.approx(0.05)


def test_no_accepted_stranger_bounds_the_rate_by_three_over_n() -> None:
    assert risk_control.upper_bound(0, 128, confidence=0.95) == pytest.approx(1 - 0.05 ** (1 / 128))
    assert risk_control.upper_bound(0, 128, confidence=0.95) == pytest.approx(3 / 128, rel=0.02)


@pytest.mark.parametrize("strangers", [30, 100, 333])
def test_most_accepted_by_exact_arithmetic(strangers: int) -> None:
    rate = Fraction(1, 16)
    chances = [binomial_cdf(k, strangers, rate) for k in range(strangers)]
    expected = sum(chance <= Fraction(1, 10) for chance in chances) - 1
    assert risk_control.most_accepted(strangers, rate=1 / 16, confidence=0.9) == expected


@pytest.mark.parametrize(
    ("lowest", "threshold"),
    [([-7.0, -3.456, -3.0], -3.46), ([-7.0, -1.15, -1.0], -1.16), ([-7.0, -3.0, 2.0], -3.01), ([-7.0, 4.0, 5.0], 0.0)],
)
def test_the_threshold_is_just_below_the_first_stranger_too_many(lowest: list[float], threshold: float) -> None:
    scores = np.array([*lowest, *np.linspace(5, 9, 90)])  # of 93 one may be accepted: 0.95^93 + 93 0.05 0.95^92 < 0.05
    assert risk_control.most_accepted(93, rate=0.05, confidence=0.95) == 1
    found = risk_control.threshold_for(scores[::-1], rate=0.05, confidence=0.95)
    assert found == threshold
    assert (scores <= found).sum() <= 1


def test_too_few_strangers_have_no_threshold() -> None:
    assert risk_control.threshold_for(np.zeros(58), rate=0.05, confidence=0.95) is None
    assert risk_control.threshold_for(np.full(59, np.inf), rate=0.05, confidence=0.95) == 0.0


def test_the_bound_is_broken_no_more_often_than_stated() -> None:
    # A score is at or below t with the chance 10^t, as log10_nfa promises; so the true rate of a threshold is known.
    rng = np.random.default_rng(0)
    runs, rate, confidence = 2000, 0.02, 0.9
    thresholds = [
        risk_control.threshold_for(np.log10(rng.uniform(size=400)), rate=rate, confidence=confidence)
        for _ in range(runs)
    ]
    broken = sum(10**threshold > rate for threshold in thresholds if threshold is not None)
    # It uses up most of what it may: not just a threshold that accepts nothing.
    allowed = runs * (1 - confidence)
    assert 0.4 * allowed < broken < allowed + 3 * math.sqrt(allowed)


def test_all_groups_keep_the_bound_together() -> None:
    # Queries with more features score lower; each group has to find its own threshold.
    rng = np.random.default_rng(1)
    runs, rate, confidence, broken = 500, 0.02, 0.9, 0
    for _ in range(runs):
        features = rng.integers(50, 1000, 900)
        scores = np.log10(rng.uniform(size=900)) * np.where(features < 400, 1.0, 2.0)
        cuts = risk_control.feature_groups(features, rate=rate, confidence=confidence)
        assert len(cuts) == 2
        group = np.searchsorted(cuts, features, side="right")
        each = risk_control.group_confidence(confidence, 3)
        found = [risk_control.threshold_for(scores[group == g], rate=rate, confidence=each) for g in range(3)]
        few = np.clip((400 - np.array([50, *cuts])) / np.diff([50, *cuts, 1000]), 0, 1)
        rates = [few[g] * 10.0**t + (1 - few[g]) * 10.0 ** (t / 2) for g, t in enumerate(found) if t is not None]
        broken += max(rates) > rate
    allowed = runs * (1 - confidence)
    assert broken < allowed + 3 * math.sqrt(allowed)


def test_strangers_are_divided_only_if_every_part_can_prove_the_rate() -> None:
    # 1 % at 95 %: two parts take ln(0.025) / ln(0.99) = 368 each, three ln(0.05 / 3) / ln(0.99) = 408.
    features = np.arange(3000)
    assert [len(risk_control.feature_groups(features[:n], rate=0.01, confidence=0.95)) for n in (730, 740, 1230)] == [
        0,
        1,
        2,
    ]
    assert risk_control.feature_groups(np.full(3000, 7), rate=0.01, confidence=0.95) == ()
