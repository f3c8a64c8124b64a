"""Landmark photos as ArrayRecord shards: written through TensorFlow Datasets, without TensorFlow.

A few large files suit object stores and spinning disks better than many small ones. ``prepare`` writes them. With
TensorFlow, TFDS's own tool does it too:

    tfds build delf_jax/training/dataset_builder.py --file_format array_record \\
        --config '{"name": "mine", "photos": "DIR"}'
"""

import contextlib
import dataclasses
import functools
import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from delf_jax.errors import ImageError, TrainingDataError
from delf_jax.photos.load import read_bytes
from delf_jax.photos.tfds_sets import open_builder
from delf_jax.training.samples import LabelledPhotos, split
from delf_jax.training.sources import photo_files


@dataclasses.dataclass
class LandmarksConfig(tfds.core.BuilderConfig):
    """Which photos are written.

    Attributes:
        photos: folder of the photos.
        labels: ``folders`` or the path of a CSV list, as for ``photo_files``.
        positives: ``landmark`` or ``radius:METRES``, for lists.
        validation: share of the photos in the split ``validation``, chosen by their names.
    """

    photos: str = ""
    labels: str = "folders"
    positives: str = "landmark"
    validation: float = 0.0

    @functools.cached_property
    def photo_list(self) -> LabelledPhotos:
        """The photos."""
        return photo_files([self.photos], labels=self.labels, positives=self.positives)

    @functools.cached_property
    def splits(self) -> dict[str, LabelledPhotos]:
        """The photos by the name of their split."""
        parts = dict(zip(("train", "validation"), split(self.photo_list, validation=self.validation)))
        return {name: part for name, part in parts.items() if len(part)}


class Landmarks(tfds.core.GeneratorBasedBuilder):
    """Photos, byte for byte as they were, with label and file name, in the order of the list."""

    VERSION = tfds.core.Version("1.0.0")
    # `tfds build` takes a configuration only for builders that have one.
    BUILDER_CONFIGS = (LandmarksConfig(name="none"),)

    def __init__(self, **options: Any) -> None:
        self.unreadable: list[ImageError] = []
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        lists = self.builder_config.splits
        counts = {name: np.bincount(part.labels, minlength=len(part.classes)) for name, part in lists.items()}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photos labelled with the landmark that they show.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(doc="the photo's file"),
                    "label": tfds.features.ClassLabel(names=list(self.builder_config.photo_list.classes)),
                    "filename": tfds.features.Text(doc="relative to the folder of the photos"),
                }
            ),
            # The photos are sorted by class, so labels follow from the counts without reading a photo.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                counts={name: count.tolist() for name, count in counts.items()},
                digests={name: part.digest for name, part in lists.items()},
            ),
        )

    def _split_generators(self, dl_manager: Any) -> Mapping[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {name: self._generate_examples(part) for name, part in self.builder_config.splits.items()}

    def _generate_examples(self, photos: LabelledPhotos) -> Iterator[tuple[int, dict[str, Any]]]:
        for position, name in enumerate(photos.names):
            yield position, {"image": self._bytes(photos, position), "label": photos.labels[position], "filename": name}

    def _bytes(self, photos: LabelledPhotos, position: int) -> bytes:
        try:
            return read_bytes(photos.path(position))
        except ImageError as error:
            # Without its place the labels would shift; the loader skips the empty file.
            self.unreadable.append(error)
            return b""


class Prepared(NamedTuple):
    """Result of ``prepare``.

    Attributes:
        folder: of the shards, for ``delf_jax.training.records.open_records``.
        unreadable: photos with an empty place in the shards.
    """

    folder: Path
    unreadable: list[ImageError]


def prepare(config: LandmarksConfig, out: str | os.PathLike[str]) -> Prepared:
    """Writes a folder of shards below ``out``, whole or not at all, unless it is there already.

    Raises:
        TrainingDataError: no photos, or other photos were prepared there under the same name.
    """
    # TFDS prints progress, and makes a folder for downloads even if it downloads nothing.
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as downloads:
        builder = Landmarks(data_dir=os.fspath(out), config=config, file_format="array_record")
        builder.download_and_prepare(download_dir=downloads)
    folder = Path(builder.data_path)
    there = open_builder(folder).info.metadata["digests"]
    if there != {name: part.digest for name, part in config.splits.items()}:
        raise TrainingDataError(f"{folder}: holds other photos; remove it, or choose another --out")
    return Prepared(folder, builder.unreadable)
