"""Distance of computed maps from golden ones."""

import functools
from pathlib import Path

import numpy as np


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """max|ours - theirs| / max|theirs|."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def golden_error(ours: np.ndarray, name: str, *, file: str = "resnet.npz") -> float:
    """The same of a whole map `ours` against the values that a golden file keeps of the map `name`."""
    golden = read_golden(file)
    assert ours.shape == tuple(golden[f"{name}/shape"])
    difference = np.abs(ours.ravel()[golden[f"{name}/indices"]] - golden[f"{name}/values"])
    return float(difference.max() / golden[f"{name}/max"])


@functools.cache
def read_golden(file: str) -> dict[str, np.ndarray]:
    """The arrays of a golden file beside this module."""
    with np.load(Path(__file__).parent / file) as arrays:
        return dict(arrays)
