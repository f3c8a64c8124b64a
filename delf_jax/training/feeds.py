"""Where batches come from: augmented photos through the loader, or cached dense features."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

import delf_jax
from delf_jax.extraction.head import Head
from delf_jax.training import dense_cache
from delf_jax.training.cached_batches import CachedBatches, padded_batch
from delf_jax.training.dense_cache import DenseCache
from delf_jax.training.loader import BatchPlan, Loader
from delf_jax.training.samples import Samples
from delf_jax.training.settings import TrainingSettings
from delf_jax.training.views import plain_view, random_view


@runtime_checkable
class Feed(Protocol):
    """Endless batches that can be stopped and resumed."""

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
        validation: makes one pass over the photos kept aside; None if no photos are kept aside.
        failures_aside: reason by name, of the photos kept aside that could not be read so far.
    """

    training: Feed
    validation: Callable[[], Iterable[Any]] | None
    failures_aside: Mapping[str, str] = MappingProxyType({})


def photo_feeds(
    training: Samples, validation: Samples | None, settings: TrainingSettings, *, workers: int = 0
) -> Feeds:
    """Batches of crops, decoded as they are needed."""
    loader = Loader(
        training,
        random_view(settings, settings.side),
        BatchPlan(settings.batch_size, settings.order, settings.seed, (settings.smallest_gamma, 1.0)),
        workers=workers,
    )
    if validation is None:
        return Feeds(loader, None)

    failures: dict[str, str] = {}

    def validate() -> Iterable[Any]:
        with Loader(validation, plain_view(settings), BatchPlan(settings.batch_size, "listed")) as listed:
            yield from listed
            failures.update(listed.failures)

    return Feeds(loader, validate, failures)


def cached_feeds(
    training: Samples,
    validation: Samples | None,
    settings: TrainingSettings,
    folder: Path,
    *,
    model: str,
    progress: Callable[[int, int], None] | None = None,
) -> Feeds:
    """Batches of dense features, which are computed first if they are not in ``folder`` yet."""
    extractor = delf_jax.load(
        model, head=Head(), scorer="norm", max_side=max(settings.view_sides), precision=settings.precision
    )

    def cached(samples: Samples, name: str, views: int) -> DenseCache:
        wanted = dataclasses.replace(settings, views=views)
        place = folder / name
        return dense_cache.open_or_make(place, extractor, samples, wanted, progress=progress)

    cache = cached(training, "training", settings.views)
    batches = CachedBatches(
        cache,
        training.labels,
        settings.batch_size,
        order=settings.order,
        cells_per_step=settings.cells_per_step,
        seed=settings.seed,
    )
    if validation is None:
        return Feeds(batches, None)
    aside = cached(validation, "validation", 1)

    def validate() -> Iterable[Any]:
        for start in range(0, len(aside.readable), settings.batch_size):
            chosen = aside.readable[start : start + settings.batch_size]
            yield padded_batch(aside, chosen, np.zeros(len(chosen), int), validation.labels, rows=settings.batch_size)

    return Feeds(batches, validate, dict(aside.failures))
