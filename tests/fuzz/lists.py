"""Readers of lists and of ground truth: CSV, JSON, XML, text, pickles of arrays."""

import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

from delf_cli import labels
from delf_jax.interchange.pairs import read_pairs
from delf_jax.training import landmark_lists
from delf_jax.training.settings import open_preset, preset_names
from localization.evaluation import datasets as annotated
from localization.evaluation.annotated_photo import AnnotatedPhoto
from retrieval.evaluation import datasets as benchmarks
from tests.fuzz.mutate import plain_json
from tests.fuzz.reader import Reader, of_file


def _read_labels(data: bytes, folder: Path) -> object:
    (folder / "labels.csv").write_bytes(data)
    return labels.of_photos(str(folder / "labels.csv"), [str(folder / "a.jpg")], [], None)  # type: ignore[arg-type]


def _landmark_seeds(folder: Path) -> list[bytes]:
    return [
        b'id,url,landmark_id\nabc,http://x/y.jpg,7\nabd,"a,b",8\n',
        b"landmark_id,images\n7,abc abd\n8,abe\n",
        b"id,landmark_id,latitude,longitude\nabc,7,47.1,8.5\nabd,8,-90,180\n",
    ]


def _read_landmarks(data: bytes, folder: Path) -> object:
    (folder / "abc.jpg").touch()
    (folder / "list.csv").write_bytes(data)
    rule = "radius:25" if b"latitude" in data else "landmark"
    return landmark_lists.from_csv(folder / "list.csv", folder, positives=rule)


def _preset_seeds(folder: Path) -> list[bytes]:
    return [open_preset(name).to_toml().encode() for name in preset_names()]


def _photo(folder: Path, name: str, *, orientation: int = 1) -> None:
    path = folder / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("L", (8, 6)).save(path, exif=exif)


def _used(photos: list[AnnotatedPhoto]) -> object:
    """What an evaluation asks of photos. A list may name any file, so only our own are loaded."""
    return [(photo.load() if photo.path.suffix == ".png" else None, photo.mask and photo.mask()) for photo in photos]


def _coco_seeds(folder: Path) -> list[bytes]:
    polygon = {"image_id": 7, "bbox": [1, 1, 3, 3], "segmentation": [[1, 1, 4, 1, 4, 4]]}
    runs = {"image_id": 7, "bbox": [0, 0, 8, 6], "iscrowd": 1, "segmentation": {"size": [6, 8], "counts": [40, 8]}}
    text = {"image_id": 7, "bbox": [0, 0, 8, 6], "segmentation": {"size": [6, 8], "counts": "X18"}}
    photo = {"id": 7, "file_name": "a.png", "height": 6, "width": 8}
    unknown = {"image_id": 7, "bbox": [4, 4, -3, -3], "segmentation": []}
    seeds = [{"images": [photo], "annotations": [one]} for one in (polygon, runs, text, unknown)]
    stored = {"images": [photo | {"file_name": "turned.png"}], "annotations": [polygon]}
    return [json.dumps(seed).encode() for seed in (*seeds, stored)]


def _read_coco(data: bytes, folder: Path) -> object:
    _photo(folder, "train/a.png")
    _photo(folder, "train/turned.png", orientation=6)
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / "instances_train.json").write_bytes(data)
    return _used(annotated.read(folder, layout="coco"))


def _read_cub(data: bytes, folder: Path) -> object:
    _photo(folder, "images/a.png")
    for name in ("images", "train_test_split", "image_class_labels"):
        (folder / f"{name}.txt").write_text("1 a.png\n")
    (folder / "bounding_boxes.txt").write_bytes(data)
    return _used(annotated.read(folder, layout="cub"))


_VOC = b"""<annotation><filename>a.png</filename><size><width>6</width><height>8</height></size>
<object><name>cat</name></object><object><name>dog</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox></object></annotation>"""


