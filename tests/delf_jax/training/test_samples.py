"""Lists of labelled photos: sorted, identified, split by name."""

from pathlib import Path

import numpy as np
import pytest

from delf_jax.errors import TrainingDataError
from delf_jax.training.samples import from_folders, photo_list, split, unlabelled
from delf_jax.training.sources import open_sets
from tests.delf_jax.training.class_folders import CLASSES, PHOTOS, write_class_folders


@pytest.fixture
def folders(tmp_path: Path, demo_photos: Path) -> Path:
    return write_class_folders(tmp_path / "photos", demo_photos)


def test_folders_are_classes_sorted_by_class_then_name(folders: Path) -> None:
    (folders / ".cache").mkdir()
    (folders / "empty").mkdir()
    (folders / "notes.jpg").write_bytes(b"lies in no class")
    samples = from_folders(folders)
    assert list(samples.classes) == ["castle", "cat", "graffiti", "still life"]
    assert list(samples.names) == [f"{label}/{name}" for label in CLASSES for name in sorted(CLASSES[label])]
    np.testing.assert_array_equal(samples.labels, [0] * 5 + [1] * 2 + [2] * 3 + [3])
    name, photo = samples.read(5, max_side=None)
    assert name == "cat/chelsea.jpg"
    assert min(photo.pixels.shape[:2]) == 96


def test_unlabelled_photos_are_classes_of_their_own(folders: Path) -> None:
    samples = unlabelled([folders / "cat", folders / "graffiti" / "graf1.jpg"])
    assert len(samples.classes) == len(samples) == 3
    np.testing.assert_array_equal(samples.labels, [0, 1, 2])


def test_the_digest_tells_lists_apart(folders: Path) -> None:
    digest = from_folders(folders).digest
    assert from_folders(str(folders)).digest == digest
    (folders / "cat" / "chelsea.jpg").rename(folders / "castle" / "chelsea.jpg")
    moved = from_folders(folders).digest
    assert moved != digest
    (folders / "castle").rename(folders / "chateau")
    assert from_folders(folders).digest != moved


def test_the_split_is_by_name_and_adding_photos_moves_none() -> None:
    names = [f"class/{i:016x}.jpg" for i in range(4000)]
    train, validation = split(photo_list(("class", name) for name in names))
    assert {*train.names, *validation.names} == set(names)
    assert len(train) + len(validation) == 4000
    assert 0.18 < len(validation) / 4000 < 0.22
    _, larger = split(photo_list(("class", f"class/{i:016x}.jpg") for i in range(5000)))
    assert set(validation.names) == set(larger.names) & set(names)
    # The same photo in a tree of folders stays where it is.
    _, elsewhere = split(photo_list(("other", f"0/0/0/{i:016x}.jpg") for i in range(4000)))
    assert {Path(name).name for name in elsewhere.names} == {Path(name).name for name in validation.names}


def test_sets_for_training_and_validation(folders: Path) -> None:
    training, validation = open_sets([str(folders)], validation=0.5)
    assert validation is not None
    assert len(training) + len(validation) == PHOTOS
    assert list(training.classes) == list(validation.classes) == sorted(CLASSES)
    assert open_sets([str(folders)])[1] is None
    assert open_sets([str(folders)], labels="none", validation=0.5)[1] is None


def test_what_is_no_training_set_is_refused_with_its_name(tmp_path: Path, folders: Path) -> None:
    (tmp_path / "flat").mkdir()
    for paths, labels, message in (
        (["nowhere"], "folders", "nowhere: cannot be listed"),
        ([str(tmp_path / "flat")], "folders", "flat: holds no photos in class folders"),
        ([str(folders), str(folders)], "folders", "2 places are named"),
        (["nowhere.jpg"], "none", "nowhere.jpg: there is no such file"),
        ([], "none", "no photos were named"),
    ):
        with pytest.raises(TrainingDataError, match=message):
            open_sets(paths, labels=labels)
