"""`delf-jax weights`: from the list to features of a published model, and what goes wrong on the way."""

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import delf_jax
from delf_jax.import_weights.public import download
from tests.delf_cli.conftest import Run
from tests.delf_jax.import_weights.bundle_writer import write_bundle
from tests.delf_jax.import_weights.file_server import FileServer, serving
from tests.delf_jax.import_weights.test_delf import write_datum
from tests.golden.random_delf import keras_arrays, slim_arrays

NAME = "delf_v1_20171026"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for every test."""
    monkeypatch.setenv("DELF_JAX_CACHE", str(tmp_path / "cache"))
    for name in (download.OFFLINE_VARIABLE, download.MIRRORS_VARIABLE, "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release as its publisher packs it."""
    folder = tmp_path_factory.mktemp("release") / NAME
    write_bundle(folder / "model" / "variables" / "variables", slim_arrays())
    (folder / "model" / "saved_model.pb").write_bytes(b"")
    (folder / "pca").mkdir()
    draw = np.random.default_rng(5)
    write_datum(folder / "pca" / "mean.datum", np.zeros(1024, np.float32))
    basis, _ = np.linalg.qr(draw.normal(size=(1024, 64)))
    write_datum(folder / "pca" / "pca_proj_mat.datum", basis.T.astype(np.float32))
    path = folder.parent / f"{NAME}.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as file:
        file.add(folder, NAME)
    return path


@pytest.fixture
def mirror(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with serving({archive.name: archive.read_bytes()}) as server:
        monkeypatch.setenv(download.MIRRORS_VARIABLE, server.address)
        yield server


@pytest.mark.slow
def test_from_a_name_to_features(run: Run, mirror: FileServer, cache: Path, photos: Path, tmp_path: Path) -> None:
    mirror.cuts = [3_000_000]
    outcome = run("extract", photos, "--out", tmp_path / "store", "--model", NAME)
    assert outcome.code == 2
    assert f"run `delf-jax weights fetch {NAME}`, then `delf-jax weights import {NAME}`" in outcome.err

    outcome = run("weights", "fetch", NAME, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    (record,) = outcome.records
    assert record == {
        "weights": NAME,
        "path": str(cache / "downloads" / f"{NAME}.tar.gz"),
        "bytes": len(mirror.files[f"{NAME}.tar.gz"]),
    }
    assert len(mirror.requests) == 2

    outcome = run("weights", "import", NAME)
    assert outcome.code == 0, outcome.err
    assert "every 32 pixels (each sees 291), 40-D, scorers norm, learned, threshold 100" in outcome.out
    assert f"use it: --model {NAME} --as-released" in outcome.out
    (record,) = run("weights", "info", NAME, "--json").records
    assert (record["state"], record["model"]["stride"], record["model"]["dimension"]) == ("imported", 32, 40)
    assert record["model"]["source"]["licence"] == "Apache-2.0"

    released = delf_jax.released_settings(NAME)
    assert (released.threshold, released.detection, len(released.scales)) == (100.0, "cells", 7)
    extractor = delf_jax.load(NAME, settings=released, max_side=128, scales=(2.0,), threshold=0.0)
    (features,) = extractor([next(photos.glob("box.*"))])
    assert features.descriptors.shape[1] == 40
    assert len(features.keypoints) > 0
    # Cells of 32 pixels of the enlarged photo, in pixels of the original.
    original = max(features.image_size)
    steps = (features.keypoints + 0.5) * (256 / original) / 32 - 0.5 / 32
    rest = steps - np.round(steps)
    # SAME pooling moves the cells by two pixels where its map has an even side.
    np.testing.assert_allclose(np.minimum(np.abs(rest), np.abs(rest - 2 / 32)), 0, atol=0.01)


def test_folders_are_imported_with_their_own_config(run: Run, archive: Path, tmp_path: Path) -> None:
    shutil.copytree(archive.parent / NAME, tmp_path / "renamed")
    config = tmp_path / "own.pbtxt"
    config.write_text("image_scales: 1\ndelf_local_config { score_threshold: 7.5 pca_parameters { pca_dim: 16 } }")
    outcome = run("weights", "import", tmp_path / "renamed", "--out", tmp_path / "model", "--config", config)
    assert outcome.code == 0, outcome.err
    assert "16-D" in outcome.out
    assert delf_jax.released_settings(tmp_path / "model").threshold == 7.5
    outcome = run("weights", "import", archive.parent / NAME, "--out", tmp_path / "again", "--json")
    assert outcome.records[0]["scorers"] == ["norm", "learned"]
    (record,) = run("weights", "info", tmp_path / "again", "--json").records
    assert (record["model"]["dimension"], record["model"]["released_settings"]["threshold"]) == (40, 100.0)


def test_own_delg_models_are_imported(run: Run, tmp_path: Path) -> None:
    arrays = {f"_model/{name}": array for name, array in keras_arrays().items()}
    write_bundle(tmp_path / "exported" / "variables" / "variables", arrays, numbered=True)
    outcome = run("weights", "import", tmp_path / "exported", "--out", tmp_path / "model")
    assert outcome.code == 0, outcome.err
    assert "every 16 pixels (each sees 291), 128-D, scorers norm, learned" in outcome.out
    assert f"use it: --model {tmp_path / 'model'}\n" in outcome.out
    default = delf_jax.ExtractionSettings(model=str(tmp_path / "model"))
    assert delf_jax.released_settings(tmp_path / "model") == default


def test_the_list_and_what_is_told_of_one(run: Run) -> None:
    outcome = run("weights", "list", "--json")
    assert outcome.code == 0
    assert {record["weights"] for record in outcome.records} >= {NAME, "r101delg_gldv2clean_20200914", "dino-r50"}
    assert all(record["state"] == "-" for record in outcome.records)
    assert NAME in run("weights", "list").out
    outcome = run("weights", "info", "moco-v2-800ep", "delf-r50")
    assert "licence: CC-BY-NC-4.0" in outcome.out
    assert "resnet, features of conv4 every 16 pixels" in outcome.out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("fetch",), "weights fetch: name the weights to fetch"),
        (("fetch", "delf_v2"), "delf_v2: there are no such public weights; did you mean delf_v1_20171026?"),
        (("fetch", NAME, "--offline"), f"{NAME}: not in the cache, and the network may not be used"),
        (("fetch", "augnet-r50"), "augnet-r50: get it by hand: pip download --no-deps imgsim==0.1.2; then put"),
        (("import", NAME), f"{NAME}: not in the cache, and the network may not be used; fetch it, or put it at"),
        (("import", "nowhere"), "nowhere: name the model folder to write with --out"),
        (("import", "nowhere", "--out", "model"), "nowhere: there is no such file or folder"),
        (("list", "--out", "model"), "--out and --config are for"),
        (("info", "a", "--offline"), "--offline is for"),
        (("info", "nowhere"), "nowhere: no such model"),
        (("import", "a", "b", "--out", "model"), "--out is one model folder"),
    ],
)
def test_mistakes_are_one_line(run: Run, args: tuple[str, ...], said: str) -> None:
    outcome = run("weights", *args)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_one_failure_does_not_stop_the_others(run: Run) -> None:
    outcome = run("weights", "info", "nowhere", NAME, "--json")
    assert outcome.code == 1
    assert outcome.records[0]["error"].startswith("no such model")
    assert outcome.records[1]["licence"] == "Apache-2.0"
