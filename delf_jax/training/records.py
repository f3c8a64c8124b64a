"""Photos in ArrayRecord shards, as `delf_jax.training.dataset_builder` writes them; read without TensorFlow."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from delf_jax.errors import ImageError, TrainingDataError
from delf_jax.images import Photo, load_photo


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
        import tensorflow_datasets as tfds

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
    import tensorflow_datasets as tfds

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
