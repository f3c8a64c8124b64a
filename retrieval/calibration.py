"""Calibrates an index on strangers: photos that show nothing of it, so that every accepted answer is wrong."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from delf_jax.errors import DelfError
from delf_jax.extraction.calibration import Calibration
from delf_jax.features import LocalFeatures
from delf_jax.settings import ExtractionSettings
from retrieval.search import SearchableIndex
from retrieval.verification import risk_control

VERIFIED = 100
# How much thresholds fall for each tenfold size of an index that grows, as if each photo were one more chance: about
# 10^(t / 2) of the strangers come to t (``python -m benchmarks.calibration``), so tenfold chances take 2.
FALL = 2.0


class CalibrationError(DelfError):
    """The strangers cannot calibrate the index."""


@dataclasses.dataclass(frozen=True)
class StrangerScore:
    """How sure the surest match of a stranger is.

    Attributes:
        name: of the stranger.
        features: number of its features.
        log10_nfa: the lowest of its matches; infinite if there is none.
        image: the photo of the index; None if there is none.
    """

    name: str
    features: int
    log10_nfa: float
    image: str | None


def scores(index: SearchableIndex, strangers: Iterable[tuple[str, LocalFeatures]]) -> Iterator[StrangerScore]:
    """Searches for each stranger as a search with default settings does. Those without features are left out.

    Raises:
        CalibrationError: a stranger is a photo of the index.
        SearchIndexError: its features do not fit the index.
    """
    names = frozenset(index.names)
    for name, features in strangers:
        if name in names:
            raise CalibrationError(f"{name}: this stranger is in the index; leave it out")
        if len(features):
            yield _score(index, name, features)


def calibrated(
    index: SearchableIndex, found: Sequence[StrangerScore], *, wrong_per_thousand: float, confidence: float = 0.95
) -> Calibration:
    """The thresholds with which an index accepts at most so many of 1000 strangers; see ``risk_control``.

    If there are enough strangers, they are divided by their numbers of features, and the bound holds for each part.

    Args:
        index: which was searched for the strangers.
        found: from ``scores``.
        wrong_per_thousand: so many wrong acceptances in 1000 queries are bearable.
        confidence: how sure that is to hold.

    Raises:
        CalibrationError: too few strangers for this bound.
    """
    rate = wrong_per_thousand / 1000
    values = np.array([one.log10_nfa for one in found])
    features = np.array([one.features for one in found], int)
    if risk_control.threshold_for(values, rate=rate, confidence=confidence) is None:
        raise CalibrationError(too_few(len(found), wrong_per_thousand=wrong_per_thousand, confidence=confidence))
    cuts = risk_control.feature_groups(features, rate=rate, confidence=confidence)
    each = risk_control.group_confidence(confidence, len(cuts) + 1)
    groups = [values[np.searchsorted(cuts, features, side="right") == group] for group in range(len(cuts) + 1)]
    thresholds = [risk_control.threshold_for(group, rate=rate, confidence=each) for group in groups]
    settings = index.settings or ExtractionSettings()
    return Calibration(
        wrong_per_thousand=wrong_per_thousand,
        confidence=confidence,
        strangers=len(found),
        fingerprint=index.fingerprint or "",
        scorer=settings.scorer,
        detection=settings.detection,
        verified=min(VERIFIED, len(index)),
        photos=len(index),
        photos_tested=len(index),
        features_tested=int(features.max()),
        fall=FALL,
        feature_counts=cuts,
        thresholds=tuple(threshold for threshold in thresholds if threshold is not None),
    )


def too_few(strangers: int, *, wrong_per_thousand: float, confidence: float) -> str:
    """What so few strangers can prove, and how many a bound takes.

    >>> too_few(50, wrong_per_thousand=1, confidence=0.95)
    '50 strangers are too few: if none is accepted they prove at most 59 wrong in 1000 queries; 1 in 1000 takes 2995'
    """
    needed = risk_control.strangers_needed(wrong_per_thousand / 1000, confidence=confidence)
    proved = 1000 * risk_control.upper_bound(0, strangers, confidence=confidence)
    # Rounded up, so that it can be asked for.
    proved = np.ceil(proved * 10) / 10 if proved < 10 else np.ceil(proved)
    can = f"if none is accepted they prove at most {proved:g} wrong in 1000 queries; " if strangers else ""
    return f"{strangers} strangers are too few: {can}{wrong_per_thousand:g} in 1000 takes {needed}"


def _score(index: SearchableIndex, name: str, features: LocalFeatures) -> StrangerScore:
    # Where a match can be accepted, those on overlays are taken out of it.
    matches = index.search(features, verify=VERIFIED, top=VERIFIED, threshold=risk_control.LOOSEST).matches
    sure = [(match.log10_nfa, match.image) for match in matches if match.log10_nfa is not None]
    if not sure:
        return StrangerScore(name, len(features), np.inf, None)
    log10_nfa, image = min(sure)
    if _are_same(features, index.features(image)):
        raise CalibrationError(f"{name}: this stranger is {image} of the index; leave it out")
    return StrangerScore(name, len(features), log10_nfa, image)


def _are_same(a: LocalFeatures, b: LocalFeatures) -> bool:
    """Whether two photos have the same bytes, as far as their features can say."""
    same_size = tuple(a.image_size) == tuple(b.image_size) and len(a) == len(b)
    return same_size and np.allclose(np.sort(a.keypoints, axis=0), np.sort(b.keypoints, axis=0), atol=0.01)