def _read_voc(data: bytes, folder: Path) -> object:
    _photo(folder, "JPEGImages/a.png", orientation=6)
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "Annotations" / "a.xml").write_bytes(data)
    return _used(annotated.read(folder, layout="voc"))


_YOLO = (
    b"0 .5 .5 .2 .2",
    b"0 .5 .5 .2 .2 .9",
    b"1 .1 .1 .5 .1 .5 .5",
    b"1 .1 .1 .5 .1 .5 .5 .1 .5",
    b"2 .5 .5 .2 .2 .4 .4 2 .6 .6 1",
)


def _read_yolo(data: bytes, folder: Path) -> object:
    _photo(folder, "images/train/a.png")
    (folder / "labels" / "train").mkdir(parents=True, exist_ok=True)
    (folder / "labels" / "train" / "a.txt").write_bytes(data)
    return _used(annotated.read(folder, layout="yolo"))


def _revisited_seeds(folder: Path) -> list[bytes]:
    row = {"bbx": [1.0, 2.0, 3.0, 4.0], "easy": np.array([0]), "hard": [1], "junk": []}
    truth = {"imlist": ["a", "b"], "qimlist": ["q"], "gnd": [row]}
    objects = truth | {"imlist": np.array(["a", b"b"], object)}
    return [*(pickle.dumps(truth, protocol) for protocol in (0, 2, 4, 5)), pickle.dumps(objects, 2)]


def _read_revisited(data: bytes, folder: Path) -> object:
    for name in "abq":
        (folder / f"{name}.jpg").touch()
    (folder / "gnd_rparis6k.pkl").write_bytes(data)
    return benchmarks.read("rparis6k", folder)


def _read_gldv2(data: bytes, folder: Path) -> object:
    _photo(folder, "index/a/a/a/aaaaaaaaaaaaaaaa.jpg")
    (folder / "retrieval_solution_v2.1.csv").write_bytes(data)
    return benchmarks.read("gldv2", folder)


def _read_buildings(data: bytes, folder: Path) -> object:
    (folder / "a.jpg").touch()
    for grade in ("good", "ok", "junk"):
        (folder / f"x_1_{grade}.txt").write_bytes(b"a\n")
    (folder / "x_1_query.txt").write_bytes(data)
    return benchmarks.read("oxford5k", folder)


LIST_READERS: dict[str, Reader] = {
    "labels": Reader(lambda folder: [b'file,label\na.jpg,x\n"b\n.jpg",y\n'], _read_labels),
    "landmarks": Reader(_landmark_seeds, _read_landmarks),
    "pairs": Reader(
        lambda folder: [b"a.jpg b.jpg\n# c\nb.jpg c.jpg\n", "a.jpg b.jpg\r\n".encode("utf-16")],
        of_file(".txt", lambda path: read_pairs(str(path), names=["a.jpg", "b.jpg", "c.jpg"])),
    ),
    "preset": Reader(_preset_seeds, of_file(".toml", open_preset)),
    "box list": Reader(
        lambda folder: [
            b"file,xmin,ymin,xmax,ymax,label\na.jpg,1,2,3,4,dog\n",
            b'\xef\xbb\xbffile, xmin, ymin, xmax, ymax\r\n"a.jpg", 3, 4, 1, 2\r\n',
        ],
        of_file(".csv", annotated.read),
    ),
    "coco": Reader(_coco_seeds, _read_coco, plain_json),
    "cub": Reader(lambda folder: [b"1 1.0 2.0 3.0 3.0\n"], _read_cub),
    "voc": Reader(lambda folder: [_VOC], _read_voc),
    "yolo": Reader(lambda folder: [row + b"\n" for row in _YOLO], _read_yolo),
    "revisited": Reader(_revisited_seeds, _read_revisited),
    "buildings": Reader(lambda folder: [b"oxc1_a 1.5 2.5 30 40\n"], _read_buildings),
    "gldv2": Reader(lambda folder: [b"id,images,Usage\nbbbbbbbbbbbbbbbb,aaaaaaaaaaaaaaaa,Public\n"], _read_gldv2),
}
