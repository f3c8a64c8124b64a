"""Feature maps with longer features in the foreground, their statistics, and the closed form in plain NumPy."""

import functools
import operator

import numpy as np

from localization.foreground.statistics import Statistics


def positions(seed: int, shape: tuple[int, ...] = (5, 6, 24), objects: float = 0.3) -> np.ndarray:
    """Non-negative features whose foreground positions are longer and point elsewhere."""
    rng = np.random.default_rng(seed)
    front = rng.random(shape[:-1]) < objects
    f = np.abs(rng.normal(size=shape))
    f[..., : shape[-1] // 3] *= np.where(front, 4.0, 0.5)[..., None]
    f[..., shape[-1] // 3 :] *= np.where(front, 0.5, 1.0)[..., None]
    return f.astype(np.float32)


def fitted(maps: list[np.ndarray], **options: object) -> Statistics:
    return functools.reduce(operator.add, (Statistics.of_photo(dense, **options) for dense in maps))


MAPS = [positions(seed, (3 + seed % 4, 7, 24)) for seed in range(9)]
ALL = np.concatenate([m.reshape(-1, 24) for m in MAPS]).astype(np.float64)
NORMS = np.linalg.norm(ALL, axis=1)
UNITS = ALL / NORMS[:, None]
V, U = ALL.mean(0), UNITS.mean(0)
TAU = np.linalg.norm(V) / np.linalg.norm(U)
W = (V - TAU * U) / np.linalg.norm(V - TAU * U)
