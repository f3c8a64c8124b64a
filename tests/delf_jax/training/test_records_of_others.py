"""A labelled data set that TFDS prepared, whatever its features are called, is training data as it lies there."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from delf_cli.main import main
from delf_jax.errors import DelfError, ImageError, TrainingDataError
from delf_jax.training.records import open_records
from delf_jax.training.sources import open_sets

PICTURE, MASK = tfds.features.Image(), tfds.features.Image(shape=(None, None, 1))
LANDMARK = tfds.features.ClassLabel(names=["tower", "unused", "bridge"])
PHOTOS = ("graf1.jpg", "graf3.jpg", "leuvenA.jpg", "box.jpg", "building.jpg", "home.jpg")


def prepare(folder: Path, features: Mapping[str, Any], splits: Mapping[str, list[dict[str, Any]]]) -> Path:
    """Writes a data set through TFDS as a user would, without TensorFlow; returns the folder of its version."""
    with tfds.core.registered.skip_registration():

        class Mine(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.2.0")

            def _info(self) -> Any:
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(dict(features)))

            def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
                return {name: iter(enumerate(examples)) for name, examples in splits.items()}

            def _generate_examples(self) -> Iterator[Any]:
                raise NotImplementedError

    Mine(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder / "mine" / "1.2.0"


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory, demo_photos: Path) -> Path:
    """Six photos, two classes of three, the last one without a label, one cut short; a mask beside each photo."""
    files = [(demo_photos / name).read_bytes() for name in PHOTOS]
    files[1] = files[1][:200]
    examples = [
        {"image": file, "mask": demo_photos / "box.jpg", "file_name": f"x/{name}", "label": label, "id": 7 + i}
        for i, (file, name, label) in enumerate(zip(files, PHOTOS, (2, 2, 0, 0, 2, -1)))
    ]
    features = {
        "image": PICTURE,
        "mask": MASK,
        "file_name": tfds.features.Text(),
        "label": LANDMARK,
        "id": np.int64,
    }
    return prepare(tmp_path_factory.mktemp("flowers"), features, {"train": examples, "test": examples[:1]})


def test_photos_are_sorted_by_class_whatever_their_order_in_the_shards(flowers: Path, demo_photos: Path) -> None:
    records, aside = open_sets([str(flowers)])
    assert aside is None
    assert list(records.classes) == ["tower", "bridge"]
    np.testing.assert_array_equal(records.labels, [0, 0, 1, 1, 1])
    names = []
    for position in range(len(records)):
        try:
            name, photo = records.read(position, max_side=None)
            assert photo.pixels.shape[2] == 3
        except ImageError as error:
            name = f"broken {error.source}"
        names.append(name)
    assert names == ["x/box.jpg", "x/leuvenA.jpg", "x/building.jpg", "x/graf1.jpg", "broken x/graf3.jpg"]
    assert "tensorflow" not in sys.modules
    # The folder above will do.
    assert open_sets([str(flowers.parent)])[0].digest == records.digest


def test_another_feature_can_be_the_label(flowers: Path) -> None:
    records, _ = open_sets([str(flowers)], labels="id")
    assert list(records.classes) == ["7", "8", "9", "10", "11", "12"]
    for labels in ("none", "train.csv", "file_name"):
        with pytest.raises(
            TrainingDataError, match=r"file_name, id, image, label, mask; choose one with --labels: id, label"
        ):
            open_sets([str(flowers)], labels=labels)
    with pytest.raises(TrainingDataError, match="needs a CSV list"):
        open_sets([str(flowers)], positives="radius:100")


def test_photos_are_kept_aside_by_name_where_there_is_no_validation_split(flowers: Path) -> None:
    training, validation = open_records(flowers, validation=0.5)
    assert validation is not None
    assert len(training) + len(validation) == 5
    assert training.classes == validation.classes
    assert not set(training.rows) & set(validation.rows)
    with pytest.raises(TrainingDataError, match=r"5 photos are too few to keep 0\.001 of them aside"):
        open_records(flowers, validation=0.001)


def test_features_are_found_by_type_and_a_validation_split_is_used(tmp_path: Path, demo_photos: Path) -> None:
    photo = demo_photos / "box.jpg"
    splits = {
        "train": [{"photo": photo, "place": 40}, {"photo": photo, "place": 5}],
        "validation": [{"photo": photo, "place": 40}, {"photo": photo, "place": 6}],
    }
    folder = prepare(tmp_path, {"photo": PICTURE, "place": np.int32}, splits)
    training, validation = open_records(folder, validation=0.2)
    assert validation is not None
    assert (list(training.classes), training.labels.tolist()) == (["5", "40"], [0, 1])
    # Of a class that training does not know there is nothing to validate.
    assert validation.labels.tolist() == [1]
    assert validation.read(0, max_side=32)[0].startswith("validation/")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"left": PICTURE, "right": PICTURE, "label": LANDMARK}, "one picture is needed"),
        ({"image": PICTURE, "breed": LANDMARK, "colour": LANDMARK}, "choose one with --labels: breed, colour"),
        ({"image": PICTURE, "caption": tfds.features.Text()}, r"caption, image; none can be a label"),
    ],
)
def test_without_one_photo_and_one_label_the_features_are_named(
    tmp_path: Path, demo_photos: Path, features: Mapping[str, Any], message: str
) -> None:
    example = {name: demo_photos / "box.jpg" if feature is PICTURE else "tower" for name, feature in features.items()}
    folder = prepare(tmp_path, features, {"train": [example]})
    with pytest.raises(TrainingDataError, match=f"its features are .*{message}"):
        open_records(folder)


def test_other_file_formats_are_refused_with_the_remedy(flowers: Path, tmp_path: Path) -> None:
    for name in ("features.json", "label.labels.txt"):
        (tmp_path / name).write_text((flowers / name).read_text())
    description = json.loads((flowers / "dataset_info.json").read_text())
    (tmp_path / "dataset_info.json").write_text(json.dumps(description | {"fileFormat": "tfrecord"}))
    with pytest.raises(DelfError, match=r"not in the ArrayRecord format; prepare it with file_format='array_record'"):
        open_records(tmp_path)


def test_training_takes_it(flowers: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", str(flowers), "--preset", "tiny", "--model", str(tiny_model), "--steps", "2"]
    assert main([*command, "--out", str(tmp_path / "run"), "--json"]) == 1
    failure, outcome = map(json.loads, capsys.readouterr().out.splitlines())
    assert failure["image"] == "x/graf3.jpg"
    assert (outcome["photos"], outcome["step"]) == (4, 2)
