"""The threshold that decides between accepting and refusing a match, and where it comes from.

A match is accepted if its ``log10_nfa`` is at or below the threshold. The head of a model carries one, calibrated on
photos that match nothing (``python -m benchmarks.calibration``); an index keeps that of its model, and features that
an extractor made know it.
"""

import contextlib
import os

from delf_jax.errors import ModelError
from delf_jax.extraction.head import Head
from delf_jax.features import LocalFeatures
from delf_jax.loading import model_paths
from delf_jax.settings import ExtractionSettings

# For models without calibration: one false alarm in 100 000 queries, if matches of unrelated photos were random.
DEFAULT_THRESHOLD = -5.0


def calibrated_threshold(head_path: str | os.PathLike[str] | None, settings: ExtractionSettings | None) -> float:
    """The threshold for ``log10_nfa``: of the head file, or of the model's own head, or ``DEFAULT_THRESHOLD``."""
    found = None
    if head_path is not None:
        found = Head.open(head_path).log10_nfa_threshold
    elif settings is not None:
        # The model may be on another machine; indexing does not need it.
        with contextlib.suppress(ModelError):
            found = Head.open(model_paths(settings.model)[1]).log10_nfa_threshold
    return DEFAULT_THRESHOLD if found is None else found


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
    """
    if log10_nfa is None:
        return "not verified"
    verdict = "accepted" if log10_nfa <= threshold else "refused"
    often = "in every try" if _tries(log10_nfa) == "1" else f"once in {_tries(log10_nfa)} tries"
    return f"{verdict}: chance does as well {often} (limit: once in {_tries(threshold)})"


def _tries(log10_nfa: float) -> str:
    # Cut, not rounded: what is refused never seems to reach the limit.
    return f"10^{int(-log10_nfa)}" if log10_nfa < -6 else f"{max(1, int(10**-log10_nfa))}"
