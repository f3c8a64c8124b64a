"""Boxes and masks of photos with an EXIF orientation: made in either frame, they end on the same pixels."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from delf_jax.errors import ImageError
from localization.evaluation.annotated_photo import AnnotatedPhoto
from localization.evaluation.datasets import read

WIDTH, HEIGHT = 40, 24
BOX = (4, 2, 20, 8)  # x0, y0, x1, y1 of the white rectangle in the stored pixels


def stored_picture(mode: str = "L", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """A white rectangle on black."""
    picture = Image.new(mode, (WIDTH, HEIGHT))
    picture.paste(Image.new(mode, (16, 6), "white"), BOX[:2])
    return picture.resize(size, Image.Resampling.NEAREST)


def save_turned(path: Path, orientation: int) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """A PNG with an orientation; returns the upright picture by Pillow, and where its white rectangle is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored_picture().save(path, exif=exif)
    with Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture)
    box = upright.getbbox()
    assert box is not None
    return upright, box


def coco(root: Path, photos: list[dict[str, Any]], boxes: list[tuple[float, ...]]) -> Path:
    """A COCO file of one box a photo, with its outline."""
    annotations = [
        {"id": n, "image_id": n, "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]]}
        for n, (x0, y0, x1, y1) in enumerate(boxes)
    ]
    file = root / "annotations" / "instances_val.json"
    file.parent.mkdir(exist_ok=True)
    images = [{"id": n, **photo} for n, photo in enumerate(photos)]
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    return root


def check(photo: AnnotatedPhoto) -> None:
    """The box and the mask lie on the white pixels of the loaded photo."""
    pixels = photo.load().pixels
    (box,) = photo.boxes
    x0, y0, x1, y1 = map(round, box)
    np.testing.assert_allclose(box, (x0, y0, x1, y1))
    inside = np.zeros(pixels.shape[:2], bool)
    inside[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(pixels[:, :, 0] > 127, inside)
    if photo.mask is not None:
        np.testing.assert_array_equal(photo.mask(), inside)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_coco_of_stored_pixels(orientation: int, tmp_path: Path) -> None:
    save_turned(tmp_path / "val" / "a.png", orientation)
    save_turned(tmp_path / "val" / "b.png", 6)  # its sides differ, so it tells what the size of a flipped photo cannot
    stated = {"width": WIDTH, "height": HEIGHT}
    photos = read(coco(tmp_path, [{"file_name": "a.png"} | stated, {"file_name": "b.png"} | stated], [BOX, BOX]))
    for photo in photos:
        assert photo.mask is not None
        check(photo)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_coco_of_upright_photos(orientation: int, tmp_path: Path) -> None:
    upright, box = save_turned(tmp_path / "val" / "a.png", orientation)
    other, other_box = save_turned(tmp_path / "val" / "b.png", 8)
    stated = [
        {"file_name": name, "width": picture.width, "height": picture.height}
        for name, picture in (("a.png", upright), ("b.png", other))
    ]
    for photo in read(coco(tmp_path, stated, [box, other_box])):
        check(photo)


@pytest.mark.parametrize("frame", ["stored", "upright"])
def test_boxes_of_a_reduced_copy_are_enlarged(frame: str, tmp_path: Path) -> None:
    upright, box = save_turned(tmp_path / "val" / "a.png", 6)
    size, edges = ((WIDTH, HEIGHT), BOX) if frame == "stored" else (upright.size, box)
    half = {"file_name": "a.png", "width": size[0] // 2, "height": size[1] // 2}
    (photo,) = read(coco(tmp_path, [half], [tuple(edge / 2 for edge in edges)]))
    check(photo._replace(mask=None))


def test_one_warning_where_nothing_tells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    boxes = [save_turned(tmp_path / "val" / name, 3)[1] for name in ("a.png", "b.png")]
    stated = [{"file_name": name, "width": WIDTH, "height": HEIGHT} for name in ("a.png", "b.png")]
    with caplog.at_level(logging.WARNING):
        photos = read(coco(tmp_path, stated, [tuple(box) for box in boxes]))
    for photo in photos:
        check(photo)  # taken as upright
    (record,) = caplog.records
    assert "instances_val.json: does not tell whether the boxes of 2 photos" in record.getMessage()


def test_an_orientation_of_zero_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Photos of CUB have it."""
    save_turned(tmp_path / "val" / "a.png", 0)
    with caplog.at_level(logging.WARNING):
        (photo,) = read(coco(tmp_path, [{"file_name": "a.png"}], [BOX]))
    check(photo)
    assert not caplog.records


def test_a_photo_of_another_size_costs_one_photo(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_turned(tmp_path / "val" / name, 1)
    stated = [{"file_name": "a.png", "width": 100, "height": 99}, {"file_name": "b.png", "width": 40, "height": 24}]
    a, b = read(coco(tmp_path, stated, [BOX, BOX]))
    check(b)
    with pytest.raises(ImageError, match=r"a\.png: has 40 x 24 pixels, its annotation is of 100 x 99"):
        a.load()


def test_a_box_outside_of_its_photo_costs_one_photo(tmp_path: Path) -> None:
    save_turned(tmp_path / "a.png", 6)
    (tmp_path / "boxes.csv").write_text("file,xmin,ymin,xmax,ymax\na.png,25,0,40,10\n")
    (photo,) = read(tmp_path / "boxes.csv")
    with pytest.raises(ImageError, match=r"a\.png: the true box 25, 0, 40, 10 lies outside of its 24 x 40 pixels"):
        photo.load()


@pytest.mark.parametrize("stated", [f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>", ""])
def test_voc_of_stored_pixels(stated: str, tmp_path: Path) -> None:
    """The size of the mask tells the frame where the XML states none."""
    save_turned(tmp_path / "JPEGImages" / "a.png", 8)
    for folder in ("Annotations", "SegmentationObject"):
        (tmp_path / folder).mkdir()
    x0, y0, x1, y1 = BOX
    corners = f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
    text = f"<annotation><filename>a.png</filename>{stated}<object><bndbox>{corners}</bndbox></object></annotation>"
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    stored_picture().point(lambda value: value // 255).save(tmp_path / "SegmentationObject" / "a.png")
    (photo,) = read(tmp_path)
    assert photo.mask is not None
    check(photo)


def test_cub_of_stored_pixels(tmp_path: Path) -> None:
    """CUB states no size, but its masks have one."""
    save_turned(tmp_path / "images" / "a.png", 6)
    (tmp_path / "segmentations").mkdir()
    stored_picture().save(tmp_path / "segmentations" / "a.png")
    x0, y0, x1, y1 = BOX
    lists = {"images": "a.png", "bounding_boxes": f"{x0} {y0} {x1 - x0} {y1 - y0}", "train_test_split": "1"}
    for name, text in {**lists, "image_class_labels": "1"}.items():
        (tmp_path / f"{name}.txt").write_text(f"1 {text}\n")
    (photo,) = read(tmp_path)
    check(photo)
