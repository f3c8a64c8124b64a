"""Where batches come from: augmented photos through the loader, or cached dense features."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

import delf_jax
from delf_jax.head import Head
from delf_jax.training import dense_cache
from delf_jax.training.backbones import Backbone
from delf_jax.training.dense_cache import CachedBatches, padded_batch
from delf_jax.training.loader import Loader
from delf_jax.training.samples import PhotoList, split
from delf_jax.training.settings import TrainingError, TrainingSettings
from delf_jax.training.views import plain_view, random_view


class Feed(Protocol):
    """Endless batches that can be stopped and gone on with."""

    @property
    def failures(self) -> Any: ...
    @property
    def steps_per_epoch(self) -> int: ...
    def __next__(self) -> Any: ...
    def get_state(self) -> dict[str, Any]: ...
    def set_state(self, state: Any) -> None: ...
    def close(self) -> None: ...


class Feeds(NamedTuple):
    """What a run reads.

    Attributes:
        training: endless batches.
        validation: makes one pass over the photos kept aside; None where none are.
        photos: photos trained on.
    """

    training: Feed
    validation: Callable[[], Iterable[Any]] | None
    photos: int


def photo_feeds(samples: PhotoList, settings: TrainingSettings, *, workers: int = 0) -> Feeds:
    """Batches of crops, decoded as they are needed."""
    kept, aside = _parts(samples, settings)
    loader = Loader(
        kept,
        random_view(settings, settings.side),
        batch_size=settings.batch_size,
        seed=settings.seed,
        gamma=(settings.smallest_gamma, 1.0),
        workers=workers,
    )

    def validation() -> Iterable[Any]:
        with Loader(aside, plain_view(settings), batch_size=settings.batch_size, order="listed") as listed:
            yield from listed

    return Feeds(loader, validation if len(aside) else None, len(kept))


def cached_feeds(
    samples: PhotoList,
    settings: TrainingSettings,
    folder: Path,
    *,
    model: str,
    progress: Callable[[int, int], None] | None = None,
) -> Feeds:
    """Batches of dense features, which are computed first where ``folder`` does not hold them yet."""
    extractor = delf_jax.load(
        model, head=Head(), scorer="norm", max_side=max(settings.view_sides), precision=settings.precision
    )
    channels = Backbone.open(model).channels(settings.layer)
    cache = dense_cache.open_or_make(folder, extractor, samples, settings, channels=channels, progress=progress)
    _, aside = _parts(samples, settings)
    held_out = np.isin(samples.names, list(aside.names))
    readable = np.isin(np.arange(len(samples)), cache.readable)
    photos, validated = np.flatnonzero(readable & ~held_out), np.flatnonzero(readable & held_out)

    def validation() -> Iterable[Any]:
        for start in range(0, len(validated), settings.batch_size):
            chosen = validated[start : start + settings.batch_size]
            yield padded_batch(cache, chosen, np.zeros(len(chosen), int), samples.labels, settings.batch_size)

    training = CachedBatches(cache, samples.labels, photos, settings.batch_size, settings.views, settings.seed)
    return Feeds(training, validation if len(validated) else None, len(photos))


def _parts(samples: PhotoList, settings: TrainingSettings) -> tuple[PhotoList, PhotoList]:
    kept, aside = split(samples, validation=settings.validation)
    if not len(kept):
        raise TrainingError(f"validation {settings.validation:g} leaves no photo to train on; lower it")
    return kept, aside
