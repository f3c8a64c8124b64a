"""The closed form of the foreground direction (Song et al., ICCV 2023): w*, tau and the importance alpha.

Over N positions with features f_i, v is the mean of f_i and u the mean of f_i / ||f_i||:

    tau = ||v|| / ||u||        w* = (v - tau u) / ||v - tau u||

docs/maths/foreground.md says what they mean.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from delf_jax.errors import PredictorError
from localization.foreground.statistics import NORM_EDGES, Statistics

_MINIMUM_ANGLE = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """The foreground direction of one group of positions.

    Attributes:
        w: float64 [C], unit length: w*.
        tau: norm threshold ||v|| / ||u||; positions with a larger norm count as foreground.
        scale: Z = ||v - tau u||.
        count: N, the number of positions.
        angle: radians between v and u.
    """

    w: Float[np.ndarray, " c"]
    tau: float
    scale: float
    count: int
    angle: float

    def importance(
        self, norms: Float[np.ndarray, "*n"], cosines: Float[np.ndarray, "*n"] | None = None
    ) -> Float[np.ndarray, "*n"]:
        """Global sample importance alpha_i = (r_i - tau) / (N Z) of training positions with norms r_i.

        w* = sum_i alpha_i f_i / ||f_i||. Only losses at finite lambda use ``cosines``, those of the positions with w.
        """
        return (np.asarray(norms, np.float64) - self.tau) / (self.count * self.scale)


def solve(statistics: Statistics, *, label: str | None = None) -> Solution:
    """The closed form, in float64.

    Args:
        label: solve for the photos of this class instead of all.

    Raises:
        PredictorError: no positions, an unknown class, or norms that hardly vary: an angle between v and u below 1e-3
            radians would leave rounding errors only.
    """
    v, u, count = _means(statistics, label)
    v_norm, u_norm = float(np.linalg.norm(v)), float(np.linalg.norm(u))
    direction = v / v_norm - u / u_norm
    length = float(np.linalg.norm(direction))
    angle = _angle(v, u)
    if angle < _MINIMUM_ANGLE:
        raise PredictorError(
            f"{_of(label)}the encoder's feature norms hardly vary (mean feature and mean unit feature are "
            f"{np.degrees(angle):.1e} degrees apart), so they cannot tell objects from background; "
            "use features after a ReLU"
        )
    return Solution(direction / length, v_norm / u_norm, v_norm * length, count, angle)


@dataclasses.dataclass(frozen=True)
class Diagnostics:
    """Whether the norms of the features say anything about the foreground.

    Attributes:
        angle_degrees: between mean feature and mean unit feature; rounding errors dominate if it is tiny.
        positive_share: share of the positions with a norm above tau, accurate to the width of a histogram bin.
        norm_spread: standard deviation of the norms divided by their mean.
    """

    angle_degrees: float
    positive_share: float
    norm_spread: float


def diagnostics(statistics: Statistics) -> Diagnostics:
    """Angle, share of positive importance and spread of the norms, of all positions.

    Raises:
        PredictorError: no positions.
    """
    v, u, count = _means(statistics, None)
    tau = float(np.linalg.norm(v) / np.linalg.norm(u))
    mean = statistics.norm_sum / count
    variance = max(statistics.norm_square_sum / count - mean**2, 0.0)
    shares = np.concatenate([[0], np.cumsum(statistics.norm_histogram)]) / count
    below = np.interp(tau, np.append(NORM_EDGES[:-1], 1e7), shares)
    return Diagnostics(float(np.degrees(_angle(v, u))), float(1 - below), float(np.sqrt(variance) / mean))


def _means(statistics: Statistics, label: str | None) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"], int]:
    if label is not None and label not in statistics.classes:
        known = ", ".join(sorted(statistics.classes)[:20])
        raise PredictorError(f"class {label!r} was not fitted; these were: {known}")
    sums = statistics.total if label is None else statistics.classes[label]
    if sums.count < 1:
        raise PredictorError(f"{_of(label)}no positions to fit on; give at least one readable photo")
    if not (sums.feature.any() and sums.unit.any()):
        raise PredictorError(f"{_of(label)}all features are zero; check the encoder and its input")
    return sums.feature / sums.count, sums.mean_unit, sums.count


def _angle(v: Float[np.ndarray, " c"], u: Float[np.ndarray, " c"]) -> float:
    # Half-angle formula: the arccos of the cosine loses half of the digits at small angles.
    v, u = v / np.linalg.norm(v), u / np.linalg.norm(u)
    return 2 * float(np.arctan2(np.linalg.norm(v - u), np.linalg.norm(v + u)))


def _of(label: str | None) -> str:
    return "" if label is None else f"class {label!r}: "
