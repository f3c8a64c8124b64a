"""CUB-200-2011 in its original folders."""

import os
from pathlib import Path

from delf_jax.errors import DelfError
from delf_jax.files.text_files import read_lines
from localization.evaluation import true_masks
from localization.evaluation.annotated_photo import AnnotatedPhoto
from localization.evaluation.frames import bring_upright, picture_size
from localization.evaluation.layouts.boxes import between, four_numbers, has_area, tell
from localization.evaluation.layouts.masks import mask_file


def read_cub(root: Path) -> list[AnnotatedPhoto]:
    """The photos of ``images.txt``. Those that are not there are left out, and counted in the log."""
    names, boxes, train, classes = (
        _by_number(root / f"{name}.txt")
        for name in ("images", "bounding_boxes", "train_test_split", "image_class_labels")
    )
    found, absent = [], []
    for key, name in names.items():
        path = root / "images" / name
        if not os.path.isfile(path):
            absent.append(name)
            continue
        x, y, w, h = four_numbers(boxes[key].split(), f"{root / 'bounding_boxes.txt'}: photo {key}")
        box = between(x, y, x + w, y + h)
        picture = root / "segmentations" / Path(name).with_suffix(".png")
        mask = mask_file(picture, true_masks.grey_mask)
        found.append(
            AnnotatedPhoto(
                path, [box] if has_area(box) else [], classes[key], train[key] == "1", mask, size=picture_size(picture)
            )
        )
    tell(root / "images.txt", len(absent), "listed photos that are not there", *absent[:1])
    return bring_upright(found, root)


def _by_number(file: Path) -> dict[str, str]:
    """What a list says of each photo, by the number of the photo."""
    rows: dict[str, str] = {}
    for line, text in read_lines(file):
        key, *rest = text.split(maxsplit=1)
        if not rest or key in rows:
            raise DelfError(f"{file}: line {line} is not the number of a photo and a value, or repeats a number")
        rows[key] = rest[0]
    return rows
