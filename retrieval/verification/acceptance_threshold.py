"""The threshold that decides between accepting and refusing a match, and where it comes from.

A match is accepted if its ``log10_nfa`` is at or below the threshold. The head of a model carries one, calibrated on
photos that match nothing (``python -m benchmarks.calibration``); an index keeps that of its model.
"""

import contextlib
import os

from delf_jax.errors import ModelError
from delf_jax.extraction.head import Head
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
