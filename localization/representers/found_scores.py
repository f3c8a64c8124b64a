"""From which score on a photo holds an object: what nearly all training photos reach."""

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from localization.representers.points import Points

_BLOCK = 2048
_SHARE, _CONFIDENCE = 0.99, 0.95


def photo_scores(
    points: Points, w: Float[np.ndarray, " c"], *, label: str | None = None
) -> Float[np.ndarray, " photos"]:
    """The largest cosine with ``w`` of each photo that has points; only of photos of a class if ``label`` names it."""
    best = np.full(len(points.photos), -np.inf, np.float32)
    rows = np.arange(len(points))
    if label is not None:
        of_class = np.array([photo == label for photo in points.photos.labels()], bool)
        rows = rows[of_class[points.photo]]
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        np.maximum.at(best, points.photo[block], points.unit[block].astype(np.float32) @ w.astype(np.float32))
    return best[np.isfinite(best)]


def lower_bound(scores: Float[np.ndarray, " n"]) -> float:
    """A level that 99 % of photos like these exceed, with confidence 95 % if scores are normal; at least 0.

    It is mean - k * deviation, with Natrella's approximation of the one-sided tolerance factor k (NBS Handbook 91).

    >>> lower_bound(np.array([0.2, 0.3, 0.4] * 60))
    0.088...
    >>> lower_bound(np.array([0.3, 0.4]))  # two photos say nothing
    0.0
    """
    count = len(scores)
    share, confidence = NormalDist().inv_cdf(_SHARE), NormalDist().inv_cdf(_CONFIDENCE)
    a = 1 - confidence**2 / (2 * (count - 1)) if count > 1 else 0
    if a <= 0:
        return 0.0
    b = share**2 - confidence**2 / count
    k = (share + math.sqrt(share**2 - a * b)) / a
    return max(0.0, float(np.mean(scores, dtype=np.float64) - k * np.std(scores, ddof=1, dtype=np.float64)))
