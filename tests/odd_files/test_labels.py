"""COCO, VOC, ImageNet, CUB, TFDS and CSV as other programs write them: the right value by hand, or a refusal."""

import json
import logging
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as pycoco

from delf_jax.errors import DelfError, FileFormatError
from localization.evaluation.datasets import read
from localization.evaluation.layouts import tfds

SIZE = {"height": 6, "width": 8}
SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]
DRAWN = np.zeros((6, 8), np.uint8)
DRAWN[1:4, 1:4] = 1
RUNS = pycoco.encode(np.asfortranarray(DRAWN))
TEXT_RUNS = {"size": RUNS["size"], "counts": RUNS["counts"].decode()}
BOX = (1, 1, 4, 4)


def coco(root: Path, *objects: dict[str, Any], bom: str = "") -> Path:
    annotations = [{"id": n, "image_id": 1, "bbox": [1, 1, 3, 3], **one} for n, one in enumerate(objects)]
    content = {"images": [{"id": 1, "file_name": "a.png", **SIZE}], "annotations": annotations}
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "instances_val.json").write_text(bom + json.dumps(content), encoding="utf-8")
    return root


COCO: dict[str, tuple[list[dict[str, Any]], list[tuple[float, ...]], int | None]] = {
    # name: (objects, boxes, pixels of the mask)
    "polygons": ([{"segmentation": SQUARE}], [BOX], 9),
    "compressed run lengths": ([{"segmentation": TEXT_RUNS}], [BOX], 9),
    "no outline": ([{}], [BOX], None),
    "an empty list": ([{"segmentation": []}], [BOX], None),
    "null": ([{"segmentation": None}], [BOX], None),
    "an empty polygon": ([{"segmentation": [[]]}], [BOX], None),
    "a polygon of two corners": ([{"segmentation": [[1, 1, 4, 4]]}], [BOX], None),
    "one object without an outline": ([{"segmentation": SQUARE}, {"segmentation": []}], [BOX, BOX], None),
    "a crowd": ([{"segmentation": SQUARE}, {"segmentation": TEXT_RUNS, "iscrowd": 1}], [BOX], 9),
    "a crowd without an outline": ([{"segmentation": SQUARE}, {"segmentation": [], "iscrowd": 1}], [BOX], None),
    "a negative width": ([{"bbox": [4, 1, -3, 3]}], [BOX], None),
    "no width": ([{"bbox": [4, 1, 0, 3]}, {}], [BOX], None),
    "no box": ([{"bbox": []}, {"bbox": None}, {}], [BOX], None),
}


@pytest.mark.parametrize("name", COCO)
def test_coco(name: str, tmp_path: Path) -> None:
    objects, boxes, pixels = COCO[name]
    (photo,) = read(coco(tmp_path, *objects, bom="\ufeff"))
    assert photo.boxes == boxes
    assert (None if photo.mask is None else int((photo.mask() == 1).sum())) == pixels


@pytest.mark.parametrize("box", [[1, 1, float("nan"), 3], [1, 1, 3], "1234", [1, 1, "x", 3], 7])
def test_coco_boxes_that_are_no_numbers(box: Any, tmp_path: Path) -> None:
    with pytest.raises(DelfError, match=r"instances_val\.json: annotation 0 of photo 1: its box is not four numbers"):
        read(coco(tmp_path, {"bbox": box}))


def test_coco_boxes_as_shares(tmp_path: Path) -> None:
    with pytest.raises(DelfError, match="shares of the photos, from 0 to 1"):
        read(coco(tmp_path, {"bbox": [0.1, 0.1, 0.5, 0.5]}))


