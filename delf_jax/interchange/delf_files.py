"""The official DELF code's files: ``.delf`` and ``.delg_local`` (features), ``.boxes`` (detected regions).

Official files store y and x apart, the *inverse* of the image scale, and boxes as fractions of the photo's sides. Here
they have this project's coordinates: (x, y) pixels, image scale, [x0, y0, x1, y1] pixels. Decoding is pure; only
``read_*`` and ``write_*`` touch files. Sources: feature.proto, box.proto, and feature_io.py beside them.
"""

import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from delf_jax.errors import FileFormatError
from delf_jax.features import LocalFeatures
from delf_jax.files import atomic
from delf_jax.files.protobuf import message_class, parse
from delf_jax.interchange.datum import DATUM_SCHEMA, array_of, fill_datum, read_file

_FEATURES = message_class(
    DATUM_SCHEMA
    + """
message DelfFeature {
  optional DatumProto descriptor = 1;
  optional float x = 2;
  optional float y = 3;
  optional float scale = 4;
  optional float orientation = 5;
  optional float strength = 6;
}
message DelfFeatures { repeated DelfFeature feature = 1; }
""",
    "DelfFeatures",
)
_BOXES = message_class(
    """
message Box {
  optional float ymin = 1;
  optional float xmin = 2;
  optional float ymax = 3;
  optional float xmax = 4;
  optional float score = 5;
  optional int32 class_index = 6;
}
message Boxes { repeated Box box = 1; }
""",
    "Boxes",
)


def decode_delf(data: bytes, *, image_size: tuple[int, int], name: str = "a .delf") -> LocalFeatures:
    """The features in the bytes of a ``.delf`` or ``.delg_local`` file, sorted by falling score.

    Args:
        image_size: (height, width) of the photo, which the format does not store.
        name: what errors call the bytes.

    Returns:
        The photo's features, with descriptors and positions as they were stored. The official code stores unit-length
        descriptors, and positions without the padding of its network. Its orientations are always 0 and left out.

    Raises:
        FileFormatError: the bytes are damaged, not DelfFeatures, or hold numbers that no feature can have.
    """
    try:
        found = parse(_FEATURES, data).feature
        if not found:
            return LocalFeatures.empty(image_size, 0)
        descriptors = [array_of(feature.descriptor) for feature in found]
        if len({descriptor.shape for descriptor in descriptors}) > 1 or descriptors[0].ndim != 1:
            raise ValueError("its descriptors have different shapes")
        stacked = np.stack(descriptors).astype(np.float32)
        numbers = np.array([(feature.x, feature.y, feature.scale, feature.strength) for feature in found], np.float32)
        if not (np.isfinite(stacked).all() and np.isfinite(numbers).all()):
            raise ValueError("it holds numbers that are not finite")
        x, y, inverse_scale, strength = numbers.T
        if (inverse_scale <= np.finfo(np.float32).tiny).any():
            raise ValueError("a feature without a scale")
    except ValueError as error:
        raise FileFormatError(f"{name}: damaged or not a .delf file ({error}); extract it again") from None
    order = np.argsort(-strength, kind="stable")
    return LocalFeatures(
        keypoints=np.stack([x, y], axis=1)[order],
        scales=1 / inverse_scale[order],
        scores=strength[order],
        descriptors=stacked[order],
        image_size=image_size,
    )


def encode_delf(features: LocalFeatures) -> bytes:
    """The bytes of a ``.delf`` file of one photo's features; ``decode_delf`` reads it back.

    >>> import numpy as np
    >>> photo = LocalFeatures(
    ...     keypoints=np.array([[32.0, 64.0]], np.float32), scales=np.array([0.5], np.float32),
    ...     scores=np.array([7.0], np.float32), descriptors=np.array([[0.6, 0.8]], np.float32), image_size=(480, 640))
    >>> decode_delf(encode_delf(photo), image_size=(480, 640)).scales.tolist()
    [0.5]
    """
    message = _FEATURES()
    for descriptor, (x, y), inverse_scale, score in zip(
        np.asarray(features.descriptors, np.float32),
        np.asarray(features.keypoints, np.float32).tolist(),
        (1 / np.asarray(features.scales, np.float32)).tolist(),
        np.asarray(features.scores, np.float32).tolist(),
        strict=True,
    ):
        feature = message.feature.add(x=x, y=y, scale=inverse_scale, orientation=0, strength=score)
        fill_datum(feature.descriptor, descriptor)
    return bytes(message.SerializeToString())


