"""Readers of data sets with true boxes and masks. Boxes are pixel edges [x0, y0, x1, y1] in the upright photo."""

import csv
import functools
import io
import json
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from delf_jax.errors import DelfError, ImageError, one_line
from delf_jax.photos.load import Photo, load_photo
from delf_jax.photos.tfds_sets import file_name, open_builder, open_split
from localization.evaluation import true_masks

Edges = tuple[float, float, float, float]
_DRAWING_ERRORS = (cv2.error, Image.DecompressionBombError)
Mask = UInt8[np.ndarray, "H W"]


class AnnotatedPhoto(NamedTuple):
    """A photo with its true boxes and mask.

    Attributes:
        path: the file of the photo; for photos in records, a name.
        boxes: [x0, y0, x1, y1] of each object.
        label: class of the photo, or None.
        train: whether the photo belongs to the training split; None if the layout has no splits.
        mask: reads the true mask of all objects (see ``true_masks``); None if there is no mask.
        data: reads the bytes of the photo from its record; None for a file.
    """

    path: Path
    boxes: list[Edges]
    label: str | None = None
    train: bool | None = None
    mask: Callable[[], Mask] | None = None
    data: Callable[[], bytes] | None = None

    def load(self) -> Photo:
        """The whole photo; raises ImageError, which names it."""
        if self.data is None:
            return load_photo(self.path, max_side=None)
        try:
            return load_photo(self.data(), max_side=None)
        except ImageError as error:
            raise ImageError(str(self.path), error.reason) from error


def read_cub(root: Path) -> list[AnnotatedPhoto]:
    """CUB-200-2011 in its original folders. Photos that are listed but missing are left out."""
    names, boxes, train, classes = (
        dict(_pairs(root / f"{name}.txt"))
        for name in ("images", "bounding_boxes", "train_test_split", "image_class_labels")
    )
    found = []
    for key, name in names.items():
        path = root / "images" / name
        if path.is_file():
            x, y, w, h = (float(n) for n in boxes[key].split())
            mask = _mask_file(root / "segmentations" / Path(name).with_suffix(".png"), true_masks.grey_mask)
            found.append(AnnotatedPhoto(path, [(x, y, x + w, y + h)], classes[key], train[key] == "1", mask))
    return found


