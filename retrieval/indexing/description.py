"""What an index knows about the features of all its photos."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from delf_jax.extraction.calibration import Calibration
from delf_jax.features import LocalFeatures
from delf_jax.settings import ExtractionSettings
from delf_jax.store.reader import FeatureStore
from retrieval.verification.acceptance_threshold import calibrated


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexDescription:
    """How the features of an index were made, and when its matches are accepted.

    Attributes:
        settings: what the features were extracted with; None if that is not known.
        fingerprint: of the model that made the features; None if that is not known.
        threshold: matches are accepted at or below this ``log10_nfa``, if there is no calibration.
        calibration: the thresholds that were calibrated on strangers; None if there are none.
        head_path: the head file of the features; None for the model's own head.
    """

    settings: ExtractionSettings | None
    fingerprint: str | None
    threshold: float
    calibration: Calibration | None = None
    head_path: Path | None = None

    @classmethod
    def of(
        cls,
        photos: FeatureStore | Iterable[tuple[str, LocalFeatures]],
        *,
        settings: ExtractionSettings | None,
        fingerprint: str | None,
        threshold: float | None,
        head_path: str | os.PathLike[str] | None,
    ) -> "IndexDescription":
        """The description of an index of these photos: a store brings its own, except for the threshold.

        If no threshold is given, it is that of the head file, or of the model's own head, with its calibration.
        """
        if isinstance(photos, FeatureStore):
            settings, fingerprint, head_path = photos.settings, photos.fingerprint, photos.head_path
        calibration = None
        if threshold is None:
            threshold, calibration = calibrated(head_path, settings, fingerprint)
        return cls(
            settings=settings,
            fingerprint=fingerprint,
            threshold=threshold,
            calibration=calibration,
            head_path=None if head_path is None else Path(head_path),
        )
