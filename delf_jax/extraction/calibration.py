"""Thresholds for accepting a match that were chosen on strangers, and the bound on wrong acceptances that they keep."""

import bisect
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from delf_jax.settings import Detection, ExtractionSettings, Scorer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """For which ``log10_nfa`` a search accepts, so that it seldom accepts a query that shows nothing of the index.

    Attributes:
        wrong_per_thousand: of 1000 such queries, so many are accepted at most.
        confidence: how sure that is, from 0 to 1.
        strangers: number of such queries with which it was tested.
        fingerprint: of the model and the head that made the features.
        scorer: of the features.
        detection: of the features.
        verified: photos whose geometry was verified for each query.
        photos: the thresholds are for an index of so many photos, and for smaller ones.
        photos_tested: the largest index with which strangers were tested.
        features_tested: the most features of such a query.
        fall: how much lower the thresholds are for each tenfold size of the index beyond ``photos``.
        feature_counts: ascending; where the number of features of the query divides the thresholds.
        thresholds: for queries with fewer features than the first of ``feature_counts``, fewer than the second, and so
            on; the last is for all other queries.
    """

    wrong_per_thousand: float
    confidence: float
    strangers: int
    fingerprint: str
    scorer: Scorer
    detection: Detection
    verified: int
    photos: int
    photos_tested: int
    features_tested: int
    fall: float
    feature_counts: tuple[int, ...] = ()
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        numbers = (self.wrong_per_thousand, self.confidence, self.fall, *self.thresholds)
        counts = (
            self.strangers,
            self.verified,
            self.photos,
            self.photos_tested,
            self.features_tested,
            *self.feature_counts,
        )
        if not all(type(value) in (int, float) and math.isfinite(value) for value in numbers):
            raise ValueError("a calibration's bounds and thresholds must be finite numbers")
        if not all(type(value) is int and value > 0 for value in counts):
            raise ValueError("a calibration's counts must be positive integers")
        if not (0 < self.wrong_per_thousand < 1000 and 0 < self.confidence < 1 and self.fall >= 0):
            raise ValueError("a calibration's bound, confidence or fall is impossible")
        if list(self.feature_counts) != sorted(set(self.feature_counts)):
            raise ValueError("a calibration's feature_counts must ascend")
        if len(self.thresholds) != len(self.feature_counts) + 1:
            raise ValueError("a calibration needs one threshold more than feature_counts")

    def fits(self, settings: ExtractionSettings, fingerprint: str | None) -> bool:
        """Whether it was made with such features; not if their ``fingerprint`` is not known."""
        made_with = (self.scorer, self.detection, self.fingerprint)
        return made_with == (settings.scorer, settings.detection, fingerprint)

    def covers(self, verified: int) -> bool:
        """Whether its bound holds where so many photos are verified: so many were, or all photos that there were."""
        return verified <= self.verified or self.verified >= self.photos_tested

    def threshold(self, *, features: int, photos: int = 1, verified: int | None = None) -> float:
        """A match is accepted at or below this ``log10_nfa``.

        Args:
            features: number of features of the query.
            photos: number of photos of the index; 1 for a pair of photos.
            verified: photos that are verified for the query, if the index has so many; those of the calibration if
                not given. Fewer are judged as if all of these had been: the best of a ranking are no random photos.
        """
        own = self.thresholds[bisect.bisect_right(self.feature_counts, features)]
        larger = max(0.0, math.log10(max(photos, 1)) - math.log10(self.photos))
        tried = min(self.verified, max(photos, 1))
        missing = max(0.0, math.log10(tried / max(1, tried if verified is None else verified)))
        return own - self.fall * larger - missing

    def in_words(self, photos: int, features: int = 0) -> str:
        """The bound for an index of so many photos, and a query of so many features; 0 for any.

        >>> calibration = Calibration(
        ...     wrong_per_thousand=1, confidence=0.95, strangers=3200, fingerprint="", scorer="learned",
        ...     detection="peaks", verified=100, photos=100, photos_tested=10000, features_tested=356, fall=0.5,
        ...     thresholds=(-3.0,)
        ... )
        >>> calibration.in_words(500)
        'at most 1 wrong in 1000 queries, 95 % sure, from 3200 strangers'
        >>> calibration.in_words(20000)
        'at most 1 wrong in 1000 queries, 95 % sure, from 3200 strangers (tested up to 10000 photos, not with 20000)'
        >>> calibration.in_words(500, features=812)
        'at most 1 wrong in 1000 queries, 95 % sure, from 3200 strangers (tested up to 356 features, not with 812)'
        """
        limits = ((self.photos_tested, photos, "photos"), (self.features_tested, features, "features"))
        beyond = "; ".join(f"up to {tested} {what}, not with {now}" for tested, now, what in limits if now > tested)
        return (
            f"at most {self.wrong_per_thousand:g} wrong in 1000 queries, {100 * self.confidence:g} % sure, "
            f"from {self.strangers} strangers" + (f" (tested {beyond})" if beyond else "")
        )

    def to_json(self) -> dict[str, Any]:
        """A dictionary that can be written as JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> "Calibration":
        """The inverse of ``to_json``; TypeError or ValueError if it is none."""
        if not isinstance(described, Mapping):
            raise TypeError("a calibration must be an object")
        lists = {name: tuple(described.get(name, ())) for name in ("feature_counts", "thresholds")}
        try:
            return cls(**{**described, **lists})
        except OverflowError as error:
            raise ValueError(f"a number of a calibration is too large: {error}") from error