def read_yolo(root: Path) -> list[AnnotatedPhoto]:
    """YOLO folders (coco128): ``images/SPLIT/NAME`` beside ``labels/SPLIT/NAME.txt``.

    Each line has a class and a box (centre x, centre y, width, height, as shares of the photo), or a class and a
    polygon of more than four numbers. Polygons can also be in ``instance_segmentation/labels``.
    """
    labels = next((p for p in (root / "labels", root / "object_detection" / "labels") if p.is_dir()), None)
    if labels is None:
        raise DelfError(f"{root}: no labels folder; this is not a YOLO layout")
    outlines = next((p for p in (root / "instance_segmentation" / "labels", labels) if p.is_dir()), labels)
    found = []
    for path in sorted((root / "images").rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            width, height = _upright_size(path)
            name = path.relative_to(root / "images").with_suffix(".txt")
            boxes = [_yolo_box(shape, width, height) for shape in _yolo_shapes(labels / name)]
            polygons = [shape for shape in _yolo_shapes(outlines / name) if len(shape) > 4]
            mask = functools.partial(_drawn, outlines / name, _yolo_mask, polygons, width, height) if polygons else None
            found.append(AnnotatedPhoto(path, boxes, mask=mask))
    return found


def _upright_size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright photo; (1, 1) if it cannot be read, which raises an error when it is loaded."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else image.size
    except OSError:
        return 1, 1


def _yolo_shapes(file: Path) -> list[list[float]]:
    return [[float(n) for n in line.split()[1:]] for line in _lines(file)] if file.is_file() else []


def _yolo_box(shape: list[float], width: int, height: int) -> Edges:
    if len(shape) > 4:
        x, y = shape[::2], shape[1::2]
        return min(x) * width, min(y) * height, max(x) * width, max(y) * height
    cx, cy, w, h = shape
    return (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height


def _yolo_mask(polygons: list[list[float]], width: int, height: int) -> Mask:
    scale = np.array([width, height])
    edges = [(np.reshape(polygon, (-1, 2)) * scale).reshape(-1).tolist() for polygon in polygons]
    return true_masks.polygon_mask(edges, (height, width)).astype(np.uint8)


def read_coco(root: Path) -> list[AnnotatedPhoto]:
    """COCO: ``annotations/instances_SPLIT.json`` beside ``SPLIT/NAME``. Crowds have no box and are ignored in masks."""
    found = []
    for file in sorted((root / "annotations").glob("instances_*.json")):
        content = json.loads(file.read_bytes())
        objects: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            objects[annotation["image_id"]].append(annotation)
        folder = root / file.stem.removeprefix("instances_")
        for image in content["images"]:
            own = objects[image["id"]]
            boxes = [(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in own if not a.get("iscrowd"))]
            mask = None
            if all("segmentation" in annotation for annotation in own) and {"height", "width"} <= image.keys():
                mask = functools.partial(_drawn, file, true_masks.coco_mask, own, (image["height"], image["width"]))
            found.append(AnnotatedPhoto(folder / image["file_name"], boxes, train="train" in file.stem, mask=mask))
    return found


def read_voc(root: Path) -> list[AnnotatedPhoto]:
    """Pascal VOC (``Annotations``, ``JPEGImages``, ``ImageSets/Main``) without the objects that are marked difficult.

    Boxes of VOC are pixel indices from 1, both ends included; they are converted to edges. Masks are those of
    ``SegmentationObject`` or ``SegmentationClass``, for the photos that have one.
    """
    pictures = next((f for f in (root / "SegmentationObject", root / "SegmentationClass") if f.is_dir()), root)
    train = {line.split()[0] for f in sorted((root / "ImageSets" / "Main").glob("train.txt")) for line in _lines(f)}
    found = []
    for file in sorted((root / "Annotations").glob("*.xml")):
        tree = ElementTree.parse(file).getroot()
        objects = [o for o in tree.iter("object") if o.findtext("difficult", "0") != "1"]
        path = root / "JPEGImages" / tree.findtext("filename", f"{file.stem}.jpg")
        mask = _mask_file(pictures / f"{file.stem}.png", true_masks.voc_mask)
        found.append(AnnotatedPhoto(path, [_xml_box(o) for o in objects], train=file.stem in train, mask=mask))
    return found


def read_imagenet(root: Path) -> list[AnnotatedPhoto]:
    """ImageNet CLS-LOC: ``Data/CLS-LOC/SPLIT/...`` beside ``Annotations/CLS-LOC/SPLIT/...xml``."""
    data, found = root / "Data" / "CLS-LOC", []
    for file in sorted((root / "Annotations" / "CLS-LOC").rglob("*.xml")):
        relative = file.relative_to(root / "Annotations" / "CLS-LOC")
        objects = list(ElementTree.parse(file).getroot().iter("object"))
        label = objects[0].findtext("name") if objects else None
        path = (data / relative).with_suffix(".JPEG")
        found.append(AnnotatedPhoto(path, [_xml_box(o) for o in objects], label, relative.parts[0] == "train"))
    return found


def read_box_csv(file: Path) -> list[AnnotatedPhoto]:
    """A CSV file with columns file, xmin, ymin, xmax, ymax (edges) and maybe label; files relative to its folder."""
    boxes: dict[str, list[Edges]] = defaultdict(list)
    labels: dict[str, str | None] = {}
    with open(file, newline="", encoding="utf-8-sig") as stream:
        for row in csv.DictReader(stream):
            try:
                name = row["file"]
                edges = float(row["xmin"]), float(row["ymin"]), float(row["xmax"]), float(row["ymax"])
            except (KeyError, TypeError, ValueError) as error:
                raise DelfError(f"{file}: each row needs file,xmin,ymin,xmax,ymax as numbers ({error})") from error
            boxes[name].append(edges)
            labels[name] = row.get("label") or None
    return [AnnotatedPhoto(file.parent / name, found, labels[name]) for name, found in boxes.items()]


def read_tfds(root: Path) -> list[AnnotatedPhoto]:
    """A data set that TFDS prepared as ArrayRecord, such as ``caltech_birds2011``; give the folder of its version.

    Boxes are those of the feature ``bbox`` (normalised ymin, xmin, ymax, xmax). Photos are read from the records when
    they are needed. TensorFlow is not used.

    Raises:
        DelfError: prepared in another file format, or without the features ``image`` and ``bbox``.
    """
    builder = open_builder(root)
    features = builder.info.features
    if not {"image", "bbox"} <= set(features):
        raise DelfError(f"{root}: its features are {', '.join(sorted(features))}; image and bbox are needed")
    found = []
    for split in builder.info.splits:
        records = open_split(builder, split)
        for number, record in enumerate(records):
            with Image.open(io.BytesIO(record["image"])) as image:
                width, height = image.size
            y0, x0, y1, x1 = (float(n) for n in record["bbox"])
            found.append(
                AnnotatedPhoto(
                    Path(split, file_name(record) or str(number)),
                    [(x0 * width, y0 * height, x1 * width, y1 * height)],
                    features["label"].int2str(record["label"]) if "label" in features else None,
                    split == "train",
                    functools.partial(_record_mask, records, number) if "segmentation_mask" in features else None,
                    functools.partial(_record_photo, records, number),
                )
            )
    return found


def _record_photo(records: Any, number: int) -> bytes:
    photo: bytes = records[number]["image"]
    return photo


def _record_mask(records: Any, number: int) -> Mask:
    with Image.open(io.BytesIO(records[number]["segmentation_mask"])) as picture:
        return true_masks.grey_mask(picture)


Layout = Literal["cub", "voc", "coco", "imagenet", "yolo", "csv", "tfds"]


def read(path: str | Path, *, layout: Layout | None = None) -> list[AnnotatedPhoto]:
    """The annotated photos of a folder or CSV file.

    Args:
        layout: the layout of the data set; None recognises it by its files.

    Raises:
        DelfError: missing, not in that layout or in no known layout, or damaged annotations.
    """
    root = Path(path)
    layouts: dict[str, tuple[Callable[[Path], list[AnnotatedPhoto]], bool]] = {
        "csv": (read_box_csv, root.suffix == ".csv" and root.is_file()),
        "tfds": (read_tfds, (root / "dataset_info.json").is_file()),
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
            try:
                return reader(root)
            except (ValueError, LookupError, TypeError, ElementTree.ParseError, csv.Error) as error:
                raise DelfError(
                    f"{path}: its {name} annotations are damaged ({type(error).__name__}: {error}); fetch them again"
                ) from error
    if layout is not None:
        raise DelfError(f"{path}: not in the layout {layout}; give the folder that holds its annotations")
    raise DelfError(f"{path}: no known layout; give CUB, VOC, COCO, ImageNet, YOLO or TFDS folders, or a CSV")


def _mask_file(file: Path, read_mask: Callable[[Image.Image], Mask]) -> Callable[[], Mask] | None:
    if not file.is_file():
        return None

    def read_picture() -> Mask:
        with Image.open(file) as picture:
            return read_mask(picture)

    return functools.partial(_drawn, file, read_picture)


def _drawn(file: Path, draw: Callable[..., Mask], *arguments: Any) -> Mask:
    """The mask that ``draw`` makes; DelfError if its annotation in ``file`` is damaged."""
    try:
        return draw(*arguments)
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, SyntaxError, *_DRAWING_ERRORS) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise DelfError(f"{file}: the mask of a photo is damaged ({reason}); fetch the annotations again") from error


def _xml_box(element: ElementTree.Element) -> Edges:
    x0, y0, x1, y1 = (float(element.findtext(f"bndbox/{name}", "nan")) for name in ("xmin", "ymin", "xmax", "ymax"))
    return x0 - 1, y0 - 1, x1, y1


def _pairs(path: Path) -> list[tuple[str, str]]:
    return [(key, rest) for key, rest in (line.split(maxsplit=1) for line in _lines(path))]


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]
