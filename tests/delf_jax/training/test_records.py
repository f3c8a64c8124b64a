"""Shards give what the files they were made from give, and no TensorFlow is needed for either."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from delf_cli.main import main
from delf_jax.errors import DelfError, ImageError, TrainingDataError
from delf_jax.training.augmentation import AreaCrop
from delf_jax.training.loader import BatchPlan, Loader
from delf_jax.training.records import Records, is_records, open_records
from delf_jax.training.samples import from_folders
from delf_jax.training.sources import open_sets, photo_files
from tests.delf_jax.training.class_folders import PHOTOS, write_class_folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, demo_photos: Path) -> Path:
    folders = write_class_folders(tmp_path_factory.mktemp("training") / "photos", demo_photos)
    (folders / "castle" / "a b (日本).jpg").write_bytes(b"\xff\xd8\xff cut short")
    return folders


@pytest.fixture(scope="module")
def shards(folders: Path) -> Path:
    out = folders.parent / "shards"
    assert main(["prepare", str(folders), "--out", str(out)]) == 0
    return out


def test_preparing_tells_what_it_wrote(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prepare", str(folders), "--out", str(tmp_path / "shards"), "--validation", "0.3", "--json"]
    assert main(command) == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert (record["photos"], record["classes"], record["absent"]) == (PHOTOS + 1, 4, 0)
    assert printed.err == ""
    assert list(Path(record["shards"]).glob("*train*array_record*"))
    training, validation = open_sets([record["shards"]], validation=0.3)
    files = open_sets([str(folders)], validation=0.3)
    assert validation is not None
    assert files[1] is not None
    assert (training.digest, validation.digest) == (files[0].digest, files[1].digest)
    # Once more changes nothing; other photos are not mixed in.
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command[:5], "0.9"]) == 2
    assert "holds other photos" in capsys.readouterr().err


def test_shards_hold_the_same_photos_in_the_same_order(folders: Path, shards: Path) -> None:
    files, (records, _) = from_folders(folders), open_records(shards)
    assert len(records) == len(files) == PHOTOS + 1
    assert records.digest == files.digest
    assert list(records.classes) == list(files.classes)
    np.testing.assert_array_equal(records.labels, files.labels)
    for position in range(len(files)):
        if "日本" in files.names[position]:
            with pytest.raises(ImageError, match=r"日本.*damaged"):
                records.read(position, max_side=64)
            continue
        (name, photo), (same, copy) = (source.read(position, max_side=64) for source in (files, records))
        assert name == same
        assert photo.content_hash == copy.content_hash
        np.testing.assert_array_equal(photo.pixels, copy.pixels)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_training_sees_the_same_batches(folders: Path, shards: Path, workers: int) -> None:
    with (
        Loader(from_folders(folders), AreaCrop(32), BatchPlan(4, order="balanced")) as files,
        Loader(open_records(shards)[0], AreaCrop(32), BatchPlan(4, order="balanced"), workers=workers) as records,
    ):
        for a, b in itertools.islice(zip(files, records), 6):
            assert a["names"] == b["names"]
            for key in ("images", "labels", "valid_hw", "gamma"):
                np.testing.assert_array_equal(a[key], b[key])
        assert list(files.failures.values()) == list(records.failures.values())
        # A run begun on files goes on with shards.
        state = files.get_state()
        records.set_state(state)
        np.testing.assert_array_equal(next(files)["images"], next(records)["images"])


def test_lists_become_shards_too(tmp_path: Path, demo_photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, source in (("aaaa", "graf1.jpg"), ("bbbb", "graf3.jpg"), ("cccc", "box.jpg")):
        (photos / f"{name}.jpg").write_bytes((demo_photos / source).read_bytes())
    listed = tmp_path / "train.csv"
    listed.write_text("landmark_id,images\n7,bbbb gone\n5,aaaa cccc\n")
    assert main(["prepare", str(photos), "--labels", str(listed), "--out", str(tmp_path / "shards")]) == 0
    assert "3 photos of 2 classes; not found: 1 of the listed photos" in capsys.readouterr().out
    records, _ = open_records(tmp_path / "shards")
    assert isinstance(records, Records)
    assert list(records.classes) == ["5", "7"]
    np.testing.assert_array_equal(records.labels, [0, 0, 1])
    assert records.digest == photo_files([str(photos)], labels=str(listed)).digest


def test_an_unreadable_photo_keeps_its_place(
    tmp_path: Path, demo_photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = write_class_folders(tmp_path / "photos", demo_photos)
    (folders / "cat" / "chelsea.jpg").write_bytes(b"")
    assert main(["prepare", str(folders), "--out", str(tmp_path / "shards")]) == 1
    assert "chelsea.jpg: the file is empty" in capsys.readouterr().err
    records, _ = open_records(tmp_path / "shards")
    assert len(records) == PHOTOS
    with pytest.raises(ImageError, match=r"cat/chelsea\.jpg"):
        records.read(5, max_side=None)


def test_what_holds_no_shards_is_refused(tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert is_records(shards)
    assert not is_records(tmp_path)
    with pytest.raises(TrainingDataError, match="no prepared photos"):
        open_records(tmp_path)
    with pytest.raises(TrainingDataError, match="has no split validation"):
        open_records(shards, validation=0.2)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "dataset_info.json").write_text("{}")
    with pytest.raises(DelfError, match="damaged"):
        open_records(tmp_path)
    assert main(["prepare", str(tmp_path / "nowhere"), "--out", str(tmp_path / "shards")]) == 2
    assert "nowhere: cannot be listed" in capsys.readouterr().err
    assert main(["prepare", str(tmp_path), "--out", str(tmp_path / "shards"), "--validation", "1"]) == 2
    assert not (tmp_path / "shards").exists()
