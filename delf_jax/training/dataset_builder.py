"""Landmark photos as ArrayRecord shards: written and read through TensorFlow Datasets, without TensorFlow.

A few large files instead of many small ones suit object stores and spinning disks. `prepare` writes them; where
TensorFlow is installed, TFDS's own tool does, too:

    tfds build delf_jax/training/dataset_builder.py --file_format array_record \\
        --config '{"name": "mine", "photos": "DIR"}'
"""

import contextlib
import dataclasses
import functools
import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from delf_jax.errors import ImageError, TrainingDataError
from delf_jax.images import Photo, load_photo, read_bytes
from delf_jax.training.landmark_lists import from_csv
from delf_jax.training.samples import PhotoList, from_folders, split


@dataclasses.dataclass
class LandmarksConfig(tfds.core.BuilderConfig):
    """Which photos go in.

    Attributes:
        photos: folder of class folders, or with ``photo_list`` of a list's photos.
        photo_list: CSV list of Google Landmarks v1, v2 or v2-clean.
        positives: ``landmark`` or ``radius:METRES``, for lists.
        validation: share that becomes the split ``validation``; by the photos' names.
    """

    photos: str = ""
    photo_list: str = ""
    positives: str = "landmark"
    validation: float = 0.0

    def splits(self) -> dict[str, PhotoList]:
        """The photos, by the name of their split."""
        photos = (
            from_csv(self.photo_list, self.photos, positives=self.positives)
            if self.photo_list
            else from_folders(self.photos)
        )
        parts = dict(zip(("train", "validation"), split(photos, validation=self.validation)))
        return {name: part for name, part in parts.items() if len(part)}


class Landmarks(tfds.core.GeneratorBasedBuilder):
    """Photos, byte for byte as they were, with label and file name, in the order of the list."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (LandmarksConfig(name="photos"),)

    @functools.cached_property
    def _photo_lists(self) -> dict[str, PhotoList]:
        return self.builder_config.splits()

    def _info(self) -> tfds.core.DatasetInfo:
        lists = self._photo_lists
        counts = {name: np.bincount(part.labels, minlength=len(part.classes)) for name, part in lists.items()}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photos labelled with the landmark that they show.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(doc="the photo's file"),
                    "label": tfds.features.ClassLabel(names=list(next(iter(lists.values())).classes)),
                    "filename": tfds.features.Text(doc="relative to the folder of the photos"),
                }
            ),
            # Sorted by class: labels follow from the counts, so that no photo is read to know them.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                counts={name: count.tolist() for name, count in counts.items()},
                digests={name: part.digest for name, part in lists.items()},
            ),
        )

    def _split_generators(self, dl_manager: Any) -> Mapping[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {name: self._generate_examples(part) for name, part in self._photo_lists.items()}

    def _generate_examples(self, photos: PhotoList) -> Iterator[tuple[int, dict[str, Any]]]:
        for position, name in enumerate(photos.names):
            yield (
                position,
                {"image": read_bytes(photos.path(position)), "label": int(photos.labels[position]), "filename": name},
            )


def prepare(config: LandmarksConfig, out: str | os.PathLike[str]) -> Path:
    """Writes a folder of shards below ``out``, or finds it there complete, and returns it.

    Raises:
        TrainingDataError: no photos, or other photos were prepared there under the same name.
        ImageError: a photo cannot be read.
    """
    # TFDS prints what it does, bars included, and makes a folder for downloads even where it loads nothing down.
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as downloads:
        builder = Landmarks(data_dir=os.fspath(out), config=config, file_format="array_record")
        builder.download_and_prepare(download_dir=downloads)
    folder = Path(builder.data_path)
    for name, part in config.splits().items():
        if open_records(folder, split=name).digest != part.digest:
            raise TrainingDataError(f"{folder}: holds other photos; remove it, or choose another --out or --name")
    return folder


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Samples in ArrayRecord shards; the same photos in the same order as the list they were made from.

    Attributes:
        folder: of the shards.
        split: ``train`` or ``validation``.
        classes: names of the classes, sorted.
        labels: int32 [n], ascending.
        digest: that of the list.
    """

    folder: Path
    split: str
    classes: Sequence[str]
    labels: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        # Each worker process opens the shards for itself.
        return {name: value for name, value in vars(self).items() if name != "_source"}

    @functools.cached_property
    def _source(self) -> Any:
        builder = tfds.builder_from_directory(self.folder)
        return builder.as_data_source(self.split, decoders={"image": tfds.decode.SkipDecoding()})

    def read(self, position: int, *, max_side: int | None) -> tuple[str, Photo]:
        """Name and pixels of one photo; raises ImageError where it cannot be decoded."""
        record = self._source[position]
        name = record["filename"].decode()
        try:
            return name, load_photo(record["image"], max_side=max_side)
        except ImageError as error:
            raise ImageError(name, error.reason) from None


def is_records(folder: str | os.PathLike[str]) -> bool:
    """Whether the folder holds shards, itself or a few levels below."""
    return bool(_prepared(folder))


def open_records(folder: str | os.PathLike[str], *, split: str = "train") -> Records:
    """Opens what `prepare` wrote.

    Args:
        folder: what `prepare` returned, or a folder above that holds nothing else of this kind.
        split: ``train`` or ``validation``.

    Raises:
        TrainingDataError: there are no shards, several sets, or no such split.
    """
    found = _prepared(folder)
    if len(found) != 1:
        what = f"{len(found)} prepared sets ({', '.join(map(str, found[:3]))})" if found else "no prepared photos"
        raise TrainingDataError(f"{folder}: holds {what}; name a folder that `delf-jax prepare` wrote")
    try:
        info = tfds.builder_from_directory(found[0]).info
        counts, digests = info.metadata["counts"], info.metadata["digests"]
        classes = info.features["label"].names
    except Exception as error:  # whatever TFDS's readers raise at damaged files
        raise TrainingDataError(
            f"{found[0]}: is damaged or was made by another tool ({error}); prepare it anew"
        ) from None
    if split not in counts:
        raise TrainingDataError(f"{found[0]}: has no split {split}, only {', '.join(counts)}; prepare it with one")
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts[split])
    return Records(found[0], split, classes, labels, digests[split])


def _prepared(folder: str | os.PathLike[str]) -> list[Path]:
    depths = ("dataset_info.json", "*/dataset_info.json", "*/*/dataset_info.json", "*/*/*/dataset_info.json")
    return sorted(path.parent.absolute() for depth in depths for path in Path(folder).glob(depth))
