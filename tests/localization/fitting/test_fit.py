"""Fitting to files, and with norm clipping."""

from pathlib import Path

import numpy as np
import pytest

import localization
from delf_jax.errors import ImageError
from tests.localization.planted import MAPS, planted


def test_files_and_their_failures(tmp_path: Path) -> None:
    paths = []
    for seed in range(3):
        np.save(tmp_path / f"{seed}.npy", planted(seed)[0])
        paths.append(tmp_path / f"{seed}.npy")
    (tmp_path / "bad.npy").write_bytes(b"not an array")
    failures: list[ImageError] = []
    fitted = localization.fit([*paths, tmp_path / "bad.npy"], on_error=failures.append)
    assert fitted.statistics.photos == 3
    assert len(failures) == 1
    assert "bad.npy" in str(failures[0])
    with pytest.raises(ImageError, match=r"bad\.npy"):
        localization.fit([*paths, tmp_path / "bad.npy"])
    results = dict(fitted.localize_stream(enumerate([paths[0], tmp_path / "bad.npy"])))
    assert results[0].found
    assert isinstance(results[1], ImageError)


def test_norm_clipping_takes_two_passes() -> None:
    clipped = localization.fit(MAPS, norm_quantile=0.9)
    norms = np.concatenate([np.linalg.norm(m, axis=-1).ravel() for m in MAPS.values()])
    cap = clipped.statistics.norm_cap
    assert cap == pytest.approx(np.quantile(norms, 0.9), rel=0.06)
    assert clipped.points.norm.max() <= cap * (1 + 1e-6)