def test_coco_numbers_of_photos(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        (photo,) = read(coco(tmp_path, {}, {"image_id": "1"}))
    assert photo.boxes == [BOX]
    assert "annotations of photos that it does not list: 1" in caplog.text
    file = tmp_path / "annotations" / "instances_val.json"
    content = json.loads(file.read_bytes())
    content["images"] *= 2
    file.write_text(json.dumps(content))
    with pytest.raises(DelfError, match="two photos have the id 1"):
        read(tmp_path)


def corners(x0: object, y0: object, x1: object, y1: object) -> str:
    return f"<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"


VOC: dict[str, tuple[str, list[tuple[float, ...]]]] = {
    # name: (objects, boxes). VOC counts pixels from 1, both ends included.
    "a box": (f"<object>{corners(2, 2, 4, 4)}</object>", [BOX]),
    "one pixel": (f"<object>{corners(2, 2, 2, 2)}</object>", [(1, 1, 2, 2)]),
    "swapped corners": (f"<object>{corners(4, 4, 2, 2)}</object>", [BOX]),
    "fractions and spaces": (f"<object>{corners(' 2.0 ', 2, 4, 4)}</object>", [BOX]),
    "no box": (f"<object><name>a</name></object><object>{corners(2, 2, 4, 4)}</object>", [BOX]),
    "only an oriented box": ("<object><robndbox><cx>3</cx></robndbox></object>", []),
    "difficult": (f"<object><difficult>1</difficult>{corners(2, 2, 4, 4)}</object>", []),
    "difficult with spaces": (f"<object><difficult>\n1\n</difficult>{corners(2, 2, 4, 4)}</object>", []),
    "not difficult": (f"<object><difficult>0</difficult>{corners(2, 2, 4, 4)}</object>", [BOX]),
    "truncated": (f"<object><truncated>1</truncated>{corners(2, 2, 4, 4)}</object>", [BOX]),
    "parts": (f"<object>{corners(2, 2, 4, 4)}<part><name>head</name>{corners(3, 3, 3, 3)}</part></object>", [BOX]),
}


def voc(root: Path, objects: str, photo: str = "a.jpg") -> Path:
    for name in ("JPEGImages", "Annotations"):
        (root / name).mkdir(exist_ok=True)
    Image.new("L", (8, 6)).save(root / "JPEGImages" / photo)
    size = "<size><width>8</width><height>6</height></size>"
    (root / "Annotations" / "a.xml").write_text(f"<annotation><filename>a.jpg</filename>{size}{objects}</annotation>")
    return root


@pytest.mark.parametrize("name", VOC)
def test_voc(name: str, tmp_path: Path) -> None:
    objects, boxes = VOC[name]
    (photo,) = read(voc(tmp_path, objects))
    assert photo.boxes == boxes
    photo.load()


def test_what_voc_leaves_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    voc(tmp_path, "<object><name>dog</name></object>", photo="a.png")  # its XML says a.jpg
    Image.new("L", (8, 6)).save(tmp_path / "JPEGImages" / "b.webp")
    with caplog.at_level(logging.WARNING):
        (photo,) = read(tmp_path)
    photo.load()
    assert photo.path.name == "a.png"
    assert [record.getMessage().removeprefix(f"{tmp_path}: ") for record in caplog.records] == [
        "photos without an XML file, left out: 1, such as 'b.webp'",
        "objects without a box, left out: 1, such as 'dog in a.xml'",
    ]


@pytest.mark.parametrize("edge", ["", "nan", "left", "1e999"])
@pytest.mark.parametrize("layout", ["voc", "imagenet"])
def test_xml_boxes_that_are_no_numbers(layout: str, edge: str, tmp_path: Path) -> None:
    folder = tmp_path / "Annotations" / ("CLS-LOC/val" if layout == "imagenet" else "")
    folder.mkdir(parents=True)
    if layout == "voc":
        (tmp_path / "JPEGImages").mkdir()
    (folder / "a.xml").write_text(f"<annotation><object>{corners(edge, 2, 4, 4)}</object></annotation>")
    with pytest.raises(DelfError, match=r"a\.xml: its box is not four numbers"):
        read(tmp_path)


def test_cub_lists(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 6)).save(tmp_path / "images" / "a.jpg")
    lists = {
        "images": "\ufeff1\ta.jpg\r\n2 b.jpg\r\n",
        "bounding_boxes": "1 1.0 1.0 3.0 3.0\n2 1 1 2 2\n",
        "train_test_split": "1 1\n2 0\n",
        "image_class_labels": "1 7\n2 7\n",
    }
    for name, text in lists.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8", newline="")
    with caplog.at_level(logging.WARNING):
        (photo,) = read(tmp_path)
    assert (photo.boxes, photo.label, photo.train) == ([BOX], "7", True)
    assert "images.txt: listed photos that are not there: 1, such as 'b.jpg'" in caplog.text
    (tmp_path / "bounding_boxes.txt").write_text("1 1 1 3 nan\n")
    with pytest.raises(DelfError, match=r"bounding_boxes\.txt: photo 1: its box is not four numbers"):
        read(tmp_path)
    (tmp_path / "images.txt").write_text(f"1 {'x' * 300}.jpg\n")  # longer than a file system allows
    assert read(tmp_path) == []
    (tmp_path / "images.txt").write_text("1 a.jpg\n1 b.jpg\n")
    with pytest.raises(DelfError, match=r"images\.txt: line 2 is not the number of a photo and a value, or repeats"):
        read(tmp_path)


