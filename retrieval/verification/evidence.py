"""The evidence for an answer: its votes and its geometry in one number, by which answers are ordered.

The odds that a photo shows what the query shows, given its votes v and its number of false alarms NFA, are taken as

    odds ~ v^a (1 + (g / NFA)^b)

A right photo with no geometry to show is judged by its votes alone: the second factor grows only where the agreement is
rarer than what chance gives. ``WEIGHTS`` (a, g, b) were fitted on landmarks, by ``python -m benchmarks.evidence``.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Weights(NamedTuple):
    """The power of the votes (a), the NFA at which geometry doubles the odds (g), and the power of the geometry (b)."""

    votes: float
    doubling_nfa: float
    geometry: float


WEIGHTS = Weights(votes=2.4, doubling_nfa=850.0, geometry=0.39)
# Photos with fewer votes are compared by their geometry.
LEAST_VOTES = 1e-6


def log10_odds(votes: ArrayLike, log10_nfa: ArrayLike, weights: Weights = WEIGHTS) -> np.ndarray:
    """log10 of the odds up to a constant of the query, float64; it never falls with more votes or a lower log10_nfa.

    A photo that was not verified has a log10_nfa of infinity. Arguments broadcast.

    >>> float(log10_odds([1.0, 10.0], np.inf, Weights(votes=2.0, doubling_nfa=1.0, geometry=0.5))[1])
    2.0
    >>> round(float(log10_odds(10.0, -4.0, Weights(votes=2.0, doubling_nfa=0.01, geometry=0.5))), 3)  # 2 + log10(11)
    3.041
    """
    rarer = np.log(weights.doubling_nfa) - np.log(10.0) * np.asarray(log10_nfa)
    geometry = np.logaddexp(0.0, weights.geometry * rarer) / np.log(10.0)
    return np.asarray(weights.votes * np.log10(np.maximum(votes, LEAST_VOTES)) + geometry)
