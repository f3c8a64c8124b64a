"""Photos to spread over workers, and stores to compare."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from delf_jax.errors import StoreError
from delf_jax.store.reader import FeatureStore
from localization.predictor import Predictor


def save_photos(folder: Path, names: Iterable[str]) -> Path:
    folder.mkdir()
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.bmp")
    return folder


def photos_in(store: Path) -> int:
    """Photos in a store that is being written; 0 before its first commit."""
    try:
        return len(FeatureStore.open(store))
    except StoreError:
        return 0


def rows(store: Path) -> list[tuple[object, ...]]:
    """Every row of a store, to the bit, whatever the order."""
    found = []
    for name, size, mtime_ns, content_hash, f in FeatureStore.open(store):
        arrays = [np.asarray(a).tobytes() for a in (f.keypoints, f.scales, f.scores, f.descriptors)]
        found.append((name, size, mtime_ns, content_hash, *arrays, f.image_size))
    return sorted(found)


def assert_same_fit(one: Predictor, other: Predictor) -> None:
    """Counts and kept points to the bit, sums to the rounding of float64."""
    a, b = one.statistics, other.statistics
    assert (a.photos, a.total.count, sorted(a.classes)) == (b.photos, b.total.count, sorted(b.classes))
    assert (a.norm_histogram == b.norm_histogram).all()
    np.testing.assert_allclose(a.total.feature, b.total.feature, rtol=1e-12)
    np.testing.assert_allclose(a.total.unit, b.total.unit, rtol=1e-12)
    np.testing.assert_allclose([a.norm_sum, a.norm_square_sum], [b.norm_sum, b.norm_square_sum], rtol=1e-12)
    for name, sums in a.classes.items():
        np.testing.assert_allclose(sums.feature, b.classes[name].feature, rtol=1e-12)
    np.testing.assert_allclose(one.direction(), other.direction(), rtol=1e-5, atol=1e-7)
    assert one.points is not None
    assert other.points is not None
    np.testing.assert_array_equal(one.points.unit, other.points.unit)
    np.testing.assert_array_equal(one.points.norm, other.points.norm)
    np.testing.assert_array_equal(one.points.cell, other.points.cell)
