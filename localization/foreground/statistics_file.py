"""Statistics in a safetensors file: the sums as tensors, counts and class names in its JSON description."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from delf_jax.errors import PredictorError, one_line
from delf_jax.files import model_file
from localization.foreground.statistics import NORM_EDGES, Statistics, Sums

_KIND = "foreground statistics"
_VERSION = 1


def write(path: str | Path, statistics: Statistics) -> None:
    """Writes the file atomically."""
    names = sorted(statistics.classes)
    tensors = {
        "feature_sum": statistics.total.feature,
        "unit_sum": statistics.total.unit,
        "norm_histogram": statistics.norm_histogram,
    }
    if names:
        tensors["class_feature_sums"] = np.stack([statistics.classes[name].feature for name in names])
        tensors["class_unit_sums"] = np.stack([statistics.classes[name].unit for name in names])
    description = {
        "kind": _KIND,
        "version": _VERSION,
        "count": statistics.total.count,
        "photos": statistics.photos,
        "norm_sum": statistics.norm_sum,
        "norm_square_sum": statistics.norm_square_sum,
        "norm_cap": None if np.isinf(statistics.norm_cap) else statistics.norm_cap,
        "encoder": dict(statistics.encoder),
        "classes": names,
        "class_counts": [statistics.classes[name].count for name in names],
    }
    model_file.write(path, tensors, description)


def read(path: str | Path) -> Statistics:
    """Reads what ``write`` wrote.

    Raises:
        PredictorError: another kind of file, a newer version, or damaged.
        ModelError: the file is missing or is not a safetensors file.
    """
    description, tensors = model_file.read(path)
    if description.get("kind") != _KIND:
        raise PredictorError(f"{path}: this is a {description.get('kind', 'model')} file, not foreground statistics")
    try:
        if description["version"] > _VERSION:
            raise PredictorError(f"{path}: written by a newer version; update delf-jax")
        return _statistics(description, tensors)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = one_line(error)
        raise PredictorError(f"{path}: damaged ({reason}); fit the predictor again") from error


def _statistics(description: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Statistics:
    """The statistics in a file; raises KeyError, TypeError or ValueError if the file is damaged."""
    names, counts = description["classes"], description["class_counts"]
    arrays = [tensors["feature_sum"], tensors["unit_sum"]]
    if names:
        arrays += [*tensors["class_feature_sums"], *tensors["class_unit_sums"]]
    numbers = [description[name] for name in ("count", "photos")] + list(counts)
    if len(arrays) != 2 + 2 * len(names) or len(counts) != len(set(names)):
        raise ValueError("the number of class sums differs from the number of classes")
    if not all(array.shape == arrays[0].shape and array.ndim == 1 and np.isfinite(array).all() for array in arrays):
        raise ValueError("its sums differ in shape or are not finite")
    if not all(type(number) is int and 0 <= number < 2**53 for number in numbers):
        raise ValueError("a count is not a non-negative integer")
    if not all(0 <= float(description[name]) < 1e150 for name in ("norm_sum", "norm_square_sum")):
        raise ValueError("a sum of norms is not a non-negative number")
    if tensors["norm_histogram"].shape != (len(NORM_EDGES) - 1,):
        raise ValueError("the norm histogram has another number of bins")
    classes = {
        name: Sums(tensors["class_feature_sums"][i], tensors["class_unit_sums"][i], counts[i])
        for i, name in enumerate(names)
    }
    return Statistics(
        total=Sums(tensors["feature_sum"], tensors["unit_sum"], description["count"]),
        photos=description["photos"],
        norm_sum=float(description["norm_sum"]),
        norm_square_sum=float(description["norm_square_sum"]),
        norm_histogram=tensors["norm_histogram"],
        classes=classes,
        norm_cap=np.inf if description["norm_cap"] is None else float(description["norm_cap"]),
        encoder=dict(description["encoder"]),
    )
