"""The official DELF code's files: ``.delf`` and ``.delg_local`` (features), ``.boxes`` (detected regions).

Official files keep y and x apart, the *inverse* of the image scale, and boxes as fractions of the photo's sides; here
they have this project's coordinates: (x, y) pixels, image scale, [x0, y0, x1, y1] pixels. Parsing is pure; only
``read_*`` and ``write_*`` touch files. Sources: feature.proto, box.proto, and feature_io.py beside them.
"""

import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from delf_jax.errors import FileFormatError
from delf_jax.features import LocalFeatures
from delf_jax.files import atomic
from delf_jax.interchange.datum import encode_datum, parse_datum, read_bytes
from delf_jax.interchange.protobuf_wire import encoded, fields

_FEATURE = 1
_DESCRIPTOR, _X, _Y, _INVERSE_SCALE, _ORIENTATION, _STRENGTH = 1, 2, 3, 4, 5, 6
_BOX = 1
_Y0, _X0, _Y1, _X1, _SCORE, _CLASS = 1, 2, 3, 4, 5, 6


def decode_delf(data: bytes, *, image_size: tuple[int, int], name: str = "a .delf") -> LocalFeatures:
    """The features in the bytes of a ``.delf`` or ``.delg_local`` file, sorted by falling score.

    Args:
        image_size: (height, width) of the photo, which the format does not keep.
        name: what errors call the bytes.

    Returns:
        The photo's features; descriptors and positions as they were stored (the official code stores unit-length
        descriptors, and positions without the padding of its network). Orientations, always 0 there, are left out.

    Raises:
        FileFormatError: the bytes are damaged, no DelfFeatures, or hold numbers that no feature can have.
    """
    try:
        rows = [_parse_feature(field.data) for field in fields(data) if field.number == _FEATURE]
        if not rows:
            return LocalFeatures.empty(image_size, 0)
        descriptors = [descriptor for descriptor, _ in rows]
        lengths = {descriptor.shape for descriptor in descriptors}
        if len(lengths) > 1 or descriptors[0].ndim != 1:
            raise ValueError("its descriptors have different shapes")
        stacked = np.stack(descriptors).astype(np.float32)
        numbers = np.array([numbers for _, numbers in rows], np.float32)
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
    scores = np.asarray(features.scores, np.float32).tolist()
    inverse_scales = (1 / np.asarray(features.scales, np.float32)).tolist()
    keypoints = np.asarray(features.keypoints, np.float32).tolist()
    message = []
    for descriptor, (x, y), inverse_scale, score in zip(
        np.asarray(features.descriptors, np.float32), keypoints, inverse_scales, scores, strict=True
    ):
        numbers = ((_X, x), (_Y, y), (_INVERSE_SCALE, inverse_scale), (_ORIENTATION, 0.0), (_STRENGTH, score))
        feature = encoded(_DESCRIPTOR, encode_datum(descriptor)) + b"".join(encoded(*number) for number in numbers)
        message.append(encoded(_FEATURE, feature))
    return b"".join(message)


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
        image_size: (height, width) of the photo, whose sides the stored numbers are fractions of.
        name: what errors call the bytes.

    Raises:
        FileFormatError: the bytes are damaged, no Boxes, or hold numbers that are not finite.
    """
    try:
        rows = [_parse_box(field.data) for field in fields(data) if field.number == _BOX]
        numbers = np.array([numbers for numbers, _ in rows], np.float32).reshape(-1, 5)
        if not np.isfinite(numbers).all() or (np.abs(numbers) > 1e6).any():
            raise ValueError("it holds numbers that no fraction of a photo can be")
    except ValueError as error:
        raise FileFormatError(f"{name}: damaged or not a .boxes file ({error}); detect the regions again") from None
    classes = np.array([number for _, number in rows], np.int32)
    return Boxes(numbers[:, :4] * _sides(image_size), numbers[:, 4], classes)


def encode_boxes(boxes: Boxes, *, image_size: tuple[int, int]) -> bytes:
    """The bytes of a ``.boxes`` file; ``decode_boxes`` with the same ``image_size`` reads it back."""
    fractions = np.asarray(boxes.boxes, np.float32) / _sides(image_size)
    message = []
    for (x0, y0, x1, y1), score, index in zip(
        fractions.tolist(),
        np.asarray(boxes.scores, np.float32).tolist(),
        np.asarray(boxes.classes).tolist(),
        strict=True,
    ):
        numbers: tuple[tuple[int, float | int], ...]
        numbers = ((_Y0, y0), (_X0, x0), (_Y1, y1), (_X1, x1), (_SCORE, score), (_CLASS, int(index)))
        message.append(encoded(_BOX, b"".join(encoded(*number) for number in numbers)))
    return b"".join(message)


def read_delf(path: str | os.PathLike[str], *, image_size: tuple[int, int]) -> LocalFeatures:
    """The features of a ``.delf`` or ``.delg_local`` file, as ``decode_delf``; FileFormatError names the file."""
    return decode_delf(read_bytes(path), image_size=image_size, name=os.fspath(path))


def write_delf(path: str | os.PathLike[str], features: LocalFeatures) -> None:
    """Writes ``encode_delf`` of one photo's features as a file that appears whole or not at all."""
    atomic.write_bytes(path, encode_delf(features))


def read_boxes(path: str | os.PathLike[str], *, image_size: tuple[int, int]) -> Boxes:
    """The regions of a ``.boxes`` file, as ``decode_boxes``; FileFormatError names the file."""
    return decode_boxes(read_bytes(path), image_size=image_size, name=os.fspath(path))


def write_boxes(path: str | os.PathLike[str], boxes: Boxes, *, image_size: tuple[int, int]) -> None:
    """Writes ``encode_boxes`` as a file that appears whole or not at all."""
    atomic.write_bytes(path, encode_boxes(boxes, image_size=image_size))


def _parse_feature(message: memoryview) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """(descriptor, (x, y, inverse scale, strength)) of a DelfFeature; what is absent is 0, as proto2 has it."""
    descriptor, numbers = np.zeros(0, np.float32), dict.fromkeys((_X, _Y, _INVERSE_SCALE, _STRENGTH), 0.0)
    for field in fields(message):
        if field.number == _DESCRIPTOR:
            descriptor = parse_datum(field.data)
        elif field.number in numbers:
            numbers[field.number] = field.float32
    return descriptor, (numbers[_X], numbers[_Y], numbers[_INVERSE_SCALE], numbers[_STRENGTH])


def _parse_box(message: memoryview) -> tuple[tuple[float, ...], int]:
    """((x0, y0, x1, y1, score), class) of a Box."""
    numbers, index = dict.fromkeys((_X0, _Y0, _X1, _Y1, _SCORE), 0.0), 0
    for field in fields(message):
        if field.number in numbers:
            numbers[field.number] = field.float32
        elif field.number == _CLASS:
            # Negative numbers of 32 bits are sent as 64.
            index = (field.integer + 2**31) % 2**32 - 2**31
    return tuple(numbers.values()), index


def _sides(image_size: tuple[int, int]) -> Float[np.ndarray, "4"]:
    height, width = image_size
    return np.array([width, height, width, height], np.float32)