HEAD = "file,xmin,ymin,xmax,ymax"
CSV: dict[str, bytes] = {
    "plain": f"{HEAD}\na.png,1,1,4,4\n".encode(),
    "spaces after commas": b"file, xmin, ymin, xmax, ymax\na.png, 1, 1, 4, 4\n",
    "a byte-order mark": f"\ufeff{HEAD}\r\na.png,1,1,4,4\r\n".encode(),
    "UTF-16 of Windows": f"{HEAD}\r\na.png,1,1,4,4\r\n".encode("utf-16"),
    "swapped corners": f"{HEAD}\na.png,4,4,1,1\n".encode(),
    "one corner swapped": f"{HEAD}\na.png,1,4,4,1\n".encode(),
    "blank lines": f"{HEAD}\n\na.png,1,1,4,4\n,,,,\n".encode(),
    "quotes": f'{HEAD}\n"a.png", "1", "1", "4", "4"\n'.encode(),
    "other columns in another order": b"label,xmin,xmax,ymin,ymax,file\n,1,4,1,4,a.png\n",
    "a point": f"{HEAD}\na.png,1,1,1,1\na.png,1,1,4,4\n".encode(),
}


@pytest.mark.parametrize("name", CSV)
def test_csv(name: str, tmp_path: Path) -> None:
    (tmp_path / "boxes.CSV").write_bytes(CSV[name])
    (photo,) = read(tmp_path / "boxes.CSV")
    assert (photo.path, photo.boxes, photo.label) == (tmp_path / "a.png", [BOX], None)


CSV_REFUSED: dict[str, tuple[bytes, str]] = {
    "a decimal comma": (f"{HEAD}\na.png,1,1,4,4\na.png,1,5,1,4,4\n".encode(), "line 3, column 6: there are only 5"),
    "text": (f"{HEAD}\na.png,1,1,x4,4\n".encode(), "line 2, column xmax: 'x4' is not a number"),
    "nothing": (f"{HEAD}\na.png,1,1,,4\n".encode(), "line 2, column xmax: '' is not a number"),
    "a short row": (f"{HEAD}\na.png,1,1\n".encode(), "line 2, column xmax: '' is not a number"),
    "NaN": (f"{HEAD}\na.png,nan,1,4,4\n".encode(), "line 2, column xmin: 'nan' is not a number"),
    "no name": (f"{HEAD}\n,1,1,4,4\n".encode(), "line 2, column file: is empty"),
    "semicolons": (HEAD.replace(",", ";").encode(), "no column file; the first line must name the columns file,xmin"),
    "OpenImages": (b"ImageID,Source,XMin,XMax,YMin,YMax\na,x,0.1,0.2,0.1,0.2\n", "no column file"),
    "two columns of one name": (f"{HEAD},xmin\na.png,1,1,4,4,1\n".encode(), "line 1 has two columns xmin"),
    "two labels": (f"{HEAD},label\na.png,1,1,4,4,x\na.png,1,1,4,4,y\n".encode(), "line 3, column label: a.png has"),
    "shares": (f"{HEAD}\na.png,.1,.1,.4,.4\n".encode(), "its boxes are shares of the photos"),
    "Latin 1": (f"{HEAD}\na.png,1,1,4,4\ncaf\xe9.png,1,1,4,4\n".encode("latin1"), "line 3, column 4: is not text"),
    "half of UTF-16": (HEAD.encode("utf-16")[:-1], "line 1, column 24: is not text in UTF-8"),
    "an open quote": (f'{HEAD}\n"a.png,1,1,4,4\n'.encode(), "line 2: unexpected end of data"),
}  # fmt: skip


@pytest.mark.parametrize("name", CSV_REFUSED)
def test_csv_that_is_told_with_its_place(name: str, tmp_path: Path) -> None:
    data, said = CSV_REFUSED[name]
    file = tmp_path / "boxes.csv"
    file.write_bytes(data)
    with pytest.raises((DelfError, FileFormatError)) as raised:
        read(file)
    assert str(raised.value).startswith(f"{file}: {said}")


@pytest.mark.parametrize("orientation", [1, 6])
def test_tfds_boxes_are_of_stored_pixels(orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, picture in (("photo", Image.new("L", (8, 6))), ("mask", Image.fromarray(DRAWN * 255))):
        picture.save(tmp_path / f"{name}.png", exif=exif if name == "photo" else None)
    record = {
        "image": (tmp_path / "photo.png").read_bytes(),
        "bbox": np.array([1 / 6, 1 / 8, 4 / 6, 4 / 8], np.float32),
        "segmentation_mask": (tmp_path / "mask.png").read_bytes(),
    }
    info = types.SimpleNamespace(features=dict.fromkeys(record), splits=["train"])
    monkeypatch.setattr(tfds, "open_builder", lambda root: types.SimpleNamespace(info=info))
    monkeypatch.setattr(tfds, "open_split", lambda builder, split: [record])
    (photo,) = tfds.read_tfds(tmp_path)
    # Orientation 6: stored columns become rows, and stored rows, of which there are six, count from the right.
    np.testing.assert_allclose(photo.boxes, [BOX if orientation == 1 else (2, 1, 5, 4)], atol=1e-5)
    assert photo.mask is not None
    np.testing.assert_array_equal(photo.mask(), DRAWN if orientation == 1 else np.rot90(DRAWN, -1))
    assert photo.load().original_size == photo.mask().shape
