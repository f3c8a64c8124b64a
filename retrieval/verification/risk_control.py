"""How many wrong acceptances a number of strangers can rule out, and the threshold that keeps to a bound.

A stranger is a query that shows nothing of the index; its score is the lowest ``log10_nfa`` of its matches. Thresholds
are tested from the strictest upwards, each with the hypothesis that more than the bearable share of strangers is
accepted, by the exact binomial test at one minus the confidence. The first that cannot be refused ends the sequence
(fixed-sequence testing, as in Learn Then Test: Angelopoulos et al., arXiv 2110.01052). Strangers must be independent of
each other, and like those that will be asked.
"""

import math

import numpy as np
from jaxtyping import Float, Int
from scipy.special import bdtr, betaincinv

# The loosest threshold that is tested: chance does as well once a query.
LOOSEST = 0.0
# Most groups of strangers by their numbers of features.
MOST_GROUPS = 3


def upper_bound(accepted: int, strangers: int, *, confidence: float) -> float:
    """The largest share of wrong acceptances with which so few of the strangers are accepted (Clopper and Pearson).

    >>> round(upper_bound(0, 3000, confidence=0.95), 6)
    0.000998
    """
    return 1.0 if accepted >= strangers else float(betaincinv(accepted + 1, strangers - accepted, confidence))


def lower_bound(accepted: int, strangers: int, *, confidence: float) -> float:
    """The smallest share of wrong acceptances with which so many of the strangers are accepted."""
    return 0.0 if accepted == 0 else float(betaincinv(accepted, strangers - accepted + 1, 1 - confidence))


def strangers_needed(rate: float, *, confidence: float) -> int:
    """How many strangers prove a rate if none of them is accepted: the least n with (1 - rate)^n <= 1 - confidence.

    >>> strangers_needed(0.001, confidence=0.95)
    2995
    """
    return math.ceil(math.log1p(-confidence) / math.log1p(-rate))


def most_accepted(strangers: int, *, rate: float, confidence: float) -> int:
    """How many of the strangers may be accepted so that the rate is still proved; -1 if even none proves it.

    >>> most_accepted(10_000, rate=0.001, confidence=0.95)
    4
    """
    chances = bdtr(np.arange(strangers + 1), strangers, rate)
    return int(np.searchsorted(chances, 1 - confidence, side="right")) - 1


def threshold_for(
    scores: Float[np.ndarray, " n"], *, rate: float, confidence: float, independent: int | None = None
) -> float | None:
    """The loosest threshold that keeps to a rate of wrong acceptances, in hundredths; None for too few strangers.

    Strangers that go wrong together count as so many ``independent`` ones; all n if not given.
    """
    count = len(scores) if independent is None else independent
    most = most_accepted(count, rate=rate, confidence=confidence)
    if most < 0:
        return None
    if most >= len(scores):
        return LOOSEST
    first_beyond = float(np.sort(scores)[most])
    hundredths = math.floor(100 * min(first_beyond, LOOSEST + 1))
    return min(LOOSEST, (hundredths if hundredths / 100 < first_beyond else hundredths - 1) / 100)


def feature_groups(features: Int[np.ndarray, " n"], *, rate: float, confidence: float) -> tuple[int, ...]:
    """Numbers of features that divide strangers into as many groups as can be tested, of about equal size.

    Each of b groups is tested with the confidence 1 - (1 - ``confidence``) / b, so that all bounds hold together
    (Bonferroni). The groups do not depend on the scores.
    """
    for groups in range(MOST_GROUPS, 1, -1):
        cuts = np.unique(np.quantile(features, np.arange(1, groups) / groups, method="nearest"))
        sizes = np.bincount(np.searchsorted(cuts, features, side="right"), minlength=len(cuts) + 1)
        needed = strangers_needed(rate, confidence=group_confidence(confidence, groups))
        if len(cuts) == groups - 1 and sizes.min() >= needed:
            return tuple(int(cut) for cut in cuts)
    return ()


def group_confidence(confidence: float, groups: int) -> float:
    """The confidence for each group with which all bounds hold together."""
    return 1 - (1 - confidence) / groups
