"""Checks that features fit an index: the same model, the same settings, the same dimension."""

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from delf_jax.errors import SearchIndexError
from delf_jax.features import LocalFeatures
from delf_jax.settings import ExtractionSettings
from delf_jax.store.reader import FeatureStore


@runtime_checkable
class ExtractedPhotos(Protocol):
    """What an index knows of the extraction of its photos."""

    @property
    def settings(self) -> ExtractionSettings | None:
        """What the features were extracted with; None if that is not known."""

    @property
    def fingerprint(self) -> str | None:
        """Of the model that made the features; None if that is not known."""


def require_same_model(index: ExtractedPhotos, fingerprint: str) -> None:
    """Raises SearchIndexError if ``fingerprint`` is not that of the index."""
    if index.fingerprint is not None and fingerprint != index.fingerprint:
        raise SearchIndexError(
            f"the index was made by another model ({index.fingerprint[:12]}, not {fingerprint[:12]}); "
            "use the model of the index, or extract and index again"
        )


def require_same_extraction(index: ExtractedPhotos, store: FeatureStore) -> None:
    """Raises SearchIndexError if a store was made by another model or with other settings than the index."""
    require_same_model(index, store.fingerprint)
    if index.settings is None:
        return
    mine, theirs = index.settings.to_json(), store.settings.to_json()
    # The same weights may be at another path; the fingerprint compares the weights.
    differ = [name for name in mine if name != "model" and mine[name] != theirs[name]]
    if differ:
        raise SearchIndexError(
            f"the photos were extracted with {differ[0]} {theirs[differ[0]]}, the index has {mine[differ[0]]}; "
            "extract them with the settings of the index"
        )


def require_dimension(query: LocalFeatures, dimension: int) -> None:
    """Raises SearchIndexError if a query's descriptors do not have the dimension of the index."""
    found = query.descriptors.shape[1]
    if found != dimension:
        raise SearchIndexError(
            f"the query's descriptors have {found} dimensions, those of the index {dimension}; "
            "extract the query with the model of the index"
        )


def photos_with_names(
    photos: FeatureStore | Iterable[tuple[str, LocalFeatures]],
) -> Iterator[tuple[str, LocalFeatures]]:
    """(name, features) of every photo of a store or a stream, without features that are not finite."""
    if isinstance(photos, FeatureStore):
        photos = ((photo.path, photo.features) for photo in photos)
    return ((name, finite_features(features)) for name, features in photos)


def finite_features(features: LocalFeatures) -> LocalFeatures:
    """The same features without those that hold NaN or infinite numbers."""
    finite = features.is_finite()
    return features if finite.all() else features.take(finite)
