"""Data sets that TensorFlow Datasets (TFDS) has prepared, read without TensorFlow; pictures stay encoded files."""

import os
from collections.abc import Mapping
from typing import Any

from delf_jax.errors import DelfError, one_line


def open_builder(folder: str | os.PathLike[str]) -> Any:
    """TFDS's builder of the version in this folder; its ``info`` lists splits and features.

    Raises:
        DelfError: the folder's description is damaged.
    """
    import tensorflow_datasets as tfds  # takes a second to import

    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:  # the readers of TFDS raise anything for damaged files
        reason = one_line(error)
        raise DelfError(f"{folder}: its description is damaged ({reason}); prepare it again") from None


def open_split(builder: Any, split: str) -> Any:
    """The records of a split: a sequence of dicts from feature names to values; a picture is the bytes of its file.

    Raises:
        DelfError: the data set was prepared in a file format without random access.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    skip = {name: tfds.decode.SkipDecoding() for name in picture_features(features)}
    try:
        return builder.as_data_source(split, decoders=skip)
    except NotImplementedError:
        raise DelfError(
            f"{builder.data_path}: is not in the ArrayRecord format; prepare it with file_format='array_record', "
            "or convert it with tfds convert_format"
        ) from None


def picture_features(features: Any) -> list[str]:
    """Names of the features (TFDS's ``FeaturesDict``) that are pictures, sorted."""
    import tensorflow_datasets as tfds

    return sorted(name for name, feature in features.items() if isinstance(feature, tfds.features.Image))


def file_name(record: Mapping[str, Any]) -> str | None:
    """File name of a record's photo (feature ``filename``, ``file_name`` or ``image/filename``), or None."""
    for feature, value in record.items():
        if feature.rpartition("/")[2].replace("_", "") == "filename" and isinstance(value, bytes):
            return value.decode(errors="surrogateescape")
    return None
