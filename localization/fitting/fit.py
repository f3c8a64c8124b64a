"""From photos, or their feature maps, to a foreground predictor in one pass."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from delf_jax.errors import ImageError, PredictorError
from delf_jax.models.layers import valid_cells
from localization.encoders.encoders import Dense, Photos, as_named_photos
from localization.foreground.statistics import PositionSums, Statistics, position_sums
from localization.predictor import DEFAULT_MAP_THRESHOLD, MAP_THRESHOLD, Predictor
from localization.representers.fitted_photos import FittedPhoto
from localization.representers.points import PointCollector, Points, thumbnail


class Gathered(NamedTuple):
    """What fitting needs of some photos.

    Attributes:
        statistics: running sums.
        points: training positions for explanations, or None.
        encoder: computed the features.
    """

    statistics: Statistics
    points: Points | None
    encoder: Any


Labels = Mapping[str, str] | Callable[[str], str | None]


def fit(
    photos: Photos,
    *,
    encoder: Any = None,
    labels: Labels | None = None,
    norm_cap: float | None = None,
    norm_quantile: float | None = None,
    max_points: int = 100_000,
    thumbnail_side: int = 160,
    on_error: Callable[[ImageError], None] | None = None,
    gather: Callable[..., "Gathered | None"] | None = None,
) -> Predictor:
    """Fits the foreground direction w* to photos without labels (localization spec 1.2).

    Args:
        photos: paths, fsspec addresses, bytes of files or uint8 arrays; or feature maps: float arrays [h, w, C], .npy
            paths, or (array, (height, width) of the photo) pairs. A mapping names them; otherwise paths are their own
            names.
        encoder: a ``localization`` encoder or a delf-jax Extractor (its conv5); None for the packaged ResNet-50's
            conv5, or for feature maps as they are.
        labels: class of a photo by its name; fits one predictor a class besides the one of all photos.
        norm_cap: features longer than this are shortened to it.
        norm_quantile: the same, with the cap at this quantile of the norms: takes a first pass over the photos.
        max_points: training positions kept for explanations; 0 keeps none, which is all that localizing needs.
        thumbnail_side: longest side in pixels of the pictures kept beside the points; 0 keeps none.
        on_error: called with each photo that cannot be used, which is then left out; None raises instead.
        gather: goes through the photos in the place of ``gather_here``: on a cluster or in several processes
            (``localization.fitting.distributed``).

    Raises:
        ImageError: a photo cannot be used and ``on_error`` is None.
        PredictorError: nothing to fit on, or norms that hardly vary.
    """
    gather = gather or gather_here
    if norm_quantile is not None:
        photos = list(photos) if isinstance(photos, Iterator) else photos
        first = gather(photos, encoder=encoder, max_points=0, on_error=lambda error: None)
        norm_cap = _required(first).statistics.norm_quantile(norm_quantile)
    gathered = _required(
        gather(
            photos,
            encoder=encoder,
            labels=labels,
            norm_cap=norm_cap,
            max_points=max_points,
            thumbnail_side=thumbnail_side,
            on_error=on_error,
        )
    )
    gathered.statistics.solve()
    layer = gathered.statistics.encoder.get("layer", "")
    return Predictor(
        gathered.statistics,
        points=gathered.points,
        map_threshold=MAP_THRESHOLD.get(layer, DEFAULT_MAP_THRESHOLD),
        encoder=gathered.encoder,
    )


def gather_here(
    photos: Photos,
    *,
    encoder: Any = None,
    labels: Labels | None = None,
    norm_cap: float | None = None,
    max_points: int = 100_000,
    thumbnail_side: int = 160,
    on_error: Callable[[ImageError], None] | None = None,
) -> Gathered | None:
    """What fitting needs of some photos, in one pass in this process; None where none of them can be used.

    Args: as for ``fit``.
    """
    named, encoder = as_named_photos(photos, encoder)
    cap = np.inf if norm_cap is None else float(norm_cap)
    statistics: Statistics | None = None
    collector = PointCollector(max_points) if max_points else None
    function = _sums_and_units if collector else _sums
    for name, seen, row in encoder.run(function, {"norm_cap": np.float32(cap)}, named):
        if isinstance(seen, ImageError):
            if on_error is None:
                raise seen
            on_error(seen)
            continue
        sums, (h, w) = PositionSums(*row["sums"]), (int(n) for n in row["cells_hw"])
        where = np.zeros(sums.norms.shape, bool)
        where[:h, :w] = True
        label = _label(labels, name)
        try:
            photo = Statistics.of_sums(sums, where, label=label, norm_cap=cap, encoder=encoder.description)
        except PredictorError as error:
            raise PredictorError(f"{name}: {error}") from error
        statistics = photo if statistics is None else statistics + photo
        if collector:
            fitted = FittedPhoto(name, seen.original_size, (h, w), label)
            picture = functools.partial(thumbnail, seen.pixels, thumbnail_side)
            collector.add(fitted, row["unit"][:h, :w], np.asarray(sums.norms)[:h, :w], picture=picture)
    if statistics is None:
        return None
    return Gathered(statistics, collector.finish() if collector else None, encoder)


def _required(gathered: Gathered | None) -> Gathered:
    if gathered is None:
        raise PredictorError("nothing to fit on: no photo could be read")
    return gathered


def _sums(arguments: Any, dense: Dense) -> dict[str, Any]:
    where = valid_cells(dense.cells_hw, *dense.features.shape[1:3])
    sums = position_sums(dense.features, where, arguments["norm_cap"])
    return {"sums": tuple(sums), "cells_hw": dense.cells_hw}


def _sums_and_units(arguments: Any, dense: Dense) -> dict[str, Any]:
    features = dense.features.astype(jnp.float32)
    norms = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return _sums(arguments, dense) | {"unit": (features / jnp.maximum(norms, 1e-12)).astype(jnp.float16)}


def _label(labels: Labels | None, name: str) -> str | None:
    if labels is None:
        return None
    return labels(name) if callable(labels) else labels.get(name)
