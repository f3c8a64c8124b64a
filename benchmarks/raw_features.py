"""Keeps features of the backbone before scorer and PCA, so that the encoder runs only once for all heads."""

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
        """Everything on which the features depend besides the photo, as JSON values."""
        return {"method": "delf-jax", "weights": self.extractor.fingerprint, **self.extractor.settings.to_json()}

    def __call__(self, photos: Sequence[Path]) -> list[LocalFeatures]:
        """Features of each photo, in the given order."""
        return self.extractor(photos)

    def cached(self, photos: Sequence[Path], folder: Path) -> list[LocalFeatures]:
        """As a call, but only photos that are not in ``folder`` yet are computed."""
        return cached_features(self, photos, description=self.description, folder=folder)


def score(raw: LocalFeatures, arrays: Mapping[str, Any], scorer: Scorer) -> Float[np.ndarray, " n"]:
    """The scores that the arrays of a head give raw features."""
    return _in_buckets(lambda dense: attention.score(dense, arrays, scorer), _dense(raw))


def with_head(
    raw: LocalFeatures, arrays: Mapping[str, Any], scorer: Scorer, *, max_features: int | None = None
) -> LocalFeatures:
    """Raw features after the scores and the PCA of a head, strongest first. Those without a score are left out.

    Args:
        raw: of one photo.
        arrays: ``Head.arrays()``.
        scorer: that the head carries.
        max_features: most features that are kept; None keeps all.
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
        domain=raw.domain,
    )


def _dense(raw: LocalFeatures) -> Float[np.ndarray, "n c"]:
    """The dense features, not normalised, from which raw features were made."""
    return np.asarray(raw.descriptors * raw.scores[:, None])


def _in_buckets(function: Callable[[np.ndarray], Array], rows: Float[np.ndarray, "n c"]) -> np.ndarray:
    """Applies a function to rows, padded to few different lengths, because each length is compiled again."""
    padded = np.zeros((max(256, 1 << (len(rows) - 1).bit_length()), rows.shape[1]), np.float32)
    padded[: len(rows)] = rows
    return np.asarray(function(padded))[: len(rows)]
