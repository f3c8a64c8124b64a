"""Statistics in a file."""

from pathlib import Path

import numpy as np
import pytest

from delf_jax.errors import PredictorError
from delf_jax.files import model_file
from localization.foreground.closed_form import solve
from localization.foreground.statistics_file import read, write
from tests.localization.foreground.positions import MAPS, fitted


def test_saved_and_opened(tmp_path: Path) -> None:
    statistics = fitted(MAPS[:4], label="a") + fitted(MAPS[4:], label="b")
    write(tmp_path / "s.safetensors", statistics)
    opened = read(tmp_path / "s.safetensors")
    assert opened.photos == 9
    np.testing.assert_array_equal(opened.total.feature, statistics.total.feature)
    np.testing.assert_array_equal(solve(opened, label="a").w, solve(statistics, label="a").w)
    np.testing.assert_array_equal((opened + statistics).norm_histogram, 2 * statistics.norm_histogram)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    write(path, fitted(MAPS[:1]))
    description, tensors = model_file.read(path)
    for change, message in (
        ({"kind": "head"}, "this is a head file, not foreground statistics"),
        ({"version": 2}, "newer version"),
        ({"count": -1}, "a count is not a non-negative integer"),
        ({"class_counts": [1]}, "the number of class sums differs"),
    ):
        model_file.write(path, tensors, description | change)
        with pytest.raises(PredictorError, match=message):
            read(path)
