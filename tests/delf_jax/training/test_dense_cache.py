"""Cached features are the extractor's own, made once, and made anew when anything they depend on changed."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

import delf_jax
from delf_jax.extraction.head import Head
from delf_jax.extractor import Extractor
from delf_jax.training import dense_cache
from delf_jax.training.cached_batches import CachedBatches, padded_batch
from delf_jax.training.dense_cache import DenseCache
from delf_jax.training.samples import LabelledPhotos, from_folders
from delf_jax.training.settings import TrainingError, TrainingSettings
from tests.delf_jax.training.class_folders import PHOTOS, write_class_folders

SETTINGS = TrainingSettings(recipe="attention", cached=True, view_sides=(64,), views=2)
CHANNELS = 128


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, demo_photos: Path) -> LabelledPhotos:
    return from_folders(write_class_folders(tmp_path_factory.mktemp("cache") / "photos", demo_photos, side=64))


@pytest.fixture(scope="module")
def extractor(tiny_model: Path) -> Extractor:
    return delf_jax.load(tiny_model, head=Head(), scorer="norm", max_side=64)


@pytest.fixture(scope="module")
def cache(samples: LabelledPhotos, extractor: Extractor, tmp_path_factory: pytest.TempPathFactory) -> DenseCache:
    folder = tmp_path_factory.mktemp("cache") / "features"
    return dense_cache.open_or_make(folder, extractor, samples, SETTINGS)


def test_the_first_view_is_the_photo_as_the_extractor_sees_it(
    cache: DenseCache, samples: LabelledPhotos, extractor: Extractor
) -> None:
    expected = dict(extractor.dense_stream([(0, samples.path(0))]))[0]
    assert isinstance(expected, list)
    dense, usable = expected[0]
    cells, where = cache.cells(0, 0)
    # The file was reduced twice as far in one go, so pixels differ by a grey level here and there.
    assert cells.dtype == np.float16
    assert cells.shape == (dense.shape[0] * dense.shape[1], CHANNELS)
    np.testing.assert_allclose(cells, dense.reshape(cells.shape), atol=0.05 * dense.max())
    np.testing.assert_array_equal(where, usable.ravel())
    assert len(cache.cells(0, 1)[0]) != 0


def test_the_cache_is_made_once_for_the_same_photos_and_settings(
    samples: LabelledPhotos, extractor: Extractor, tmp_path: Path
) -> None:
    calls: list[int] = []

    def made(settings: TrainingSettings, photos: LabelledPhotos) -> bool:
        calls.clear()
        dense_cache.open_or_make(
            tmp_path / "features",
            extractor,
            photos,
            settings,
            progress=lambda done, total: calls.append(done),
        )
        return bool(calls)

    photos = samples.take(np.arange(3))
    one = dataclasses.replace(SETTINGS, views=1)
    assert made(one, photos)
    assert not made(one, photos)
    assert not made(dataclasses.replace(one, learning_rate=1.0), photos)
    assert made(dataclasses.replace(one, seed=1), photos)
    assert made(dataclasses.replace(one, seed=1), samples.take(np.arange(2)))
    (tmp_path / "features" / "cache.json").write_text("{")
    assert made(one, photos)


def test_a_photo_that_cannot_be_read_is_left_out_and_named(
    samples: LabelledPhotos, extractor: Extractor, tmp_path: Path
) -> None:
    shutil.copytree(samples.root, tmp_path / "photos")
    broken = from_folders(tmp_path / "photos")
    Path(broken.path(1)).write_bytes(b"no photo")
    one = dataclasses.replace(SETTINGS, views=1)
    cache = dense_cache.open_or_make(tmp_path / "a", extractor, broken.take(np.arange(3)), one)
    assert cache.readable.tolist() == [0, 2]
    assert [name for name, _ in cache.failures] == [broken.path(1)]
    batches = CachedBatches(cache, broken.labels, 2)
    assert (batches.steps_per_epoch, list(batches.failures)) == (1, [broken.path(1)])
    with pytest.raises(TrainingError, match="none of the 1 photos could be read"):
        dense_cache.open_or_make(tmp_path / "b", extractor, broken.take(np.array([1])), one)


def test_an_epoch_holds_every_photo_once_and_a_state_goes_on(cache: DenseCache, samples: LabelledPhotos) -> None:
    names = np.arange(PHOTOS, dtype=np.int32)
    batches = CachedBatches(cache, names, 3, seed=5)
    seen = [batch["labels"] for batch, _ in zip(batches, range(batches.steps_per_epoch))]
    assert len(set(np.concatenate(seen).tolist())) == 3 * batches.steps_per_epoch == 9
    state = batches.get_state()
    following = next(batches)
    resumed = CachedBatches(cache, names, 3, seed=5)
    resumed.set_state(state)
    for name, array in next(resumed).items():
        np.testing.assert_array_equal(array, following[name])


def test_balanced_batches_draw_all_classes_equally_often(cache: DenseCache, samples: LabelledPhotos) -> None:
    batches = CachedBatches(cache, samples.labels, 4, order="balanced")
    for _ in range(10):
        assert sorted(next(batches)["labels"].tolist()) == [0, 1, 2, 3]
    by_photo = CachedBatches(cache, samples.labels, 4, order="balanced")
    rounds = np.array([by_photo._balanced() for by_photo.step in range(5)])
    largest_class = np.flatnonzero(samples.labels == 0)
    assert sorted(rounds[np.isin(rounds, largest_class)].tolist()) == largest_class.tolist()


def test_drawn_cells_are_usable_ones_of_the_photo_and_change_with_the_step(
    cache: DenseCache, samples: LabelledPhotos
) -> None:
    batches = CachedBatches(cache, np.arange(PHOTOS, dtype=np.int32), 4, cells_per_step=3)
    batch = next(batches)
    assert batch["features"].shape == (4, 3, CHANNELS)
    for row, photo in enumerate(batch["labels"].tolist()):
        both = np.concatenate([cells[usable] for cells, usable in (cache.cells(photo, view) for view in (0, 1))])
        for cell in batch["features"][row][batch["where"][row]]:
            assert (both == cell).all(axis=1).any()
    batches.set_state({"step": 0})
    np.testing.assert_array_equal(next(batches)["features"], batch["features"])


def test_padding_of_a_batch_is_no_photo_and_no_cell(cache: DenseCache, samples: LabelledPhotos) -> None:
    batch = padded_batch(cache, np.array([2]), np.array([0]), samples.labels, rows=3)
    cells, usable = cache.cells(2, 0)
    assert batch["labels"].tolist() == [samples.labels[2], -1, -1]
    assert batch["where"].sum() == usable.sum()
    assert not batch["features"][0, len(cells) :].any()
