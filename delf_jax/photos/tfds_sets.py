"""Data sets that TensorFlow Datasets (TFDS) prepared, read without TensorFlow, their pictures still as files."""

import os
from collections.abc import Mapping
from typing import Any

from delf_jax.errors import DelfError


def open_builder(folder: str | os.PathLike[str]) -> Any:
    """TFDS's builder of the version that lies in this folder; ``info`` tells its splits and features.

    Raises:
        DelfError: the folder's description is damaged.
    """
    import tensorflow_datasets as tfds  # takes a second to import

    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:  # whatever TFDS's readers raise at damaged files
        reason = " ".join(str(error).split())
        raise DelfError(f"{folder}: its description is damaged ({reason}); prepare it anew") from None


def open_split(builder: Any, split: str) -> Any:
    """A sequence of the split's records, which map names of features to values, pictures to the bytes of their files.

    Raises:
        DelfError: prepared in a file format without random access.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    skip = {name: tfds.decode.SkipDecoding() for name in picture_features(features)}
    try:
        return builder.as_data_source(split, decoders=skip)
    except NotImplementedError:
        raise DelfError(
            f"{builder.data_path}: not ArrayRecord; prepare it with file_format='array_record', or convert it with "
            "tfds convert_format"
        ) from None


def picture_features(features: Any) -> list[str]:
    """Names of the features (TFDS's ``FeaturesDict``) that are pictures, sorted."""
    import tensorflow_datasets as tfds

    return sorted(name for name, feature in features.items() if isinstance(feature, tfds.features.Image))


def file_name(record: Mapping[str, Any]) -> str | None:
    """File name of a record's photo (feature ``filename``, ``file_name``, ``image/filename``), if it has one."""
    for feature, value in record.items():
        if feature.rpartition("/")[2].replace("_", "") == "filename" and isinstance(value, bytes):
            return value.decode(errors="surrogateescape")
    return None
