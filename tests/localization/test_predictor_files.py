"""A predictor in a folder: kept, opened, damaged, and made by version 0.1."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import localization
from delf_jax.errors import PredictorError
from delf_jax.files.changer import only_changer
from localization.predictor import Predictor
from localization.predictor_files import damaged_files, read_manifest
from tests.conftest import ROOT
from tests.elsewhere import errors_elsewhere
from tests.localization.planted import planted


def test_saved_and_opened(planted_predictor: Predictor, tmp_path: Path) -> None:
    kept = dataclasses.replace(planted_predictor, found_threshold=0.05)
    kept.save(tmp_path / "p")
    kept.save(tmp_path / "p")
    opened = Predictor.open(tmp_path / "p")
    assert opened.found_threshold == 0.05
    dense = planted(50)[0]
    (a,), (b,) = kept.localize([dense]), opened.localize([dense])
    np.testing.assert_array_equal(a.activation, b.activation)
    assert a.boxes == b.boxes
    assert opened.explain(dense, (4, 4)).excitatory == kept.explain(dense, (4, 4)).excitatory
    assert list(opened.points.photos) == list(kept.points.photos)


def test_changes_of_others_are_never_lost(planted_predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "p"
    dataclasses.replace(planted_predictor, _versions={}).save(path)
    first, second = Predictor.open(path), Predictor.open(path)
    with only_changer(path, PredictorError):
        (refused,) = errors_elsewhere(lambda: first.save(path))
    assert "another writer is at work" in str(refused)
    for threshold in (0.1, 0.2):
        first = dataclasses.replace(first, found_threshold=threshold)
        first.save(path)
    other = localization.fit([planted(60)[0]])
    for changed in (second, dataclasses.replace(second, points=None), second + other, other + second):
        with pytest.raises(PredictorError, match="changed since it was opened; open it again"):
            changed.save(path)
    assert Predictor.open(path).found_threshold == 0.2
    opened = Predictor.open(path)
    fewer = opened - planted_predictor
    (opened - planted_predictor).save(path)
    for changed in (fewer, opened - planted_predictor):
        with pytest.raises(PredictorError, match="changed since it was opened; open it again"):
            changed.save(path)


def test_one_that_has_forgotten_every_photo_opens_and_learns_again(
    planted_predictor: Predictor, tmp_path: Path
) -> None:
    (planted_predictor - planted_predictor).save(tmp_path / "p")
    emptied = Predictor.open(tmp_path / "p")
    sums = emptied.statistics
    assert (sums.photos, sums.total.count, sums.norm_sum, sums.norm_square_sum, sums.classes) == (0, 0, 0, 0, {})
    assert not sums.total.feature.any()
    assert not sums.total.unit.any()
    with pytest.raises(PredictorError, match="no positions to fit on"):
        emptied.direction()
    again = emptied + planted_predictor
    np.testing.assert_array_equal(again.direction(), planted_predictor.direction())
    assert len(again.points) == len(planted_predictor.points)


def test_refitted_is_kept(planted_predictor: Predictor, tmp_path: Path) -> None:
    refitted = planted_predictor.refitted("bce", weight=0.05)
    assert 0.9 < refitted.solution.w @ planted_predictor.solution.w < 1 - 1e-6
    refitted.save(tmp_path / "p")
    opened = Predictor.open(tmp_path / "p")
    np.testing.assert_array_equal(opened.solution.w, refitted.solution.w)
    alpha = opened.explainer.importance
    np.testing.assert_allclose(alpha @ opened.points.unit.astype(np.float64), opened.solution.w, atol=1e-3)
    with pytest.raises(PredictorError, match="only closed-form predictors can be added"):
        planted_predictor + refitted
    with pytest.raises(PredictorError, match="only closed-form predictors can be subtracted"):
        planted_predictor - refitted


def test_damage_is_noticed(planted_predictor: Predictor, tmp_path: Path) -> None:
    planted_predictor.save(tmp_path / "p")
    units = tmp_path / "p" / "points" / "units.npy"
    data = bytearray(units.read_bytes())
    data[-3] ^= 1
    units.write_bytes(data)
    with pytest.raises(PredictorError, match=r"points/units.npy is missing or damaged"):
        Predictor.open(tmp_path / "p")
    assert damaged_files(tmp_path / "p", read_manifest(tmp_path / "p")) == ["points/units.npy"]
    with pytest.raises(PredictorError, match="no predictor there"):
        Predictor.open(tmp_path / "q")
    (tmp_path / "p" / "manifest.json").write_text("{")
    with pytest.raises(PredictorError, match="manifest is damaged"):
        Predictor.open(tmp_path / "p")


def test_never_takes_the_place_of_something_else(planted_predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"mine")
    (tmp_path / "file").write_bytes(b"mine")
    for name in ("photos", "file"):
        with pytest.raises(PredictorError, match="something else than a predictor"):
            planted_predictor.save(tmp_path / name)
    assert (tmp_path / "photos" / "a.jpg").read_bytes() == b"mine"
    (tmp_path / "empty").mkdir()
    planted_predictor.save(tmp_path / "empty")
    assert Predictor.open(tmp_path / "empty").statistics.photos == 12


def test_predictors_of_version_0_1_open(tmp_path: Path) -> None:
    """The folder was written by version 0.1 for these maps; classes, points and optimum are all in it."""
    maps = {f"{n}.npy": np.random.default_rng(n).gamma(2, size=(3, 4, 6)).astype(np.float32) for n in range(4)}
    fitted = localization.fit(maps, labels=lambda name: "ab"[int(name[0]) % 2], max_points=20)
    fitted = fitted.refitted("ridge", weight=0.1)
    opened = Predictor.open(ROOT / "tests" / "golden" / "predictor_0_1")
    assert (opened.found_threshold, opened.map_threshold) == (0.25, fitted.map_threshold)
    np.testing.assert_allclose(opened.solution.w, fitted.solution.w, atol=1e-6)
    np.testing.assert_allclose(opened.direction("b"), fitted.direction("b"), atol=1e-6)
    np.testing.assert_array_equal(opened.points.cell, fitted.points.cell)
    np.testing.assert_allclose(opened.explainer.importance, fitted.explainer.importance, atol=1e-6)
    opened.save(tmp_path / "p")
    np.testing.assert_array_equal(Predictor.open(tmp_path / "p").solution.w, opened.solution.w)


def test_other_manifests_are_refused(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "golden" / "predictor_0_1", tmp_path / "p")
    manifest = tmp_path / "p" / "manifest.json"
    entries = json.loads(manifest.read_bytes())
    for change, message in (
        ({"kind": "index", "format": "delf-jax index"}, "this is a 'delf-jax index', not a predictor"),
        ({"version": 9}, "written by a newer version"),
        ({"files": {"../elsewhere": "0"}}, "manifest is damaged"),
        ({"points": 7}, "manifest is damaged"),
        ({"map_threshold": "high"}, "manifest is damaged"),
    ):
        manifest.write_text(json.dumps(entries | change))
        with pytest.raises(PredictorError, match=message):
            read_manifest(tmp_path / "p")
