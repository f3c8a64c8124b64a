"""Distance of computed maps from golden ones."""

import functools
from pathlib import Path

import numpy as np


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """max|ours - theirs| / max|theirs|."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def golden_error(ours: np.ndarray, name: str) -> float:
    """The same of a whole map `ours` against the values that ``resnet.npz`` keeps of the map `name`."""
    golden = _golden()
    assert ours.shape == tuple(golden[f"{name}/shape"])
    difference = np.abs(ours.ravel()[golden[f"{name}/indices"]] - golden[f"{name}/values"])
    return float(difference.max() / golden[f"{name}/max"])


@functools.cache
def _golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "resnet.npz") as file:
        return dict(file)
