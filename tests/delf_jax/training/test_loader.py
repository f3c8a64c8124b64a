"""Batches follow from photos, seed and step alone: across runs, resumption, processes, workers and corrupt files."""

import collections
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from delf_jax.errors import TrainingDataError
from delf_jax.training.augmentation import AreaCrop, SquareCrop, Warp, Whole
from delf_jax.training.loader import Batch, BatchPlan, Loader
from delf_jax.training.samples import LabelledPhotos, from_folders, unlabelled
from tests.conftest import ROOT
from tests.delf_jax.training.class_folders import CLASSES, PHOTOS, write_class_folders

CROP = AreaCrop(32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, demo_photos: Path) -> Path:
    return write_class_folders(tmp_path_factory.mktemp("training") / "photos", demo_photos)


@pytest.fixture(scope="module")
def samples(folders: Path) -> LabelledPhotos:
    return from_folders(folders)


def take(loader: Loader, count: int) -> list[Batch]:
    with loader:
        return list(itertools.islice(loader, count))


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second) > 0
    for a, b in zip(first, second):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def names_of(batches: list[Batch]) -> list[str]:
    return [name for batch in batches for name in batch["names"]]


def damage(folders: Path, *names: str) -> None:
    for name in names:
        (folders / name).write_bytes(b"\xff\xd8\xff cut short")


def test_batches_hold_views_labels_and_names(samples: LabelledPhotos) -> None:
    (batch,) = take(Loader(samples, Whole(48), BatchPlan(6)), 1)
    assert batch["images"].shape == (6, 48, 48, 3)
    assert batch["images"].dtype == np.uint8
    assert batch["valid_hw"].dtype == batch["labels"].dtype == np.int32
    for image, valid_hw, label, name in zip(batch["images"], batch["valid_hw"], batch["labels"], batch["names"]):
        assert samples.classes[label] == Path(name).parent.name
        _, photo = samples.read(list(samples.names).index(name), max_side=48)
        assert tuple(valid_hw) == photo.pixels.shape[:2]
        np.testing.assert_array_equal(image[: valid_hw[0], : valid_hw[1]], photo.pixels)
    assert batch["gamma"] == np.float32(1)
    assert batch["gamma"].shape == ()


@pytest.mark.parametrize("order", ["shuffled", "balanced"])
def test_the_same_seed_gives_the_same_batches_and_another_others(samples: LabelledPhotos, order: str) -> None:
    def batches(seed: int, threads: int = 2) -> list[Batch]:
        return take(Loader(samples, CROP, BatchPlan(4, order=order, gamma=(0.3535, 1), seed=seed), threads=threads), 6)

    first = batches(3)
    assert_equal(first, batches(3, threads=0))
    other = batches(4)
    assert names_of(first) != names_of(other)
    gammas = [float(batch["gamma"]) for batch in first + other]
    assert len(set(gammas)) == 12
    assert 0.3535 <= min(gammas) < 0.6 < max(gammas) <= 1


