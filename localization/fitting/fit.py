"""Fits a foreground predictor to photos, or to their feature maps, in one pass."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from delf_jax.errors import ImageError, PredictorError
from delf_jax.models.layers import valid_cells
from localization.encoders.base import DenseFeatures, Encoder, Photos
from localization.encoders.choosing import as_named_photos
from localization.fitting.found_threshold import found_on
from localization.foreground import closed_form
from localization.foreground.statistics import PositionSums, Statistics, position_sums, unit_features
from localization.predictor import Predictor, default_map_threshold
from localization.representers.fitted_photos import FittedPhoto
from localization.representers.points import PointCollector, Points, thumbnail

_FOUND_PHOTOS = 100

Labels = Mapping[str, str] | Callable[[str], str | None]
OnError = Callable[[ImageError], None]


class FitSettings(NamedTuple):
    """What ``accumulate`` computes; see ``fit``."""

    labels: Labels | None = None
    norm_cap: float | None = None
    max_points: int = 100_000
    thumbnail_side: int = 160


class FitSums(NamedTuple):
    """What fitting needs of some photos.

    Attributes:
        statistics: running sums.
        points: training positions for explanations, or None.
        encoder: computed the features; None to open the one that the statistics name.
    """

    statistics: Statistics
    points: Points | None
    encoder: Encoder | None


@runtime_checkable
class Accumulate(Protocol):
    """Goes through photos: ``accumulate`` in this process; ``fitting.distributed`` has others."""

    def __call__(
        self, photos: Photos, settings: FitSettings, *, encoder: Any = None, on_error: OnError | None = None
    ) -> FitSums | None:
        """The sums and points of the photos; None if no photo can be used."""
        ...


def fit(
    photos: Photos,
    *,
    encoder: Any = None,
    labels: Labels | None = None,
    norm_cap: float | None = None,
    norm_quantile: float | None = None,
    max_points: int = 100_000,
    thumbnail_side: int = 160,
    on_error: OnError | None = None,
) -> Predictor:
    """Fits the foreground direction w* to photos without labels (Song et al., ICCV 2023, closed form).

    Args:
        photos: paths, fsspec addresses, bytes of files or uint8 arrays; or feature maps: float arrays [h, w, C], .npy
            paths, or (array, (height, width) of the photo) pairs. A mapping gives them names; otherwise a path is its
            own name.
        encoder: a ``localization`` encoder, or a delf-jax Extractor for its deepest map. None is the packaged
            ResNet-50's conv5, or for feature maps the maps as they are.
        labels: the class of a photo by its name. Each class gets a w* of its own besides the w* of all photos.
        norm_cap: longer features are shortened to this norm.
        norm_quantile: the same, with the cap at this quantile of the norms; this takes a first pass over the photos.
        max_points: largest number of training positions kept for explanations. With 0 none are kept: the predictor
            localizes, but does not explain, and its ``found_threshold`` is 0. If there are more positions than this, a
            hundred photos are read again for ``found_threshold``, unless ``photos`` is an iterator.
        thumbnail_side: longest side in pixels of the thumbnails kept with the points; 0 keeps none.
        on_error: called with each photo that cannot be used, which is then left out; None raises instead.

    Raises:
        ImageError: a photo cannot be used and ``on_error`` is None.
        PredictorError: no photo is left, or the norms of the features hardly vary.
    """
    settings = FitSettings(labels, norm_cap, max_points, thumbnail_side)
    return fit_with(accumulate, photos, settings, norm_quantile=norm_quantile, encoder=encoder, on_error=on_error)


def fit_with(
    accumulate: Accumulate,
    photos: Photos,
    settings: FitSettings,
    *,
    norm_quantile: float | None = None,
    encoder: Any = None,
    on_error: OnError | None = None,
) -> Predictor:
    """``fit`` with another way to go through the photos, such as those of ``fitting.distributed``."""
    if norm_quantile is not None:
        photos = list(photos) if isinstance(photos, Iterator) else photos
        first = accumulate(photos, FitSettings(max_points=0), encoder=encoder, on_error=lambda error: None)
        settings = settings._replace(norm_cap=_required(first).statistics.norm_quantile(norm_quantile))
    sums = _required(accumulate(photos, settings, encoder=encoder, on_error=on_error))
    closed_form.solve(sums.statistics)  # raises here, and not when the predictor is first used
    layer = sums.statistics.encoder.get("layer", "")
    predictor = Predictor(
        sums.statistics,
        points=sums.points,
        map_threshold=default_map_threshold(layer),
        encoder=sums.encoder,
    )
    if sums.points is None or len(sums.points) == sums.statistics.total.count or isinstance(photos, Iterator):
        return predictor.with_own_found_threshold()
    named, _ = as_named_photos(photos, encoder)
    return found_on(predictor, itertools.islice(named, 0, None, -(-sums.statistics.photos // _FOUND_PHOTOS)))


def accumulate(
    photos: Photos, settings: FitSettings, *, encoder: Any = None, on_error: OnError | None = None
) -> FitSums | None:
    """The sums and points of photos, in one pass in this process; None if no photo can be used.

    Args and errors are those of ``fit``.
    """
    named, encoder = as_named_photos(photos, encoder)
    cap = np.inf if settings.norm_cap is None else float(settings.norm_cap)
    statistics: Statistics | None = None
    collector = PointCollector(settings.max_points) if settings.max_points else None
    function = _sums_and_units if collector else _sums
    for name, encoded, row in encoder.run(function, {"norm_cap": np.float32(cap)}, named):
        if isinstance(encoded, ImageError):
            if on_error is None:
                raise encoded
            on_error(encoded)
            continue
        sums, (h, w) = PositionSums(*row["sums"]), (int(n) for n in row["cells_hw"])
        where = np.zeros(sums.norms.shape, bool)
        where[:h, :w] = True
        label = _label(settings.labels, name)
        try:
            photo = Statistics.of_sums(sums, where, label=label, norm_cap=cap, encoder=encoder.description)
        except PredictorError as error:
            raise PredictorError(f"{name}: {error}") from error
        statistics = photo if statistics is None else statistics + photo
        if collector:
            grid = row["grid"].resized(encoded.size, encoded.original_size)
            fitted = FittedPhoto(name, encoded.original_size, _floats(grid.first), _floats(grid.step), label)
            picture = functools.partial(thumbnail, encoded.pixels, settings.thumbnail_side)
            collector.add(fitted, row["unit"][:h, :w], np.asarray(sums.norms)[:h, :w], picture=picture)
    if statistics is None:
        return None
    return FitSums(statistics, collector.finish() if collector else None, encoder)


def _required(sums: FitSums | None) -> FitSums:
    if sums is None:
        raise PredictorError("nothing to fit on: no photo could be read")
    return sums


def _sums(arguments: Any, dense: DenseFeatures) -> dict[str, Any]:
    where = valid_cells(dense.cells_hw, *dense.features.shape[1:3])
    sums = position_sums(dense.features, where, arguments["norm_cap"])
    return {"sums": tuple(sums), "cells_hw": dense.cells_hw, "grid": dense.grid}


def _sums_and_units(arguments: Any, dense: DenseFeatures) -> dict[str, Any]:
    return _sums(arguments, dense) | {"unit": unit_features(dense.features).astype(jnp.float16)}


def _floats(pair: Any) -> tuple[float, float]:
    y, x = (float(number) for number in pair)
    return y, x


def _label(labels: Labels | None, name: str) -> str | None:
    if labels is None:
        return None
    return labels(name) if callable(labels) else labels.get(name)
