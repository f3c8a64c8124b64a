"""Training photos in ArrayRecord shards, written by `delf-jax prepare` or prepared by TFDS."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from delf_jax.errors import ImageError, TrainingDataError
from delf_jax.photos.load import Photo, load_photo
from delf_jax.photos.tfds_sets import file_name, open_builder, open_split, picture_features
from delf_jax.training.samples import digest_of, held_out


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Samples in ArrayRecord shards.

    Attributes:
        folder: of the shards.
        split: TFDS's name of the part of the set.
        image: name of the feature that holds the photo.
        rows: int64 [n], number of each photo's record in the split.
        labels: int32 [n], ascending.
        classes: names of the classes.
        digest: identity of the list.
    """

    folder: Path
    split: str
    image: str
    rows: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    digest: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        # Each worker process opens the shards for itself.
        return {name: value for name, value in vars(self).items() if name != "_source"}

    @functools.cached_property
    def _source(self) -> Any:
        return open_split(open_builder(self.folder), self.split)

    def read(self, position: int, *, max_side: int | None) -> tuple[str, Photo]:
        """Name and pixels of one photo; raises ImageError if it cannot be decoded."""
        row = int(self.rows[position])
        record = self._source[row]
        name = _name(record, self.split, row)
        try:
            return name, load_photo(record[self.image], max_side=max_side)
        except ImageError as error:
            raise ImageError(name, error.reason) from None


def is_records(folder: str | os.PathLike[str]) -> bool:
    """Whether the folder holds shards, itself or a few levels below."""
    return bool(_prepared(folder))


def open_records(
    folder: str | os.PathLike[str], *, label: str | None = None, validation: float = 0.0
) -> tuple[Records, Records | None]:
    """The photos to train on, and those kept aside for validation.

    Shards of ``delf-jax prepare`` have a list of labels, and keep the order of the photos. In other sets every record
    is read once for its label; records with a negative label, which in TFDS means unknown, are left out.

    Args:
        folder: of a prepared version, or a folder above that holds nothing else of this kind.
        label: name of the feature that is the label; None finds it by its type.
        validation: above 0, the split ``validation`` is kept aside. For other sets without one, it is the share of the
            training photos to keep aside, chosen by their names.

    Raises:
        TrainingDataError: there are no shards, several sets, no such split, or no feature that must be the label.
        DelfError: the set is damaged, or not in ArrayRecord format.
    """
    found = _prepared(folder)
    if len(found) != 1:
        what = f"{len(found)} prepared sets ({', '.join(map(str, found[:3]))})" if found else "no prepared photos"
        raise TrainingDataError(f"{folder}: holds {what}; name a folder that `delf-jax prepare` wrote or TFDS prepared")
    (path,) = found
    builder = open_builder(path)
    features = builder.info.features
    image, label = _image_feature(path, features), _label_feature(path, features, label)
    if "digests" in (builder.info.metadata or {}):
        training = _written_here(path, builder, image, "train")
        return training, _written_here(path, builder, image, "validation") if validation else None
    split = _training_split(path, builder.info.splits)
    labelled = _labelled(builder, split, label)
    if not labelled:
        raise TrainingDataError(f"{path}: no record of its split {split} has a label; name another set")
    values = sorted({value for value, _, _ in labelled})
    records = functools.partial(_records, path, image, features[label], values)
    if not validation:
        return records(split, labelled), None
    if "validation" in builder.info.splits:
        return records(split, labelled), records("validation", _labelled(builder, "validation", label))
    aside = held_out([name for _, name, _ in labelled], validation)
    parts = [[photo for photo, out in zip(labelled, aside) if out == wanted] for wanted in (False, True)]
    if not all(parts):
        raise TrainingDataError(
            f"{path}: {len(labelled)} photos are too few to keep {validation:g} of them aside; name a larger set"
        )
    return records(split, parts[0]), records(split, parts[1])


def _written_here(path: Path, builder: Any, image: str, split: str) -> Records:
    """Records of `delf-jax prepare`: sorted by class, so the counts give all labels."""
    info = builder.info
    counts, classes = info.metadata["counts"], info.features["label"].names
    if split not in counts:
        raise TrainingDataError(f"{path}: has no split {split}, only {', '.join(counts)}; prepare it with one")
    open_split(builder, split)  # refuses a file format that cannot be read, before training begins
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts[split])
    return Records(path, split, image, np.arange(len(labels)), labels, classes, info.metadata["digests"][split])


def _labelled(builder: Any, split: str, label: str) -> list[tuple[int, str, int]]:
    """Label, name and number of the records that have a label, sorted."""
    records = open_split(builder, split)
    read = ((int(record[label]), _name(record, split, i), i) for i, record in enumerate(records))
    return sorted(photo for photo in read if photo[0] >= 0)


def _records(
    path: Path, image: str, feature: Any, values: list[int], split: str, labelled: list[tuple[int, str, int]]
) -> Records:
    """Records whose label is one of ``values``; a class for each of these."""
    position = {value: i for i, value in enumerate(values)}
    known = [photo for photo in labelled if photo[0] in position]
    labels = np.array([position[value] for value, _, _ in known], np.int32)
    rows = np.array([row for _, _, row in known], np.int64)
    classes = [feature.int2str(value) if hasattr(feature, "int2str") else str(value) for value in values]
    digest = digest_of((name for _, name, _ in known), labels, classes)
    return Records(path, split, image, rows, labels, classes, digest)


def _name(record: Mapping[str, Any], split: str, row: int) -> str:
    return file_name(record) or f"{split}/{row}"


def _training_split(path: Path, splits: Any) -> str:
    if "train" in splits:
        return "train"
    if len(splits) != 1:
        raise TrainingDataError(f"{path}: its splits are {', '.join(splits)}; one named train is needed")
    return next(iter(splits))


def _image_feature(path: Path, features: Any) -> str:
    found = picture_features(features)
    if "image" in found:
        return "image"
    if len(found) != 1:
        raise TrainingDataError(
            f"{path}: its features are {', '.join(sorted(features))}; one picture is needed, or one that is named image"
        )
    return found[0]


def _label_feature(path: Path, features: Any, wanted: str | None) -> str:
    import tensorflow_datasets as tfds

    integers = [
        name
        for name, feature in sorted(features.items())
        if isinstance(feature, tfds.features.Tensor)
        and feature.shape == ()
        and np.issubdtype(feature.np_dtype, np.integer)
    ]
    classes = [name for name in integers if isinstance(features[name], tfds.features.ClassLabel)]
    if wanted is None:
        found = next((names for names in (classes, integers) if names), [])
        if "label" in found:
            return "label"
        if len(found) == 1:
            return found[0]
    elif wanted in integers:
        return wanted
    choice = f"choose one with --labels: {', '.join(integers)}" if integers else "none can be a label (one integer)"
    raise TrainingDataError(f"{path}: its features are {', '.join(sorted(features))}; {choice}")


def _prepared(folder: str | os.PathLike[str]) -> list[Path]:
    depths = ("dataset_info.json", "*/dataset_info.json", "*/*/dataset_info.json", "*/*/*/dataset_info.json")
    return sorted(path.parent.absolute() for depth in depths for path in Path(folder).glob(depth))
