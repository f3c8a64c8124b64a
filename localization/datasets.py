"""Photos with true boxes, read from the layouts that benchmarks come in. Boxes are pixel edges of the original."""

import csv
import json
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

from delf_jax.errors import DelfError

Edges = tuple[float, float, float, float]


class Annotated(NamedTuple):
    """A photo and what is true of it.

    Attributes:
        path: the photo's file.
        boxes: [x0, y0, x1, y1] of each object.
        label: class of the photo, or None.
        train: whether it belongs to the training split; None where the layout has none.
    """

    path: Path
    boxes: list[Edges]
    label: str | None = None
    train: bool | None = None


def read_cub(root: Path) -> list[Annotated]:
    """CUB-200-2011 in its original folder layout; listed photos that are not there are left out."""
    names, boxes, train, classes = (
        dict(_pairs(root / f"{name}.txt"))
        for name in ("images", "bounding_boxes", "train_test_split", "image_class_labels")
    )
    found = []
    for key, name in names.items():
        path = root / "images" / name
        if path.is_file():
            x, y, w, h = (float(n) for n in boxes[key].split())
            found.append(Annotated(path, [(x, y, x + w, y + h)], classes[key], train[key] == "1"))
    return found


def read_yolo(root: Path) -> list[Annotated]:
    """YOLO folders (coco128): ``images/SPLIT/NAME`` beside ``labels/SPLIT/NAME.txt``, class and box in shares."""
    labels = next((p for p in (root / "labels", root / "object_detection" / "labels") if p.is_dir()), None)
    if labels is None:
        raise DelfError(f"{root}: no labels folder; this is not a YOLO layout")
    found = []
    for path in sorted((root / "images").rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            with Image.open(path) as image:
                width, height = image.size
            file = labels / path.relative_to(root / "images").with_suffix(".txt")
            boxes = []
            for line in file.read_text().splitlines() if file.is_file() else ():
                _, x, y, w, h = (float(n) for n in line.split()[:5])
                boxes.append(((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height))
            found.append(Annotated(path, boxes))
    return found


def read_coco(root: Path) -> list[Annotated]:
    """COCO: ``annotations/instances_SPLIT.json`` beside ``SPLIT/NAME``; crowds are left out."""
    found = []
    for file in sorted((root / "annotations").glob("instances_*.json")):
        content = json.loads(file.read_bytes())
        boxes = defaultdict(list)
        for annotation in content["annotations"]:
            if not annotation.get("iscrowd"):
                x, y, w, h = annotation["bbox"]
                boxes[annotation["image_id"]].append((x, y, x + w, y + h))
        folder = root / file.stem.removeprefix("instances_")
        for image in content["images"]:
            found.append(Annotated(folder / image["file_name"], boxes[image["id"]], train="train" in file.stem))
    return found


def read_voc(root: Path) -> list[Annotated]:
    """Pascal VOC (``Annotations``, ``JPEGImages``, ``ImageSets/Main``), objects marked difficult left out.

    VOC's boxes are pixel indices from 1, both ends included; here they become edges.
    """
    train = {line.split()[0] for f in sorted((root / "ImageSets" / "Main").glob("train.txt")) for line in _lines(f)}
    found = []
    for file in sorted((root / "Annotations").glob("*.xml")):
        tree = ElementTree.parse(file).getroot()
        objects = [o for o in tree.iter("object") if o.findtext("difficult", "0") != "1"]
        path = root / "JPEGImages" / tree.findtext("filename", f"{file.stem}.jpg")
        found.append(Annotated(path, [_xml_box(o) for o in objects], train=file.stem in train))
    return found


def read_imagenet(root: Path) -> list[Annotated]:
    """ImageNet CLS-LOC: ``Data/CLS-LOC/SPLIT/...`` beside ``Annotations/CLS-LOC/SPLIT/...xml``."""
    data, found = root / "Data" / "CLS-LOC", []
    for file in sorted((root / "Annotations" / "CLS-LOC").rglob("*.xml")):
        relative = file.relative_to(root / "Annotations" / "CLS-LOC")
        objects = list(ElementTree.parse(file).getroot().iter("object"))
        label = objects[0].findtext("name") if objects else None
        path = (data / relative).with_suffix(".JPEG")
        found.append(Annotated(path, [_xml_box(o) for o in objects], label, relative.parts[0] == "train"))
    return found


def read_box_csv(file: Path) -> list[Annotated]:
    """A CSV file with columns file, xmin, ymin, xmax, ymax (edges) and maybe label; files relative to its folder."""
    boxes: dict[str, list[Edges]] = defaultdict(list)
    labels: dict[str, str | None] = {}
    with open(file, newline="") as stream:
        for row in csv.DictReader(stream):
            try:
                edges = float(row["xmin"]), float(row["ymin"]), float(row["xmax"]), float(row["ymax"])
            except (KeyError, TypeError, ValueError) as error:
                raise DelfError(f"{file}: each row needs file,xmin,ymin,xmax,ymax as numbers ({error})") from error
            boxes[row["file"]].append(edges)
            labels[row["file"]] = row.get("label")
    return [Annotated(file.parent / name, found, labels[name]) for name, found in boxes.items()]


Layout = Literal["cub", "voc", "coco", "imagenet", "yolo", "csv"]


def read(path: str | Path, *, layout: Layout | None = None) -> list[Annotated]:
    """Annotated photos of a folder or CSV file, in this layout, or in whichever it is.

    Raises:
        DelfError: not in that layout, or in none of them.
    """
    root = Path(path)
    layouts: dict[str, tuple[Callable[[Path], list[Annotated]], bool]] = {
        "csv": (read_box_csv, root.suffix == ".csv" and root.is_file()),
        "cub": (read_cub, (root / "bounding_boxes.txt").is_file()),
        "voc": (read_voc, (root / "JPEGImages").is_dir()),
        "coco": (read_coco, (root / "annotations").is_dir()),
        "imagenet": (read_imagenet, (root / "Annotations" / "CLS-LOC").is_dir()),
        "yolo": (read_yolo, (root / "images").is_dir()),
    }
    if not root.exists():
        raise DelfError(f"{path}: there is no such folder or file; check the path")
    for name, (reader, matches) in layouts.items():
        if matches and layout in (None, name):
            return reader(root)
    if layout is not None:
        raise DelfError(f"{path}: not in the layout {layout}; name the folder that holds its annotations")
    raise DelfError(f"{path}: no known layout; give CUB, VOC, COCO, ImageNet or YOLO folders, or a CSV of boxes")


def _xml_box(element: ElementTree.Element) -> Edges:
    x0, y0, x1, y1 = (float(element.findtext(f"bndbox/{name}", "nan")) for name in ("xmin", "ymin", "xmax", "ymax"))
    return x0 - 1, y0 - 1, x1, y1


def _pairs(path: Path) -> list[tuple[str, str]]:
    return [(key, rest) for key, rest in (line.split(maxsplit=1) for line in _lines(path))]


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]
