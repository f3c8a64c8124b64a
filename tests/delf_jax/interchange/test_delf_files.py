"""Files of the official DELF code: a real one, and ours as the full official schemas read them."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from delf_jax import FileFormatError, LocalFeatures
from delf_jax.interchange.datum import decode_datum, encode_datum, read_datum, write_datum
from delf_jax.interchange.delf_files import (
    Boxes,
    decode_boxes,
    decode_delf,
    encode_delf,
    read_boxes,
    read_delf,
    write_boxes,
    write_delf,
)

SIZE = (480, 640)


def features(count: int = 7, dimension: int = 5) -> LocalFeatures:
    generator = np.random.default_rng(0)
    descriptors = generator.normal(size=(count, dimension)).astype(np.float32)
    return LocalFeatures(
        keypoints=generator.uniform(0, 480, (count, 2)).astype(np.float32),
        scales=np.array([0.25, 0.5, 1, 2] * count, np.float32)[:count],
        scores=np.sort(generator.uniform(0, 300, count).astype(np.float32))[::-1].copy(),
        descriptors=descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
        image_size=SIZE,
    )


@pytest.fixture(scope="module")
def messages() -> dict[str, Any]:
    """The official schemas, stated once more and apart from the code under test."""
    file = descriptor_pb2.FileDescriptorProto(name="delf.proto", package="delf", syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *entries: tuple[str, int, Any]) -> None:
        added = file.message_type.add(name=name)
        for field, number, kind in entries:
            repeated = field.endswith("*")
            one = added.field.add(name=field.rstrip("*"), number=number)
            one.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if isinstance(kind, str):
                one.type, one.type_name = kinds.TYPE_MESSAGE, f".delf.{kind}"
            else:
                one.type = kind
                one.options.packed = repeated

    message("DatumShape", ("dim*", 1, kinds.TYPE_INT64))
    message("FloatList", ("value*", 1, kinds.TYPE_FLOAT))
    message("Uint32List", ("value*", 1, kinds.TYPE_UINT32))
    message("DatumProto", ("shape", 1, "DatumShape"), ("float_list", 2, "FloatList"), ("uint32_list", 3, "Uint32List"))
    numbers = [(name, 2 + i, kinds.TYPE_FLOAT) for i, name in enumerate(("x", "y", "scale", "orientation", "strength"))]
    message("DelfFeature", ("descriptor", 1, "DatumProto"), *numbers)
    message("DelfFeatures", ("feature*", 1, "DelfFeature"))
    sides = [(name, 1 + i, kinds.TYPE_FLOAT) for i, name in enumerate(("ymin", "xmin", "ymax", "xmax", "score"))]
    message("Box", *sides, ("class_index", 6, kinds.TYPE_INT32))
    message("Boxes", ("box*", 1, "Box"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("DatumProto", "DelfFeatures", "Boxes")
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"delf.{name}")) for name in names}


def test_a_real_official_file_reads(shared_data: Path) -> None:
    folder = shared_data / "delf_format"
    with Image.open(folder / "love.jpg") as photo:
        width, height = photo.size
    found = read_delf(folder / "love.delf", image_size=(height, width))
    assert found.descriptors.shape == (546, 40)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)
    assert (found.keypoints >= 0).all()
    assert (found.keypoints < (width, height)).all()
    # Stored 0.5 to 4 as inverse scales; the receptive fields lie 32 pixels of the scaled photo apart.
    assert (found.scales.min(), found.scales.max()) == (0.25, 2)
    cells = found.keypoints * found.scales[:, None] / 32
    np.testing.assert_allclose(cells, np.round(cells), atol=1e-3)
    assert (np.diff(found.scores) <= 0).all()


def test_our_copy_of_the_real_file_is_the_same(shared_data: Path, messages: dict[str, Any]) -> None:
    data = (shared_data / "delf_format" / "love.delf").read_bytes()
    theirs = messages["DelfFeatures"].FromString(data)
    ours = decode_delf(data, image_size=(684, 1000))
    again = messages["DelfFeatures"].FromString(encode_delf(ours))
    order = np.argsort([-f.strength for f in theirs.feature], kind="stable")
    assert [theirs.feature[i] for i in order] == list(again.feature)


def test_the_official_schema_reads_our_features(messages: dict[str, Any], tmp_path: Path) -> None:
    ours = features()
    write_delf(tmp_path / "a.delf", ours)
    theirs = messages["DelfFeatures"].FromString((tmp_path / "a.delf").read_bytes()).feature
    assert [list(f.descriptor.shape.dim) for f in theirs] == [[5]] * 7
    np.testing.assert_array_equal([f.descriptor.float_list.value for f in theirs], ours.descriptors)
    np.testing.assert_array_equal([(f.x, f.y) for f in theirs], ours.keypoints)
    np.testing.assert_array_equal([f.scale for f in theirs], 1 / ours.scales)
    np.testing.assert_array_equal([f.strength for f in theirs], ours.scores)
    assert {f.orientation for f in theirs} == {0}


def test_features_come_back_as_they_were_written(tmp_path: Path) -> None:
    ours = features()
    write_delf(tmp_path / "a.delf", ours)
    back = read_delf(tmp_path / "a.delf", image_size=SIZE)
    for field in ("keypoints", "scales", "scores", "descriptors"):
        np.testing.assert_array_equal(getattr(back, field), getattr(ours, field))
    assert back.image_size == SIZE
    empty = LocalFeatures.empty(SIZE, 40)
    assert len(decode_delf(encode_delf(empty), image_size=SIZE)) == 0


def test_unpacked_and_unordered_files_of_others_are_read(messages: dict[str, Any]) -> None:
    message = messages["DelfFeatures"]()
    for strength in (1.0, 3.0, 2.0):
        message.feature.add(x=strength, y=9, scale=2, strength=strength).descriptor.float_list.value.extend([0.6, 0.8])
        message.feature[-1].descriptor.shape.dim.append(2)
    back = decode_delf(message.SerializeToString(), image_size=SIZE)
    assert back.scores.tolist() == back.keypoints[:, 0].tolist() == [3, 2, 1]
    assert back.scales.tolist() == [0.5] * 3
    # shape {1: 2}, then two floats as fields of their own, and a field of a later schema.
    unpacked = b"\x0a\x02\x08\x02" + b"\x12\x0a" + b"\x0d\x00\x00\x80\x3f" + b"\x0d\x00\x00\x00\x40" + b"\x38\x01"
    assert decode_datum(unpacked).tolist() == [1, 2]


@pytest.mark.parametrize("array", [
    np.arange(12, dtype=np.float32).reshape(3, 2, 2),
    np.zeros((0, 40), np.float32),
    np.array(3.5, np.float32),
    np.array([0, 300, 2**32 - 1], np.uint32),
])  # fmt: skip
def test_datums_of_every_shape(array: np.ndarray, messages: dict[str, Any], tmp_path: Path) -> None:
    write_datum(tmp_path / "a.datum", array)
    back = read_datum(tmp_path / "a.datum")
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(back, array)
    theirs = messages["DatumProto"].FromString((tmp_path / "a.datum").read_bytes())
    values = theirs.uint32_list.value if array.dtype == np.uint32 else theirs.float_list.value
    np.testing.assert_array_equal(np.reshape(values, tuple(theirs.shape.dim)), array)


def test_boxes_are_fractions_of_the_photo_there_and_pixels_here(messages: dict[str, Any], tmp_path: Path) -> None:
    ours = Boxes(
        boxes=np.array([[0, 0, 640, 480], [64, 120, 320, 240]], np.float32),
        scores=np.array([0.9, 0.5], np.float32),
        classes=np.array([3, -1], np.int32),
    )
    write_boxes(tmp_path / "a.boxes", ours, image_size=SIZE)
    theirs = messages["Boxes"].FromString((tmp_path / "a.boxes").read_bytes()).box
    assert [(b.ymin, b.xmin, b.ymax, b.xmax) for b in theirs] == [(0, 0, 1, 1), (0.25, pytest.approx(0.1), 0.5, 0.5)]
    assert [b.class_index for b in theirs] == [3, -1]
    back = read_boxes(tmp_path / "a.boxes", image_size=SIZE)
    np.testing.assert_allclose(back.boxes, ours.boxes, rtol=1e-6)
    np.testing.assert_array_equal(back.scores, ours.scores)
    np.testing.assert_array_equal(back.classes, ours.classes)
    assert decode_boxes(b"", image_size=SIZE).boxes.shape == (0, 4)


@pytest.mark.parametrize(("data", "reason"), [
    (b"\x0a\xff\x01", "not a message"),  # a field beyond the end
    (b"\x0a", "not a message"),  # cut off
    (b"\x02\x00", "not a message"),  # field number 0
    (b"\xff" * 11, "not a message"),  # an integer of more than 64 bits
    (b"\x0b" * 200, "not a message"),  # groups in groups without end
    (b"\x12\x05\x0a\x03abc", "not a message"),  # three bytes of floats
    (b"\x0a\x04\x0a\x02\x80\x02", "0 values do not have the shape"),
    (b"\x0a\x0c\x0a\x0a" + b"\xff" * 9 + b"\x01", "do not have the shape"),
    (b"\x0a\x0d\x0a\x0b\x00" + b"\xff" * 9 + b"\x01", "do not have the shape"),
    (b"", "0 values do not have the shape"),
])  # fmt: skip
def test_damaged_datums_are_refused_in_one_sentence(data: bytes, reason: str) -> None:
    with pytest.raises(FileFormatError, match=f"mean.datum: damaged or not a .datum file .*{reason}.*; get it again"):
        decode_datum(data, name="mean.datum")


def test_features_that_cannot_be_are_refused() -> None:
    whole = features(2)
    for change, reason in (
        ({"scales": np.array([np.inf, 1], np.float32)}, "without a scale"),
        ({"keypoints": np.full((2, 2), np.nan, np.float32)}, "not finite"),
        ({"descriptors": np.full((2, 5), np.inf, np.float32)}, "not finite"),
    ):
        damaged = LocalFeatures(**(vars(whole) | change))
        with pytest.raises(FileFormatError, match=reason):
            decode_delf(encode_delf(damaged), image_size=SIZE)
    mixed = encode_delf(whole) + encode_delf(features(1, dimension=4))
    with pytest.raises(FileFormatError, match="different shapes"):
        decode_delf(mixed, image_size=SIZE)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"none\.delf: cannot be read \(No such file"):
        read_delf(tmp_path / "none.delf", image_size=SIZE)


@settings(deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_read_or_are_refused(data: bytes) -> None:
    for decode in (decode_datum, lambda d: decode_delf(d, image_size=SIZE), lambda d: decode_boxes(d, image_size=SIZE)):
        with contextlib.suppress(FileFormatError):
            decode(data)


@settings(deadline=None)
@given(place=st.integers(0, 400), byte=st.integers(0, 255), cut=st.integers(0, 400))
def test_changed_or_cut_files_read_or_are_refused(place: int, byte: int, cut: int) -> None:
    data = bytearray(encode_delf(features(3)))
    data[place % len(data)] = byte
    for changed in (bytes(data), bytes(data[: cut % len(data)])):
        try:
            found = decode_delf(changed, image_size=SIZE)
        except FileFormatError:
            continue
        assert np.isfinite(found.descriptors).all()
        assert np.isfinite(found.scales).all()


def test_integers_too_large_for_a_datum_are_refused() -> None:
    with pytest.raises(FileFormatError, match="below 2"):
        encode_datum(np.array([2**32], np.uint64))
