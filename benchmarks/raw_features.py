"""What the backbone sees, kept without scorer and projection: the encoder runs once for all heads."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float

import delf_jax
from benchmarks.feature_cache import cached_features
from delf_jax.extraction import attention
from delf_jax.extraction.descriptors import describe
from delf_jax.extraction.head import Head
from delf_jax.features import LocalFeatures
from delf_jax.settings import Scorer

# More than any photo has: the budget is cut after scoring.
ALL_PEAKS = 4000


class RawFeatures:
    """The packaged backbone's local features before any head: unit vectors of 1024 dimensions, scored by their norm."""

    def __init__(self, **settings: Any) -> None:
        """``settings`` are fields of ``ExtractionSettings``."""
        self.extractor = delf_jax.load(head=Head(), scorer="norm", **{"max_features": ALL_PEAKS, **settings})

    @property
    def description(self) -> dict[str, Any]:
        """Everything besides the photo that decides the features, as plain JSON values."""
        return {"method": "delf-jax", "weights": self.extractor.fingerprint, **self.extractor.settings.to_json()}

    def __call__(self, photos: Sequence[Path]) -> list[LocalFeatures]:
        """Features of each photo, in the order given."""
        return self.extractor(photos)

    def cached(self, photos: Sequence[Path], folder: Path) -> list[LocalFeatures]:
        """As a call, but only for photos that ``folder`` does not hold yet."""
        return cached_features(self, photos, description=self.description, folder=folder)


def score(raw: LocalFeatures, arrays: Mapping[str, Any], scorer: Scorer) -> Float[np.ndarray, " n"]:
    """Scores of raw features by a head's arrays."""
    return _in_buckets(lambda dense: attention.score(dense, arrays, scorer), _dense(raw))


def with_head(
    raw: LocalFeatures, arrays: Mapping[str, Any], scorer: Scorer, *, max_features: int | None = None
) -> LocalFeatures:
    """Raw features as a head scores and projects them, strongest first; those without a score are left out.

    Args:
        raw: of one photo.
        arrays: ``Head.arrays()``.
        scorer: that the head carries.
        max_features: the strongest so many; None keeps all.
    """
    scores = score(raw, arrays, scorer)
    rows = np.argsort(-scores, kind="stable")[:max_features]
    rows = rows[scores[rows] > 0]
    return LocalFeatures(
        keypoints=raw.keypoints[rows],
        scales=raw.scales[rows],
        scores=scores[rows],
        descriptors=_in_buckets(lambda dense: describe(dense, arrays), _dense(raw)[rows]),
        image_size=raw.image_size,
    )


def _dense(raw: LocalFeatures) -> Float[np.ndarray, "n c"]:
    """The un-normalised dense features that raw features were made of."""
    return np.asarray(raw.descriptors * raw.scores[:, None])


def _in_buckets(function: Callable[[np.ndarray], Array], rows: Float[np.ndarray, "n c"]) -> np.ndarray:
    """Applies a function of rows to few different numbers of rows, since each is compiled anew."""
    padded = np.zeros((max(256, 1 << (len(rows) - 1).bit_length()), rows.shape[1]), np.float32)
    padded[: len(rows)] = rows
    return np.asarray(function(padded))[: len(rows)]
