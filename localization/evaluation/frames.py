"""Brings annotations of stored pixels into the upright photo.

Photos with an EXIF orientation have two frames: their stored pixels, and the upright photo that everything here works
with. Programs that ignore EXIF annotate the stored pixels. The size that they write beside the boxes tells which.
"""

import functools
import logging
import operator
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from delf_jax.errors import ImageError
from delf_jax.photos.decode import Frame
from delf_jax.photos.load import frame_of
from delf_jax.photos.orientation import upright
from localization.evaluation.annotated_photo import AnnotatedPhoto, Edges, Mask

_log = logging.getLogger(__name__)
Size = tuple[int, int]


def turned_box(box: Edges, frame: Frame) -> Edges:
    """A box of the stored pixels in the upright photo."""
    x0, y0, x1, y1 = box
    height, width = frame.upright_size
    if frame.orientation >= 5:
        x0, y0, x1, y1 = y0, x0, y1, x1
    if frame.orientation in (2, 3, 6, 7):
        x0, x1 = width - x1, width - x0
    if frame.orientation in (3, 4, 7, 8):
        y0, y1 = height - y1, height - y0
    return x0, y0, x1, y1


def turned_mask(read: Callable[[], Mask], frame: Frame) -> Mask:
    """A mask of the stored pixels, of any resolution, in the upright photo."""
    return upright(read(), frame.orientation)


def read_frame(photo: Path | bytes) -> Frame | None:
    """How a photo is stored, from its header; None if it cannot be read, which loading it will explain."""
    try:
        return frame_of(photo)
    except ImageError:
        return None


def picture_size(file: Path) -> Size | None:
    """(height, width) of a picture of a mask; None if there is none. Its pixels are not decoded."""
    try:
        with Image.open(file) as picture:
            return picture.size[::-1]
    except (OSError, ValueError, SyntaxError):
        return None


def bring_upright(photos: Sequence[AnnotatedPhoto], source: Path) -> list[AnnotatedPhoto]:
    """The same photos, with boxes and masks in the upright frame and at the size of the photo.

    The stated ``size`` of a photo is compared with both frames. Where it fits both, or is not stated, the other photos
    of the source decide. Where they do not agree either, upright is assumed, and the log has one warning. A size that
    fits neither frame stays, and ``AnnotatedPhoto.load`` refuses the photo.

    Args:
        photos: files, as they are annotated.
        source: the file or folder of their annotations, for the warning.
    """
    frames = [read_frame(photo.path) for photo in photos]
    meant = [None if frame is None else _meant(photo.size, frame) for photo, frame in zip(photos, frames)]
    known = {one for one, frame in zip(meant, frames) if frame and frame.orientation != 1} & {"upright", "stored"}
    if len(known) != 1 and "either" in meant:
        _log.warning(
            "%s: does not tell whether the boxes of %d photos with an EXIF orientation are of the upright photo; "
            "they are read as if they were",
            source,
            meant.count("either"),
        )
    usual = "stored" if known == {"stored"} else "upright"
    return [
        photo if frame is None or one in (None, "neither") else _placed(photo, frame, usual if one == "either" else one)
        for photo, frame, one in zip(photos, frames, meant)
    ]


def _meant(stated: Size | None, frame: Frame) -> str:
    """``upright``, ``stored``, ``either`` or ``neither``."""
    if frame.orientation == 1:
        return "upright" if stated is None or same_shape(stated, frame.upright_size) else "neither"
    if stated is None:
        return "either"
    for fits in (operator.eq, same_shape):
        is_upright, is_stored = fits(stated, frame.upright_size), fits(stated, frame.size)
        if is_upright or is_stored:
            return "either" if is_upright and is_stored else "upright" if is_upright else "stored"
    return "neither"


def same_shape(a: Size, b: Size) -> bool:
    """Whether one size is the other one reduced, with sides rounded to pixels."""
    return abs(a[0] * b[1] - a[1] * b[0]) <= max(*a, *b)


def _placed(photo: AnnotatedPhoto, frame: Frame, meant: str) -> AnnotatedPhoto:
    boxes, mask = photo.boxes, photo.mask
    size = frame.size if meant == "stored" else frame.upright_size
    if photo.size not in (None, size):
        scale_y, scale_x = size[0] / photo.size[0], size[1] / photo.size[1]
        boxes = [(x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y) for x0, y0, x1, y1 in boxes]
    if meant == "stored":
        boxes = [turned_box(box, frame) for box in boxes]
        mask = mask and functools.partial(turned_mask, mask, frame)
    return photo._replace(boxes=boxes, mask=mask, size=photo.size and frame.upright_size)
