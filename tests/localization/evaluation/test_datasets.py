"""Readers of benchmark layouts, on small folders made by hand."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from delf_jax.errors import DelfError, ImageError
from localization.evaluation.annotated_photo import AnnotatedPhoto
from localization.evaluation.datasets import read
from localization.evaluation.layouts import tfds
from tests.localization.prepared_birds import prepare


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
    path = tmp_path / "images" / "001.A" / "a b.jpg"
    assert read(tmp_path) == [AnnotatedPhoto(path, [(10, 20, 40, 60)], "7", False)]
    (tmp_path / "segmentations" / "001.A").mkdir(parents=True)
    Image.fromarray(np.full((100, 200), 153, np.uint8)).save(tmp_path / "segmentations" / "001.A" / "a b.png")
    (only,) = read(tmp_path)
    assert only.mask is not None
    assert only.mask().all()
    assert only.load().original_size == (100, 200)


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
    assert only.mask is None
    (tmp_path / "SegmentationObject").mkdir()
    Image.fromarray(np.array([[0, 3], [255, 1]], np.uint8)).save(tmp_path / "SegmentationObject" / "a.png")
    (only,) = read(tmp_path)
    assert only.mask is not None
    np.testing.assert_array_equal(only.mask(), [[0, 1], [255, 1]])


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
    assert a == AnnotatedPhoto(tmp_path / "val2017" / "a.jpg", [(1, 2, 4, 6)], None, False)
    assert b.boxes == []
    content["annotations"][0]["segmentation"] = [[1, 2, 4, 2, 4, 6, 1, 6]]
    content["annotations"][1]["segmentation"] = {"size": [8, 8], "counts": [0, 64]}
    content["images"] = [{"id": 5, "file_name": "a.jpg", "height": 8, "width": 8}]
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    (only,) = read(tmp_path)
    assert only.mask is not None
    mask = only.mask()
    assert (mask[2:6, 1:4] == 1).all()
    assert (mask == 255).sum() == 64 - (mask == 1).sum()


def test_yolo(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "train" / "a.jpg", (200, 100))
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("3 0.5 0.5 0.2 0.4\n")
    (only,) = read(tmp_path)
    np.testing.assert_allclose(only.boxes, [(80, 30, 120, 70)])
    assert only.mask is None
    outline = "3 0.4 0.3 0.6 0.3 0.6 0.7 0.4 0.7\n"
    folder = tmp_path / "instance_segmentation" / "labels" / "train"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text(outline)
    (tmp_path / "labels" / "train" / "a.txt").write_text(outline)  # polygons may be all there is
    (polygon,) = read(tmp_path)
    np.testing.assert_allclose(polygon.boxes, [(80, 30, 120, 70)])
    assert polygon.mask is not None
    mask = polygon.mask()
    assert mask[31:69, 81:119].all()
    assert int(mask.sum()) == 40 * 40


def test_real_outlines_fit_their_boxes(shared_data: Path) -> None:
    photos = [p for p in read(shared_data / "coco128") if p.boxes]
    assert len(photos) == 126
    for photo in photos[:20]:
        assert photo.mask is not None
        mask, boxed = photo.mask(), np.zeros(photo.load().original_size, bool)
        for x0, y0, x1, y1 in photo.boxes:
            boxed[max(round(y0) - 1, 0) : round(y1) + 2, max(round(x0) - 1, 0) : round(x1) + 2] = True
        assert mask.shape == boxed.shape
        assert mask.any()
        assert mask[~boxed].mean() < 0.001


def test_csv(tmp_path: Path) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text("file,xmin,ymin,xmax,ymax\nx/a.jpg,1,2,3,4\nx/a.jpg,5,6,7,8.5\n")
    (only,) = read(file)
    assert only == AnnotatedPhoto(tmp_path / "x" / "a.jpg", [(1, 2, 3, 4), (5, 6, 7, 8.5)])
    file.write_text("\ufefffile,xmin,ymin,xmax,ymax,label\na.jpg,1,2,3,4,\n", encoding="utf-8")  # as spreadsheets do
    assert read(file) == [AnnotatedPhoto(tmp_path / "a.jpg", [(1, 2, 3, 4)])]
    for text, lacking in (("file,x\na.jpg,1\n", "xmin"), ("xmin,ymin,xmax,ymax\n1,2,3,4\n", "file")):
        file.write_text(text)
        with pytest.raises(DelfError, match=f"no column {lacking}"):
            read(file)


@pytest.mark.parametrize(
    ("name", "text", "layout", "said"),
    [
        ("annotations/instances_val.json", '{"images": [', "coco", "its coco annotations are damaged"),
        ("annotations/instances_val.json", "[]", "coco", "its coco annotations are damaged"),
        ("bounding_boxes.txt", "1\n", "cub", r"bounding_boxes\.txt: line 1 is not the number of a photo"),
        ("Annotations/a.xml", "<object>", "voc", r"a\.xml: its XML is damaged"),
    ],
)
def test_damaged_annotations_are_one_error(name: str, text: str, layout: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "JPEGImages" if layout == "voc" else tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    if layout == "voc":
        (tmp_path / "JPEGImages").mkdir()
        (tmp_path / "Annotations").mkdir()
    for other in ("images", "train_test_split", "image_class_labels"):
        (tmp_path / f"{other}.txt").write_text("1 a\n")
    (tmp_path / name).write_text(text)
    with pytest.raises(DelfError, match=said):
        read(tmp_path, layout=layout)


def test_yolo_photos_are_upright_and_broken_ones_fail_later(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 1 1\n")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "a.jpg", exif=exif)
    (tmp_path / "images" / "b.jpg").write_bytes(b"no photo")
    turned, broken = read(tmp_path)
    assert turned.boxes == [(0, 0, 20, 30)]
    assert turned.load().original_size == (30, 20)
    with pytest.raises(ImageError, match=r"b\.jpg"):
        broken.load()


def test_unknown_layout(tmp_path: Path) -> None:
    with pytest.raises(DelfError, match="no known layout"):
        read(tmp_path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("tfds"))


def test_tfds_records(prepared: Path) -> None:
    photos = read(prepared)
    assert [(p.path.parts[0], p.train) for p in photos] == [("train", True), ("train", True), ("test", False)]
    first = next(p for p in photos if p.path == Path("train/bird_0.jpg"))
    np.testing.assert_allclose(first.boxes, [(4, 5, 20, 10)], atol=1e-5)
    assert first.label == "3"
    assert first.load().pixels.shape == (30, 40, 3)
    assert first.mask is not None
    mask = first.mask()
    assert mask[5:10, 4:20].all()
    assert mask.sum() == 5 * 16
    broken = next(p for p in photos if p.path == Path("train/bird_1.jpg"))
    with pytest.raises(ImageError, match=r"^train/bird_1.jpg: the file is damaged"):
        broken.load()


def test_tfds_without_boxes(tmp_path: Path, prepared: Path) -> None:
    features = json.loads((prepared / "features.json").read_text())
    del features["featuresDict"]["features"]["bbox"]
    (tmp_path / "features.json").write_text(json.dumps(features))
    (tmp_path / "dataset_info.json").write_text((prepared / "dataset_info.json").read_text())
    with pytest.raises(DelfError, match="image and bbox are needed"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("files", "names"),
    [(("1.jpg", "2.jpg"), ("1.jpg", "2.jpg")), (("1.jpg", "1.jpg"), ("0", "1")), (("1", ""), ("0", "1"))],
)
def test_tfds_records_have_different_names(
    files: tuple[str, str], names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = SimpleNamespace(features={"image": None, "bbox": None}, splits=["train"])
    monkeypatch.setattr(tfds, "open_builder", lambda root: SimpleNamespace(info=info))
    records = [{"image": b"", "bbox": (0, 0, 1, 1), "image/filename": file.encode()} for file in files]
    monkeypatch.setattr(tfds, "open_split", lambda builder, split: records)
    assert [photo.path for photo in tfds.read_tfds(Path("set"))] == [Path("train", name) for name in names]
