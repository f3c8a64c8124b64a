"""Photos to spread over workers, and stores to compare."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from delf_jax.store import FeatureStore


def save_photos(folder: Path, names: Iterable[str]) -> Path:
    folder.mkdir()
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.bmp")
    return folder


def rows(store: Path) -> list[tuple[object, ...]]:
    """Every row of a store, to the bit, whatever the order."""
    found = []
    for name, size, mtime_ns, content_hash, f in FeatureStore.open(store):
        arrays = [np.asarray(a).tobytes() for a in (f.keypoints, f.scales, f.scores, f.descriptors)]
        found.append((name, size, mtime_ns, content_hash, *arrays, f.image_size))
    return sorted(found)
