"""What an index knows about the features of all its photos."""

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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

    @classmethod
    def from_json(cls, described: Mapping[str, Any], *, head_path: Path | None = None) -> "IndexDescription":
        """The description in a manifest, as ``to_json`` writes it; KeyError, TypeError or ValueError if it is not."""
        settings, fingerprint, threshold = (described[name] for name in ("settings", "fingerprint", "threshold"))
        calibration = described.get("calibration")  # version 0.1 wrote none
        if not isinstance(fingerprint, str | None):
            raise TypeError("the fingerprint is no text")
        if type(threshold) not in (int, float) or math.isnan(threshold):
            raise ValueError("the threshold is no number")
        return cls(
            settings=None if settings is None else ExtractionSettings.from_json(settings),
            fingerprint=fingerprint,
            threshold=float(threshold),
            calibration=None if calibration is None else Calibration.from_json(calibration),
            head_path=head_path,
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values of all but the head."""
        return {
            "settings": None if self.settings is None else self.settings.to_json(),
            "fingerprint": self.fingerprint,
            "threshold": self.threshold,
            "calibration": None if self.calibration is None else self.calibration.to_json(),
        }