class Boxes(NamedTuple):
    """Detected regions of one photo.

    Attributes:
        boxes: float32 [n, 4], [x0, y0, x1, y1] of the pixels' edges: a whole photo is [0, 0, width, height].
        scores: float32 [n], confidence of the detector.
        classes: int32 [n], index of the class in the detector's own list.
    """

    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    classes: Int[np.ndarray, " n"]


def decode_boxes(data: bytes, *, image_size: tuple[int, int], name: str = "a .boxes") -> Boxes:
    """The regions in the bytes of a ``.boxes`` file, in its order.

    Args:
        image_size: (height, width) of the photo; the stored numbers are fractions of its sides.
        name: what errors call the bytes.

    Raises:
        FileFormatError: the bytes are damaged, not Boxes, or hold numbers that are not finite.
    """
    try:
        found = parse(_BOXES, data).box
        rows = [(box.xmin, box.ymin, box.xmax, box.ymax, box.score) for box in found]
        numbers = np.array(rows, np.float32).reshape(-1, 5)
        if not np.isfinite(numbers).all() or (np.abs(numbers) > 1e6).any():
            raise ValueError("it holds numbers that no fraction of a photo can be")
    except ValueError as error:
        raise FileFormatError(f"{name}: damaged or not a .boxes file ({error}); detect the regions again") from None
    classes = np.array([box.class_index for box in found], np.int32)
    return Boxes(numbers[:, :4] * _sides(image_size), numbers[:, 4], classes)


def encode_boxes(boxes: Boxes, *, image_size: tuple[int, int]) -> bytes:
    """The bytes of a ``.boxes`` file; ``decode_boxes`` with the same ``image_size`` reads it back."""
    fractions = np.asarray(boxes.boxes, np.float32) / _sides(image_size)
    message = _BOXES()
    for (x0, y0, x1, y1), score, index in zip(
        fractions.tolist(),
        np.asarray(boxes.scores, np.float32).tolist(),
        np.asarray(boxes.classes).tolist(),
        strict=True,
    ):
        message.box.add(ymin=y0, xmin=x0, ymax=y1, xmax=x1, score=score, class_index=index)
    return bytes(message.SerializeToString())


def read_delf(path: str | os.PathLike[str], *, image_size: tuple[int, int]) -> LocalFeatures:
    """The features of a ``.delf`` or ``.delg_local`` file, as ``decode_delf``; FileFormatError names the file."""
    return decode_delf(read_file(path), image_size=image_size, name=os.fspath(path))


def write_delf(path: str | os.PathLike[str], features: LocalFeatures) -> None:
    """Writes ``encode_delf`` of one photo's features as a file that appears whole or not at all."""
    atomic.write_bytes(path, encode_delf(features))


def read_boxes(path: str | os.PathLike[str], *, image_size: tuple[int, int]) -> Boxes:
    """The regions of a ``.boxes`` file, as ``decode_boxes``; FileFormatError names the file."""
    return decode_boxes(read_file(path), image_size=image_size, name=os.fspath(path))


def write_boxes(path: str | os.PathLike[str], boxes: Boxes, *, image_size: tuple[int, int]) -> None:
    """Writes ``encode_boxes`` as a file that appears whole or not at all."""
    atomic.write_bytes(path, encode_boxes(boxes, image_size=image_size))


def _sides(image_size: tuple[int, int]) -> Float[np.ndarray, "4"]:
    height, width = image_size
    return np.array([width, height, width, height], np.float32)
