"""The threshold that decides between accepting and refusing a match, and what is known of it.

A match is accepted if its ``log10_nfa`` is at or below the threshold. The head of a model carries a ``Calibration`` on
strangers (``python -m benchmarks.calibration``); an index keeps that of its model, or gets its own (`delf-jax
calibrate`), and features that an extractor made know their threshold.
"""

import contextlib
import dataclasses
import math
import os

from delf_jax.errors import ModelError
from delf_jax.extraction.calibration import Calibration
from delf_jax.extraction.head import Head
from delf_jax.features import LocalFeatures
from delf_jax.loading import model_paths
from delf_jax.settings import ExtractionSettings

# For models without calibration: one false alarm in 100 000 queries, if matches of unrelated photos were random.
DEFAULT_THRESHOLD = -5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Acceptance:
    """When the matches of a query are accepted.

    Attributes:
        threshold: at or below this ``log10_nfa``.
        calibration: where the threshold comes from; None if it was not calibrated on strangers, or not for such a
            search.
        photos: number of photos of the index.
        features: number of features of the query; 0 if it is not known.
        other_search: the index has a calibration, but not for such a search.
    """

    threshold: float
    calibration: Calibration | None = None
    photos: int = 1
    features: int = 0
    other_search: bool = False

    @property
    def guarantee(self) -> str:
        """The bound on wrong acceptances in words, or that none is known.

        >>> Acceptance(threshold=-5.0).guarantee
        'no bound known (not calibrated on strangers); random matches come to it once in 100000 queries'
        >>> Acceptance(threshold=-math.inf, other_search=True).guarantee
        'no bound known (this kind of search was not calibrated); random matches come to it never'
        """
        if self.calibration is not None:
            return self.calibration.in_words(self.photos, self.features)
        why = "this kind of search was not calibrated" if self.other_search else "not calibrated on strangers"
        return f"no bound known ({why}); random matches come to it {_how_often(self.threshold, ' queries')}"


def acceptance(
    calibration: Calibration | None, threshold: float, *, features: int, photos: int, verified: int
) -> Acceptance:
    """When an index of so many photos accepts a query of so many features.

    Args:
        calibration: of the index, for this kind of search; None if there is none.
        threshold: of an index without calibration.
        features: number of features of the query.
        photos: number of photos of the index.
        verified: number of photos that are verified for the query.
    """
    if calibration is not None:
        threshold = calibration.threshold(features=features, photos=photos, verified=verified)
    return Acceptance(threshold=threshold, calibration=calibration, photos=photos, features=features)


def calibrated(
    head_path: str | os.PathLike[str] | None, settings: ExtractionSettings | None, fingerprint: str | None = None
) -> tuple[float, Calibration | None]:
    """The threshold of the head file, or of the model's own head, and its calibration for such features.

    ``fingerprint`` is that of their model; without it no calibration fits. A head of an older version has a threshold
    alone. Without either it is ``DEFAULT_THRESHOLD``.
    """
    head = None
    if head_path is not None:
        head = Head.open(head_path)
    elif settings is not None:
        # The model may be on another machine; indexing does not need it.
        with contextlib.suppress(ModelError):
            head = Head.open(model_paths(settings.model)[1])
    if head is None:
        return DEFAULT_THRESHOLD, None
    calibration = head.calibration(settings or ExtractionSettings(), fingerprint)
    if calibration is not None:
        return min(calibration.thresholds), calibration
    return DEFAULT_THRESHOLD if head.log10_nfa_threshold is None else head.log10_nfa_threshold, None


def threshold_of(*photos: LocalFeatures) -> float:
    """The strictest threshold that the features of these photos know; ``DEFAULT_THRESHOLD`` if none of them does."""
    known = [photo.log10_nfa_threshold for photo in photos if photo.log10_nfa_threshold is not None]
    return min(known, default=DEFAULT_THRESHOLD)


def in_words(log10_nfa: float | None, threshold: float) -> str:
    """How sure a match is: the verdict, how often chance does as well, and how often it may.

    >>> in_words(-48.2, -2.0)
    'accepted: chance does as well once in 10^48 tries (limit: once in 100)'
    >>> in_words(-1.999, -2.0)
    'refused: chance does as well once in 99 tries (limit: once in 100)'
    >>> in_words(0.7, -5.0)
    'refused: chance does as well in every try (limit: once in 100000)'
    >>> in_words(-7, -math.inf)
    'refused: chance does as well once in 10^7 tries (limit: never)'
    """
    if log10_nfa is None:
        return "not verified"
    verdict = "accepted" if log10_nfa <= threshold else "refused"
    often = "in every try" if log10_nfa > -math.log10(2) else _how_often(log10_nfa, " tries")
    return f"{verdict}: chance does as well {often} (limit: {_how_often(threshold)})"


def _how_often(log10_nfa: float, tries: str = "") -> str:
    if log10_nfa == -math.inf:
        return "never"
    # Cut, not rounded: what is refused never seems to reach the limit.
    number = f"10^{int(-log10_nfa)}" if log10_nfa < -6 else f"{max(1, int(10**-log10_nfa))}"
    return f"once in {number}{tries}"
