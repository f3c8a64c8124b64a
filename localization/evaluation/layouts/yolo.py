"""YOLO folders."""

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from delf_jax.errors import DelfError
from delf_jax.photos.names import is_photo_name
from localization.evaluation import true_masks
from localization.evaluation.annotated_photo import AnnotatedPhoto, Mask
from localization.evaluation.frames import read_frame
from localization.evaluation.layouts.boxes import has_area, tell
from localization.evaluation.layouts.masks import drawn_mask
from localization.evaluation.layouts.yolo_rows import (
    Dialect,
    Row,
    dialect_of,
    keypoints_of,
    read_rows,
    require_shares,
)

_OUTLINES = Dialect(has_box=False, is_outline=True)


def read_yolo(root: Path) -> list[AnnotatedPhoto]:
    """YOLO folders (coco128): ``images/SPLIT/NAME`` beside ``labels/SPLIT/NAME.txt``, in any dialect of ``yolo_rows``.

    Coordinates are shares of the upright photo. Outlines can also be in ``instance_segmentation/labels``. A photo has a
    mask if each of its rows is an outline. The log counts photos without a label file, label files without a photo, and
    boxes without an area.

    Raises:
        DelfError: a row that cannot be told, or two photos of one label file.
    """
    labels = next((p for p in (root / "labels", root / "object_detection" / "labels") if p.is_dir()), None)
    if labels is None:
        raise DelfError(f"{root}: no labels folder; this is not a YOLO layout")
    photos = _by_label(root / "images")
    sizes = {name: _upright_size(path) for name, path in photos.items()}
    dialect = dialect_of(_all_rows(labels, sizes), keypoints=keypoints_of(root))
    outlines = root / "instance_segmentation" / "labels"
    drawn_in, drawn = (outlines, _OUTLINES) if outlines.is_dir() else (labels, dialect)
    found, flat = [], 0
    for name, path in photos.items():
        boxes = [dialect.box(row) for row in read_rows(labels / name)]
        flat += sum(not has_area(box) for box in boxes)
        width, height = sizes[name] or (1, 1)
        in_pixels = [(x0 * width, y0 * height, x1 * width, y1 * height) for x0, y0, x1, y1 in filter(has_area, boxes)]
        file = drawn_in / name
        mask = None
        if _has_outlines(file, drawn):
            mask = functools.partial(drawn_mask, file, _yolo_mask, file, drawn, width, height)
        found.append(AnnotatedPhoto(path, in_pixels, mask=mask))
    without = [path.name for name, path in photos.items() if not (labels / name).is_file()]
    tell(root, len(without), "photos without a label file, so without objects", *without[:1])
    strange = sorted(path.relative_to(labels) for path in labels.rglob("*.txt"))
    strange = [name for name in strange if name not in photos and name.name != "classes.txt"]
    tell(root, len(strange), "label files without a photo", *strange[:1])
    tell(root, flat, "boxes without an area, left out")
    return found


def _by_label(folder: Path) -> dict[Path, Path]:
    """Each photo by its label file, relative to the folder of labels."""
    photos: dict[Path, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if is_photo_name(path.name)):
        name = path.relative_to(folder).with_suffix(".txt")
        if name in photos:
            raise DelfError(f"{path}: has the same label file as {photos[name].name}; keep one of the photos")
        photos[name] = path
    return photos


def _upright_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of the upright photo; None if it cannot be read, which loading it will explain."""
    frame = read_frame(path)
    return frame and frame.upright_size[::-1]


def _all_rows(labels: Path, sizes: dict[Path, tuple[int, int] | None]) -> Iterator[tuple[Row, tuple[int, int]]]:
    for name, size in sizes.items():
        if size is not None:
            yield from ((row, size) for row in read_rows(labels / name))


def _has_outlines(file: Path, dialect: Dialect) -> bool:
    rows = list(read_rows(file))
    if dialect.is_outline:
        require_shares(rows)
    return bool(rows) and all(dialect.outline(row) is not None for row in rows)


def _yolo_mask(file: Path, dialect: Dialect, width: int, height: int) -> Mask:
    scale = np.array([width, height])
    outlines = (dialect.outline(row) or () for row in read_rows(file))
    edges = [(np.reshape(outline, (-1, 2)) * scale).reshape(-1).tolist() for outline in outlines]
    return true_masks.polygon_mask(edges, (height, width)).astype(np.uint8)
