"""Readers of benchmark layouts, on small folders made by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delf_jax.errors import DelfError
from localization.datasets import read


def photo(path: Path, size: tuple[int, int] = (200, 100)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(path)


XML = """<annotation><filename>a.jpg</filename>
<object><name>dog</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>11</ymin><xmax>50</xmax><ymax>60</ymax></bndbox></object>
<object><name>cat</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"""


def test_cub(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "001.A" / "a b.jpg")
    (tmp_path / "images.txt").write_text("1 001.A/a b.jpg\n2 001.A/missing.jpg\n")
    (tmp_path / "bounding_boxes.txt").write_text("1 10.0 20.0 30.0 40.0\n2 0 0 1 1\n")
    (tmp_path / "train_test_split.txt").write_text("1 0\n2 1\n")
    (tmp_path / "image_class_labels.txt").write_text("1 7\n2 7\n")
    (only,) = read(tmp_path)
    assert only == (tmp_path / "images" / "001.A" / "a b.jpg", [(10, 20, 40, 60)], "7", False)


def test_real_cub(shared_data: Path) -> None:
    photos = read(shared_data / "cub10")
    assert len(photos) == 323
    assert sum(p.train for p in photos) == 180
    assert len({p.label for p in photos}) == 6


def test_voc_boxes_become_edges(tmp_path: Path) -> None:
    photo(tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(XML)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (only,) = read(tmp_path)
    assert only.boxes == [(0, 10, 50, 60)]  # 50 pixels wide and high; the difficult one is left out
    assert only.train


def test_imagenet(tmp_path: Path) -> None:
    photo(tmp_path / "Data" / "CLS-LOC" / "val" / "a.JPEG")
    (tmp_path / "Annotations" / "CLS-LOC" / "val").mkdir(parents=True)
    (tmp_path / "Annotations" / "CLS-LOC" / "val" / "a.xml").write_text(XML)
    (only,) = read(tmp_path)
    assert only.path == tmp_path / "Data" / "CLS-LOC" / "val" / "a.JPEG"
    assert (only.label, only.train, len(only.boxes)) == ("dog", False, 2)


def test_coco(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    content = {
        "images": [{"id": 5, "file_name": "a.jpg"}, {"id": 6, "file_name": "b.jpg"}],
        "annotations": [
            {"image_id": 5, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            {"image_id": 5, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
    }
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    a, b = read(tmp_path)
    assert a == (tmp_path / "val2017" / "a.jpg", [(1, 2, 4, 6)], None, False)
    assert b.boxes == []


def test_yolo(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "train" / "a.jpg", (200, 100))
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("3 0.5 0.5 0.2 0.4\n")
    (only,) = read(tmp_path)
    np.testing.assert_allclose(only.boxes, [(80, 30, 120, 70)])


def test_csv(tmp_path: Path) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text("file,xmin,ymin,xmax,ymax\nx/a.jpg,1,2,3,4\nx/a.jpg,5,6,7,8.5\n")
    (only,) = read(file)
    assert only == (tmp_path / "x" / "a.jpg", [(1, 2, 3, 4), (5, 6, 7, 8.5)], None, None)
    file.write_text("file,x\na.jpg,1\n")
    with pytest.raises(DelfError, match="each row needs"):
        read(file)


def test_unknown_layout(tmp_path: Path) -> None:
    with pytest.raises(DelfError, match="no known layout"):
        read(tmp_path)
