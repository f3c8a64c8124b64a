"""Reads data sets with true boxes and masks, in the layouts of ``layouts``."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from delf_jax.errors import DelfError, one_line
from localization.evaluation.annotated_photo import AnnotatedPhoto
from localization.evaluation.layouts.box_csv import read_box_csv
from localization.evaluation.layouts.coco import read_coco
from localization.evaluation.layouts.cub import read_cub
from localization.evaluation.layouts.tfds import read_tfds
from localization.evaluation.layouts.voc import read_imagenet, read_voc
from localization.evaluation.layouts.yolo import read_yolo

Layout = Literal["cub", "voc", "coco", "imagenet", "yolo", "csv", "tfds"]


class _Reader(NamedTuple):
    read: Callable[[Path], list[AnnotatedPhoto]]
    recognises: Callable[[Path], bool]


_READERS: Mapping[str, _Reader] = {
    "csv": _Reader(read_box_csv, lambda root: root.suffix.lower() == ".csv" and root.is_file()),
    "tfds": _Reader(read_tfds, lambda root: (root / "dataset_info.json").is_file()),
    "cub": _Reader(read_cub, lambda root: (root / "bounding_boxes.txt").is_file()),
    "voc": _Reader(read_voc, lambda root: (root / "JPEGImages").is_dir()),
    "coco": _Reader(read_coco, lambda root: (root / "annotations").is_dir()),
    "imagenet": _Reader(read_imagenet, lambda root: (root / "Annotations" / "CLS-LOC").is_dir()),
    "yolo": _Reader(read_yolo, lambda root: (root / "images").is_dir()),
}


def read(path: str | Path, *, layout: Layout | None = None) -> list[AnnotatedPhoto]:
    """The annotated photos of a folder or CSV file.

    What is left out, and what annotations do not say, is counted in the log, as warnings.

    Args:
        layout: the layout of the data set; None recognises it by its files.

    Raises:
        DelfError: missing, not in that layout or in no known layout, or damaged or ambiguous annotations.
    """
    root = Path(path)
    if not root.exists():
        raise DelfError(f"{path}: there is no such folder or file; check the path")
    for name, reader in _READERS.items():
        if layout in (None, name) and reader.recognises(root):
            try:
                return reader.read(root)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                reason = f"{type(error).__name__}: {one_line(error)}"
                raise DelfError(f"{path}: its {name} annotations are damaged ({reason}); fetch them again") from error
    if layout is not None:
        raise DelfError(f"{path}: not in the layout {layout}; give the folder that holds its annotations")
    raise DelfError(f"{path}: no known layout; give CUB, VOC, COCO, ImageNet, YOLO or TFDS folders, or a CSV")
