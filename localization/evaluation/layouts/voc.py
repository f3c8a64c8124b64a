"""Pascal VOC and ImageNet: one XML file a photo."""

import os
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

from delf_jax.errors import DelfError
from delf_jax.files.text_files import read_lines
from delf_jax.photos.names import is_photo_name
from localization.evaluation import true_masks
from localization.evaluation.annotated_photo import AnnotatedPhoto, Edges
from localization.evaluation.frames import Size, bring_upright, picture_size
from localization.evaluation.layouts.boxes import between, four_numbers, tell
from localization.evaluation.layouts.masks import mask_file


def read_voc(root: Path) -> list[AnnotatedPhoto]:
    """Pascal VOC (``Annotations``, ``JPEGImages``, ``ImageSets/Main``) without the objects that are marked difficult.

    Truncated objects count like all others. Masks are those of ``SegmentationObject`` or ``SegmentationClass``, for the
    photos that have one. The log counts objects without a box, and photos without an XML file.
    """
    pictures = next((f for f in (root / "SegmentationObject", root / "SegmentationClass") if f.is_dir()), root)
    lists = (root / "ImageSets" / "Main").glob("train.txt")
    train = {line.split()[0] for file in lists for _, line in read_lines(file)}
    photos = sorted(path for path in (root / "JPEGImages").iterdir() if is_photo_name(path.name))
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in photos:
        by_stem[path.stem].append(path)
    found: list[AnnotatedPhoto] = []
    boxless: list[str] = []
    for file in sorted((root / "Annotations").glob("*.xml")):
        tree = _parsed(file)
        objects = [o for o in tree.iter("object") if o.findtext("difficult", "").strip().lower() not in ("1", "true")]
        boxes = _boxes(objects, file, boxless)
        path = root / "JPEGImages" / (tree.findtext("filename", "").strip() or f"{file.stem}.jpg")
        if not os.path.isfile(path) and len(by_stem[file.stem]) == 1:
            (path,) = by_stem[file.stem]
        picture = pictures / f"{file.stem}.png"
        mask = mask_file(picture, true_masks.voc_mask)
        size = _size(tree) or picture_size(picture)
        found.append(AnnotatedPhoto(path, boxes, train=file.stem in train, mask=mask, size=size))
    named = {photo.path for photo in found}
    without = [path.name for path in photos if path not in named]
    tell(root, len(without), "photos without an XML file, left out", *without[:1])
    tell(root, len(boxless), "objects without a box, left out", *boxless[:1])
    return bring_upright(found, root)


def read_imagenet(root: Path) -> list[AnnotatedPhoto]:
    """ImageNet CLS-LOC: ``Data/CLS-LOC/SPLIT/...`` beside ``Annotations/CLS-LOC/SPLIT/...xml``."""
    data, found = root / "Data" / "CLS-LOC", []
    boxless: list[str] = []
    for file in sorted((root / "Annotations" / "CLS-LOC").rglob("*.xml")):
        relative = file.relative_to(root / "Annotations" / "CLS-LOC")
        tree = _parsed(file)
        objects = list(tree.iter("object"))
        label = objects[0].findtext("name") if objects else None
        path = (data / relative).with_suffix(".JPEG")
        boxes = _boxes(objects, file, boxless)
        found.append(AnnotatedPhoto(path, boxes, label, relative.parts[0] == "train", size=_size(tree)))
    tell(root, len(boxless), "objects without a box, left out", *boxless[:1])
    return bring_upright(found, root)


def _parsed(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DelfError(f"{file}: its XML is damaged ({error}); fetch the annotations again") from error


def _boxes(objects: list[ElementTree.Element], file: Path, boxless: list[str]) -> list[Edges]:
    """Edges of the objects. VOC has indices of pixels from 1, both ends included."""
    boxes = []
    for element in objects:
        box = element.find("bndbox")
        if box is None:
            boxless.append(f"{element.findtext('name', 'one')} in {file.name}")
            continue
        corners = [box.findtext(name) for name in ("xmin", "ymin", "xmax", "ymax")]
        x0, y0, x1, y1 = between(*four_numbers(corners, str(file)))
        boxes.append((x0 - 1, y0 - 1, x1, y1))
    return boxes


def _size(tree: ElementTree.Element) -> Size | None:
    """(height, width) that the file states; None if it states none, or zero, as some programs do."""
    try:
        height, width = (int(float(tree.findtext(f"size/{side}", "0"))) for side in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None
