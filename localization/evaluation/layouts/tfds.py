"""Data sets that TFDS prepared as ArrayRecord."""

import functools
import io
from pathlib import Path
from typing import Any

from PIL import Image

from delf_jax.errors import DelfError
from delf_jax.photos.decode import Frame
from delf_jax.photos.tfds_sets import file_name, open_builder, open_split
from localization.evaluation import true_masks
from localization.evaluation.annotated_photo import AnnotatedPhoto, Mask
from localization.evaluation.frames import read_frame, turned_box, turned_mask
from localization.evaluation.layouts.boxes import between, four_numbers


def read_tfds(root: Path) -> list[AnnotatedPhoto]:
    """A data set that TFDS prepared as ArrayRecord, such as ``caltech_birds2011``; give the folder of its version.

    Boxes are those of the feature ``bbox`` (normalised ymin, xmin, ymax, xmax). They and the masks are of the stored
    pixels, because TFDS ignores EXIF. Photos are read from the records when they are needed. TensorFlow is not used.

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
        of_split = []
        for number, record in enumerate(records):
            frame = read_frame(record["image"]) or Frame((1, 1), 1)
            height, width = frame.size
            y0, x0, y1, x1 = four_numbers(record["bbox"], f"{root}: record {number} of {split}")
            box = between(x0 * width, y0 * height, x1 * width, y1 * height)
            mask = functools.partial(_record_mask, records, number)
            of_split.append(
                AnnotatedPhoto(
                    Path(split, file_name(record) or str(number)),
                    [turned_box(box, frame)],
                    features["label"].int2str(record["label"]) if "label" in features else None,
                    split == "train",
                    functools.partial(turned_mask, mask, frame) if "segmentation_mask" in features else None,
                    functools.partial(_record_photo, records, number),
                )
            )
        if len({photo.path for photo in of_split}) < len(of_split):  # such as 1.jpg of each class
            of_split = [photo._replace(path=Path(split, str(number))) for number, photo in enumerate(of_split)]
        found += of_split
    return found


def _record_photo(records: Any, number: int) -> bytes:
    photo: bytes = records[number]["image"]
    return photo


def _record_mask(records: Any, number: int) -> Mask:
    with Image.open(io.BytesIO(records[number]["segmentation_mask"])) as picture:
        return true_masks.grey_mask(picture)
