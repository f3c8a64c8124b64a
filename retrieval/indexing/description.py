"""What an index knows about the features of all its photos."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from delf_jax.features import LocalFeatures
from delf_jax.settings import ExtractionSettings
from delf_jax.store.reader import FeatureStore
from retrieval.verification.acceptance_threshold import calibrated_threshold


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexDescription:
    """How the features of an index were made, and when its matches are accepted.

    Attributes:
        settings: what the features were extracted with; None if that is not known.
        fingerprint: of the model that made the features; None if that is not known.
        threshold: matches are accepted at or below this ``log10_nfa``.
        head_path: the head file of the features; None for the model's own head.
    """

    settings: ExtractionSettings | None
    fingerprint: str | None
    threshold: float
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

        If no threshold is given, it is that of the head file, or of the model's own head.
        """
        if isinstance(photos, FeatureStore):
            settings, fingerprint, head_path = photos.settings, photos.fingerprint, photos.head_path
        return cls(
            settings=settings,
            fingerprint=fingerprint,
            threshold=calibrated_threshold(head_path, settings) if threshold is None else threshold,
            head_path=None if head_path is None else Path(head_path),
        )
