"""COCO: one JSON file a split."""

import functools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from delf_jax.errors import DelfError
from localization.evaluation import true_masks
from localization.evaluation.annotated_photo import AnnotatedPhoto, Edges
from localization.evaluation.frames import Size, bring_upright
from localization.evaluation.layouts.boxes import between, four_numbers, has_area, require_pixels, tell
from localization.evaluation.layouts.masks import drawn_mask


def read_coco(root: Path) -> list[AnnotatedPhoto]:
    """COCO: ``annotations/instances_SPLIT.json`` beside ``SPLIT/NAME``. Crowds have no box and are ignored in masks.

    A photo has a mask if each of its objects has an outline. The log counts objects without a box, and annotations of
    photos that the file does not list.
    """
    found = []
    for file in sorted((root / "annotations").glob("instances_*.json")):
        found += _read_file(file, root / file.stem.removeprefix("instances_"))
    return found


def _read_file(file: Path, folder: Path) -> list[AnnotatedPhoto]:
    content = json.loads(file.read_bytes())
    objects: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    found, seen = [], set()
    boxless = 0
    for image in content["images"]:
        if image["id"] in seen:
            raise DelfError(f"{file}: two photos have the id {image['id']}; number them anew")
        seen.add(image["id"])
        own = objects[image["id"]]
        single = [annotation for annotation in own if not annotation.get("iscrowd")]
        boxes = [box for annotation in single if (box := _box(annotation, file)) is not None]
        boxless += len(single) - len(boxes)
        size = _size(image, file)
        mask = None
        if size is not None and all(map(_has_outline, own)):
            mask = functools.partial(drawn_mask, file, true_masks.coco_mask, own, size)
        path = folder / image["file_name"]
        found.append(AnnotatedPhoto(path, boxes, train="train" in file.stem, mask=mask, size=size))
    tell(file, boxless, "objects without a box, left out")
    strange = [key for key in objects if key not in seen]
    tell(file, sum(len(objects[key]) for key in strange), "annotations of photos that it does not list")
    require_pixels(found, file)
    return bring_upright(found, file)


def _box(annotation: dict[str, Any], file: Path) -> Edges | None:
    values = annotation.get("bbox") or ()
    if not values:
        return None
    place = f"{file}: annotation {annotation.get('id', '')} of photo {annotation['image_id']}"
    x, y, width, height = four_numbers(values, place)
    box = between(x, y, x + width, y + height)
    return box if has_area(box) else None


def _size(image: dict[str, Any], file: Path) -> Size | None:
    """(height, width) that the file states."""
    height, width = image.get("height"), image.get("width")
    if not height or not width:
        return None
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise DelfError(f"{file}: the size of photo {image['id']} is not two whole numbers; correct it")
    return height, width


def _has_outline(annotation: dict[str, Any]) -> bool:
    """Whether its region is known: run lengths, or polygons of three or more corners."""
    form = annotation.get("segmentation") or ()
    return isinstance(form, dict) or (bool(form) and all(len(polygon) >= 6 for polygon in form))
