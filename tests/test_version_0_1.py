"""Stores, indexes and predictors that delf-jax 0.1 wrote still open, and go on.

``tests/golden/version_0_1.zip`` holds what 0.1 made with the model of ``tests.tiny_model`` from five packaged photos.
The photos lay in ``/tmp/v01/photos`` then. These paths are data: no test reads anything there.
"""

import contextlib
import dataclasses
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import delf_jax
import localization
import retrieval
from delf_jax.errors import StoreError
from delf_jax.job import extraction_job
from delf_jax.settings import ExtractionSettings
from delf_jax.store import version_0_1
from delf_jax.store.reader import FeatureStore
from delf_jax.store.repair import repair
from delf_jax.store.writer import StoreWriter
from tests.tiny_model import DIMENSION

SETTINGS = ExtractionSettings(model="tiny", max_features=40, max_side=192, scales=(1.0,), detection="peaks")
PHOTOS = [f"/tmp/v01/photos/{name}.jpg" for name in ("graf1", "graf3", "box_in_scene", "chelsea", "box")]
COUNTS = [7, 11, 10, 5, 5]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    with zipfile.ZipFile(Path(__file__).parent / "golden" / "version_0_1.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def extractor(tiny_model: Path) -> Iterator[delf_jax.Extractor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tiny_model.parent)  # the settings in the store have the name that was given
        yield delf_jax.load("tiny", settings=SETTINGS)


def test_a_store_is_read(made: Path) -> None:
    store = FeatureStore.open(made / "store")
    assert (store.settings, store.dimension, len(store)) == (SETTINGS, DIMENSION, 5)
    rows = list(store)
    assert [row.path for row in rows] == PHOTOS
    assert [row.features.descriptors.shape for row in rows] == [(count, DIMENSION) for count in COUNTS]
    assert rows[4].size == 47152  # of the row that superseded an older one
    assert [row.features.domain for row in rows] == [None] * 5  # 0.1 did not know it
    assert store.check() == []
    assert [run.outcome for run in store.runs()] == ["finished"] * 3


def test_a_store_goes_on_with_commits(made: Path, extractor: delf_jax.Extractor, demo_photos: Path) -> None:
    report = extraction_job.run(extractor, [demo_photos / "graf1.jpg", demo_photos / "chelsea.jpg"], made / "store")
    assert report == (2, 0, [], 7, {})
    store = FeatureStore.open(made / "store")
    assert [row.path for row in store][:5] == PHOTOS
    assert store.check() == []
    np.testing.assert_allclose(next(iter(store)).features.descriptors, list(store)[5].features.descriptors, atol=2e-3)
    # There is one manifest only, and 0.1 sees that it is too old for it.
    assert not (made / "store" / "recent.json").exists()
    mark = json.loads((made / "store" / "manifest.json").read_bytes())
    assert (mark["version"], mark["store"]["version"]) == (3, 3)
    with StoreWriter(
        made / "store", settings=SETTINGS, fingerprint=extractor.fingerprint, dimension=DIMENSION
    ) as writer:
        known = writer.known(PHOTOS[4])
        assert known is not None
        assert known.size == 47152


def test_interrupted_while_it_gets_commits_a_store_has_them_or_not(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(version_0_1, "mark_as_migrated", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            open_writer(made / "store")
    (made / "store" / "lease.json").unlink(missing_ok=True)
    assert [row.path for row in FeatureStore.open(made / "store")] == PHOTOS
    open_writer(made / "store").close()
    assert not (made / "store" / "recent.json").exists()
    assert [row.path for row in FeatureStore.open(made / "store")] == PHOTOS


def open_writer(store: Path) -> StoreWriter:
    opened = FeatureStore.open(store)
    return StoreWriter(store, settings=SETTINGS, fingerprint=opened.fingerprint, dimension=DIMENSION)


@pytest.mark.parametrize(
    ("name", "how", "state"),
    [
        ("manifest.json", "gone", "missing"),
        ("manifest.json", "cut", "damaged"),
        ("recent.json", "gone", "missing"),
        ("recent.json", "cut", "damaged"),
    ],
)
def test_a_store_whose_manifest_is_lost_is_repaired(name: str, how: str, state: str, made: Path) -> None:
    file = made / "store" / name
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(StoreError, match=f"is {state}; `delf-jax check .* --repair`"):
        FeatureStore.open(made / "store")
    assert [damage.reason for damage in repair(made / "store")] == [f"it is {state}"]
    assert [row.path for row in FeatureStore.open(made / "store")] == PHOTOS
    assert not (made / "store" / "recent.json").exists()


def test_repair_leaves_a_whole_store_as_it_is(made: Path) -> None:
    before = (made / "store" / "manifest.json").read_bytes()
    assert repair(made / "store") == []
    assert (made / "store" / "manifest.json").read_bytes() == before
    assert [row.path for row in FeatureStore.open(made / "store")] == PHOTOS


@pytest.mark.parametrize("folder", ["index", "shards"])
def test_an_index_finds_its_photos(folder: str, made: Path, extractor: delf_jax.Extractor, demo_photos: Path) -> None:
    (features,) = extractor([demo_photos / "graf1.jpg"])
    index = retrieval.open_index(made / folder)
    assert list(index.names) == PHOTOS
    assert index.features(PHOTOS[0]).domain is None
    with index if isinstance(index, retrieval.ShardedIndex) else contextlib.nullcontext():
        result = index.search(features)
    assert result.matches[0].image == PHOTOS[0]


def test_a_predictor_localizes(made: Path, demo_photos: Path, tiny_model: Path) -> None:
    predictor = localization.Predictor.open(made / "predictor")
    assert (predictor.statistics.photos, predictor.map_threshold) == (5, 0.24)
    assert predictor.points is not None
    assert (len(predictor.points), {photo.name for photo in predictor.points.photos} <= set(PHOTOS)) == (60, True)
    here = {**predictor.statistics.encoder, "model": str(tiny_model)}  # the same model in another folder
    moved = dataclasses.replace(predictor, statistics=dataclasses.replace(predictor.statistics, encoder=here))
    (found,) = moved.localize([demo_photos / "chelsea.jpg"])
    assert found.activation.ndim == 2
    assert found.found == (found.score > 0)
