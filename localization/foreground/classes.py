"""Classes for weakly supervised localization: found by clustering, or predicted from the mean feature of a photo.

``cluster`` makes what ``fit(labels=...)`` takes; ``nearest_mean`` and ``linear_probe`` make what
``Predictor.localize(classifier=...)`` takes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from delf_jax.errors import ImageError, PredictorError
from delf_jax.models.layers import valid_cells
from localization.encoders.base import DenseFeatures
from localization.encoders.choosing import as_named_photos
from localization.foreground.statistics import Statistics


class Classifier(NamedTuple):
    """Logits of a photo from its mean feature m: (m - centre) / ||m - centre|| @ matrix + offset.

    Attributes:
        names: class names.
        centre: float64 [C].
        matrix: float64 [C, classes].
        offset: float64 [classes].
    """

    names: Sequence[str]
    centre: Float[np.ndarray, " c"]
    matrix: Float[np.ndarray, "c k"]
    offset: Float[np.ndarray, " k"]

    def logits(self, means: Float[np.ndarray, "*n c"]) -> Float[np.ndarray, "*n k"]:
        """Logits of mean features [..., C]."""
        return _centred(means, self.centre) @ self.matrix + self.offset

    def ranked(self, mean: Float[np.ndarray, " c"]) -> list[str]:
        """Class names for the mean feature of one photo, most likely first."""
        return [self.names[i] for i in np.argsort(-self.logits(mean), kind="stable")]


def mean_feature(dense: DenseFeatures) -> Float[Array, "b c"]:
    """The mean feature of each photo of a batch, float32 [B, C]; pure."""
    features = dense.features.astype(jnp.float32)
    where = valid_cells(dense.cells_hw, *features.shape[1:3])[..., None]
    return jnp.sum(jnp.where(where, features, 0), axis=(1, 2)) / jnp.maximum(jnp.sum(where, axis=(1, 2)), 1)


def mean_features(
    photos: Any, *, encoder: Any = None, on_error: Callable[[ImageError], None] | None = None
) -> dict[str, Float[np.ndarray, " c"]]:
    """The mean feature of each photo, by name; photos and encoder as in ``localization.fit``.

    Raises:
        ImageError: a photo cannot be used and ``on_error`` is None.
    """
    named, encoder = as_named_photos(photos, encoder)
    means = {}
    for name, encoded, row in encoder.run(_mean_row, {}, named):
        if isinstance(encoded, ImageError):
            if on_error is None:
                raise encoded
            on_error(encoded)
        else:
            means[name] = np.asarray(row["mean"], np.float64)
    return means


def nearest_mean(statistics: Statistics) -> Classifier:
    """Classifies by the cosine with the mean feature of each class, after subtracting the mean of all features.

    Raises:
        PredictorError: fewer than two classes were fitted.
    """
    names = sorted(statistics.classes)
    if len(names) < 2:
        raise PredictorError(
            "classifying needs a predictor that was fitted with two or more classes; fit it with labels"
        )
    centre = statistics.total.feature / statistics.total.count
    means = np.stack([statistics.classes[n].feature / statistics.classes[n].count for n in names])
    return Classifier(names, centre, _centred(means, centre).T, np.zeros(len(names)))


def linear_probe(
    means: Mapping[str, Float[np.ndarray, " c"]], labels: Mapping[str, str], *, weight: float = 0.1
) -> Classifier:
    """Ridge regression for each class on centred, unit-length mean features, with targets 1 and 0.

    Args:
        means: from ``mean_features``.
        labels: class of each of these photos.
        weight: weight of the squared norm of the coefficients against the mean squared error.

    Raises:
        PredictorError: fewer than two classes.
    """
    names = sorted({labels[name] for name in means})
    if len(names) < 2:
        raise PredictorError("a linear probe needs photos of two or more classes")
    stacked = np.stack(list(means.values()))
    centre = stacked.mean(axis=0)
    x = _centred(stacked, centre)
    y = np.array([[labels[name] == c for c in names] for name in means], np.float64)
    offset = y.mean(axis=0)
    # With fewer photos than channels the dual system is the small one.
    dual = np.linalg.solve(x @ x.T + weight * len(x) * np.eye(len(x)), y - offset)
    return Classifier(names, centre, x.T @ dual, offset)


def cluster(means: Mapping[str, Float[np.ndarray, " c"]], count: int, *, seed: int = 0) -> dict[str, str]:
    """Clusters photos by k-means on centred, unit-length mean features; the classes are ``cluster 0`` and so on.

    Raises:
        PredictorError: fewer photos than clusters.
    """
    if not 1 <= count <= len(means):
        raise PredictorError(f"cannot make {count} clusters of {len(means)} photos")
    stacked = np.stack(list(means.values()))
    x = _centred(stacked, stacked.mean(axis=0)).astype(np.float32)
    cv2.setRNGSeed(seed)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-6)
    _, groups, _ = cv2.kmeans(x, count, np.zeros((len(x), 1), np.int32), criteria, 5, cv2.KMEANS_PP_CENTERS)
    return {name: f"cluster {group}" for name, group in zip(means, np.asarray(groups).reshape(-1))}


def _mean_row(arguments: Any, dense: DenseFeatures) -> dict[str, Any]:
    return {"mean": mean_feature(dense)}


def _centred(means: Float[np.ndarray, "*n c"], centre: Float[np.ndarray, " c"]) -> Float[np.ndarray, "*n c"]:
    shifted = np.asarray(means, np.float64) - centre
    return shifted / np.maximum(np.linalg.norm(shifted, axis=-1, keepdims=True), 1e-12)
