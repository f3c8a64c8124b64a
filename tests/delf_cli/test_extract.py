"""Extract, with heads that are fitted by pca or --adapt: what people and programs read when all is well."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from delf_jax.extraction.head import Head
from delf_jax.loading import model_paths
from delf_jax.store.reader import FeatureStore
from tests.delf_cli.conftest import Run


def test_extract_says_what_it_did_and_leaves_alone_what_is_done(
    run: Run, photos: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    first = run("extract", photos, "--out", tmp_path / "s", *small, "--json")
    assert first.code == 0
    (summary,) = first.records
    assert (summary["done"], summary["skipped"], summary["failed"], summary["stored"]) == (5, 0, 0, 5)
    assert summary["photos_per_second"] > 0
    second = run("extract", photos, "--out", tmp_path / "s", *small)
    assert second.code == 0
    assert "0 photos done" in second.out
    assert "5 skipped (already done)" in second.out
    assert second.err == ""


@pytest.fixture
def calibrated(tiny_model: Path, small: tuple[str, ...], tmp_path: Path) -> tuple[str, ...]:
    """The small options, with a copy of the tiny model that has the calibrations of the packaged head."""
    calibrations = Head.open(model_paths("delf-r50")[1]).calibrations
    assert calibrations
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    head = model / "head.safetensors"
    dataclasses.replace(Head.open(head), calibrations=calibrations).save(head)
    return tuple(str(model) if option == str(tiny_model) else option for option in small)


def test_pca_writes_a_head_that_serves(
    run: Run, photos: Path, small: tuple[str, ...], calibrated: tuple[str, ...], tiny_model: Path, tmp_path: Path
) -> None:
    fitted = run("pca", photos, "--out", tmp_path / "head.safetensors", "--dimension", "16", *calibrated, "--json")
    assert fitted.code == 0
    (record,) = fitted.records
    assert (record["photos"], record["dimension"]) == (5, 16)
    assert 0 < record["variance_kept"] <= 1
    before, after = Head.open(tiny_model / "head.safetensors"), Head.open(tmp_path / "head.safetensors")
    assert after.pca is not None
    assert before.pca is not None
    assert after.pca.basis.shape == before.pca.basis.shape
    assert not np.allclose(after.pca.basis, before.pca.basis)
    assert after.whiten
    assert after.foreground is not None
    assert np.linalg.norm(after.foreground) == pytest.approx(1, abs=1e-5)
    assert (after.log10_nfa_threshold, after.calibrations) == (before.log10_nfa_threshold, ())
    used = run(
        "match", photos / "box.jpg", photos / "box.jpg", *small, "--head", tmp_path / "head.safetensors", "--json"
    )
    assert used.records[0]["accepted"]


def test_adapted_head_stays_with_store_and_index(
    run: Run, photos: Path, calibrated: tuple[str, ...], tiny_model: Path, tmp_path: Path
) -> None:
    assert run("extract", photos, "--out", tmp_path / "s", "--adapt", *calibrated).code == 0
    store = FeatureStore.open(tmp_path / "s")
    assert store.head_path is not None
    head = Head.open(store.head_path)
    assert head.calibrations == ()
    assert head.foreground is not None
    assert np.linalg.norm(head.foreground) == pytest.approx(1, abs=1e-5)
    assert not np.allclose(head.foreground, Head.open(tiny_model / "head.safetensors").foreground)
    again = run("extract", photos, "--out", tmp_path / "s", "--adapt", *calibrated, "--json")
    assert (again.code, again.records[0]["skipped"]) == (0, 5)
    plain = run("extract", photos, "--out", tmp_path / "s", *calibrated, "--json")
    assert (plain.code, plain.records[0]["skipped"]) == (0, 5)
    assert run("index", tmp_path / "s", "--out", tmp_path / "i", "--backend", "exact").code == 0
    shutil.rmtree(tmp_path / "s")
    assert run("search", tmp_path / "i", photos / "box.jpg", "--json").records[0]["accepted"]