def test_every_photo_comes_once_an_epoch_in_a_new_order_and_a_new_view(samples: LabelledPhotos) -> None:
    batches = take(Loader(samples, CROP, BatchPlan(PHOTOS)), 3)
    epochs = [batch["names"] for batch in batches]
    assert all(sorted(epoch) == sorted(samples.names) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    first, second = (batch["images"][batch["names"].index("cat/chelsea.jpg")] for batch in batches[:2])
    assert np.abs(first.astype(float) - second).mean() > 1


def test_balanced_batches_take_every_class_in_turn_and_every_photo_of_it(samples: LabelledPhotos) -> None:
    batches = take(Loader(samples, CROP, BatchPlan(len(CLASSES), order="balanced")), 30)
    orders = {tuple(batch["labels"].tolist()) for batch in batches}
    assert {tuple(sorted(order)) for order in orders} == {(0, 1, 2, 3)}
    assert len(orders) > 5
    for label, photos in CLASSES.items():
        drawn = [name for name in names_of(batches) if Path(name).parent.name == label]
        laps = [drawn[i : i + len(photos)] for i in range(0, 30 - 30 % len(photos), len(photos))]
        assert all(len(set(lap)) == len(photos) for lap in laps)
        assert len(photos) == 1 or len(set(map(tuple, laps))) > 1


@pytest.mark.parametrize("order", ["shuffled", "balanced", "listed"])
def test_a_state_in_the_middle_of_an_epoch_gives_the_remaining_batches(samples: LabelledPhotos, order: str) -> None:
    def loader() -> Loader:
        return Loader(samples, CROP, BatchPlan(3, order=order, gamma=(0.5, 1), seed=1))

    whole = take(loader(), 4)
    with loader() as first:
        head = list(itertools.islice(first, 2))
        state = json.loads(json.dumps(first.get_state()))
        # Going on, or back, in the same loader does what a new one does.
        tail = list(itertools.islice(first, 2))
        first.set_state(state)
        assert_equal(list(itertools.islice(first, 2)), tail)
    assert_equal(head + tail, whole)
    resumed = loader()
    resumed.set_state(state)
    assert resumed.step == 2
    assert_equal(take(resumed, 2), whole[2:])


@pytest.mark.slow
def test_worker_processes_give_the_same_batches_and_resume(samples: LabelledPhotos, folders: Path) -> None:
    def loader(workers: int) -> Loader:
        return Loader(samples, CROP, BatchPlan(4, gamma=(0.5, 1)), workers=workers, threads=0)

    whole = take(loader(0), 6)
    with loader(2) as first:
        head = list(itertools.islice(first, 3))
        state = first.get_state()
    assert_equal(head, whole[:3])
    # Another number of workers continues with the same batches.
    resumed = loader(1)
    resumed.set_state(state)
    assert_equal(take(resumed, 3), whole[3:])
    assert type(head[0]["images"]) is np.ndarray


KILLED = """
import multiprocessing, sys, time
from delf_jax.training.augmentation import AreaCrop
from delf_jax.training.loader import BatchPlan, Loader
from delf_jax.training.samples import from_folders

if __name__ == "__main__":
    with Loader(from_folders(sys.argv[1]), AreaCrop(32), BatchPlan(4), workers=1) as loader:
        next(loader)
        print(len(multiprocessing.active_children()), flush=True)
        time.sleep(100)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(folders: Path, tmp_path: Path, end: signal.Signals) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(folders)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "1\n"
        # Ctrl-C in a terminal goes to all processes of the group.
        (os.kill if end == signal.SIGKILL else os.killpg)(parent.pid, end)
        # The worker holds the other end of the pipes, too: this comes back only when it is gone.
        _, complaint = parent.communicate(timeout=60)
    assert complaint.count("KeyboardInterrupt") == (end == signal.SIGINT)


@pytest.mark.parametrize("order", ["shuffled", "balanced", "listed"])
def test_processes_share_each_batch(samples: LabelledPhotos, order: str) -> None:
    whole = take(Loader(samples, CROP, BatchPlan(4, order=order)), 3)
    parts = [take(Loader(samples, CROP, BatchPlan(4, order=order), process=(i, 2)), 3) for i in (0, 1)]
    for step, batch in enumerate(whole):
        halves = [part[step] for part in parts]
        assert all(len(half["names"]) == 2 for half in halves)
        # One takes the even rows, the other the odd ones.
        joined = np.stack([half["images"] for half in halves], axis=1).reshape(batch["images"].shape)
        np.testing.assert_array_equal(joined, batch["images"])
        assert [name for pair in zip(*(half["names"] for half in halves)) for name in pair] == batch["names"]
        assert halves[0]["gamma"] == halves[1]["gamma"] == batch["gamma"]


def test_shards_of_an_epoch_are_disjoint_and_complete(samples: LabelledPhotos) -> None:
    parts = [take(Loader(samples, CROP, BatchPlan(3, order="listed"), process=(i, 3)), 10) for i in range(3)]
    seen = [{name for name in names_of(part) if name} for part in parts]
    assert set.union(*seen) == set(samples.names)
    assert sum(map(len, seen)) == PHOTOS
    assert {len(part) for part in parts} == {4}


def test_a_listed_pass_ends_and_fills_its_last_batch(samples: LabelledPhotos) -> None:
    loader = Loader(samples, CROP, BatchPlan(4, order="listed"))
    batches = take(loader, 10)
    assert loader.steps_per_epoch == len(batches) == 3
    assert names_of(batches) == [*samples.names, ""]
    assert np.concatenate([batch["labels"] for batch in batches]).tolist() == [*samples.labels.tolist(), -1]
    assert not batches[-1]["images"][-1].any()
    assert not batches[-1]["valid_hw"][-1].any()


def test_corrupt_photos_are_passed_over_counted_and_named(tmp_path: Path, demo_photos: Path) -> None:
    folders = write_class_folders(tmp_path / "photos", demo_photos)
    whole = take(Loader(from_folders(folders), CROP, BatchPlan(4)), 8)
    bad = ["castle/china.jpg", "cat/chelsea.jpg"]
    damage(folders, *bad)
    samples = from_folders(folders)
    loader = Loader(samples, CROP, BatchPlan(4))
    batches = take(loader, 8)
    assert {str(folders / name) for name in bad} == loader.failures.keys()
    assert all("damaged" in reason for reason in loader.failures.values())
    assert not set(bad) & set(names_of(batches))
    for batch, intact in zip(batches, whole):
        assert batch["images"].shape == (4, 32, 32, 3)
        for row, name in enumerate(intact["names"]):
            if name not in bad:
                assert batch["names"][row] == name
                np.testing.assert_array_equal(batch["images"][row], intact["images"][row])
            else:
                # The next readable photo stands in; here it is of the same class.
                assert batch["labels"][row] == intact["labels"][row]
    again = Loader(samples, CROP, BatchPlan(4))
    assert_equal(take(again, 8), batches)
    # What failed before a checkpoint is still known after it.
    resumed = Loader(samples, CROP, BatchPlan(4))
    resumed.set_state(json.loads(json.dumps(again.get_state())))
    assert resumed.failures == loader.failures


def test_corrupt_photos_of_a_listed_pass_have_no_label(tmp_path: Path, demo_photos: Path) -> None:
    folders = write_class_folders(tmp_path / "photos", demo_photos)
    damage(folders, "castle/china.jpg")
    samples = from_folders(folders)
    loader = Loader(samples, CROP, BatchPlan(6, order="listed"))
    batches = take(loader, 3)
    labels = np.concatenate([batch["labels"] for batch in batches])
    assert np.flatnonzero(labels < 0).tolist() == [list(samples.names).index("castle/china.jpg"), PHOTOS]
    assert len(loader.failures) == 1


def test_nothing_but_corrupt_photos_is_an_error(tmp_path: Path, demo_photos: Path) -> None:
    folders = write_class_folders(tmp_path / "photos", demo_photos)
    damage(folders, *(f"{label}/{name}" for label in CLASSES for name in CLASSES[label]))
    with (
        Loader(from_folders(folders), CROP, BatchPlan(4)) as loader,
        pytest.raises(TrainingDataError, match=f"any of the {PHOTOS} photos"),
    ):
        next(loader)


def test_a_state_of_other_training_is_refused(samples: LabelledPhotos, folders: Path) -> None:
    state = Loader(samples, CROP, BatchPlan(4)).get_state()
    others = [
        Loader(samples, CROP, BatchPlan(4, seed=1)),
        Loader(samples, CROP, BatchPlan(2)),
        Loader(samples, CROP, BatchPlan(4, order="balanced")),
        Loader(unlabelled([folders]), CROP, BatchPlan(4)),
    ]
    for other in others:
        with pytest.raises(TrainingDataError, match="the saved state has"):
            other.set_state(state)
    with pytest.raises(ValueError, match="multiple of 3"):
        Loader(samples, CROP, BatchPlan(4), process=(0, 3))
    with pytest.raises(TrainingDataError, match="empty"):
        Loader(samples.take(np.array([], int)), CROP, BatchPlan(4))


def test_self_labelled_training_sees_warps_of_each_photo_under_one_label(folders: Path) -> None:
    batches = take(Loader(unlabelled([folders]), Warp(64), BatchPlan(PHOTOS, order="balanced")), 4)
    views: dict[int, list[np.ndarray]] = collections.defaultdict(list)
    for batch in batches:
        for label, image in zip(batch["labels"].tolist(), batch["images"]):
            views[label].append(image.astype(float))
    assert len(views) == PHOTOS
    for images in views.values():
        assert len(images) == 4
        assert min(np.abs(a - b).mean() for a, b in itertools.combinations(images, 2)) > 2


def test_training_and_validation_crops_differ(samples: LabelledPhotos) -> None:
    first, second = (
        take(Loader(samples, SquareCrop(40, 32, random=False), BatchPlan(PHOTOS, order="listed", seed=seed)), 1)
        for seed in (0, 1)
    )
    assert_equal(first, second)
