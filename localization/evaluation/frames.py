"""Brings annotations of stored pixels into the upright photo.

Photos with an EXIF orientation have two frames: their stored pixels, and the upright photo that everything here works
with. Programs that ignore EXIF annotate the stored pixels. The size that they write beside the boxes tells which.
"""

import functools
import logging
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from delf_jax.errors import ImageError
from delf_jax.photos.load import frame_of
from delf_jax.photos.orientation import turned_size, upright
from localization.evaluation.annotated_photo import AnnotatedPhoto, Edges, Mask

_log = logging.getLogger(__name__)
_Frame = Literal["upright", "stored"]
Size = tuple[int, int]


class Frames(NamedTuple):
    """The two frames of a photo.

    Attributes:
        stored: (height, width) of its stored pixels.
        orientation: EXIF orientation, 1 to 8.
    """

    stored: Size
    orientation: int

    @property
    def upright(self) -> Size:
        """(height, width) of the upright photo."""
        return turned_size(self.stored, self.orientation)

    def turned_box(self, box: Edges) -> Edges:
        """A box of the stored pixels in the upright photo."""
        x0, y0, x1, y1 = box
        height, width = self.stored
        if self.orientation >= 5:
            x0, y0, x1, y1, height, width = y0, x0, y1, x1, width, height
        if self.orientation in (2, 3, 6, 7):
            x0, x1 = width - x1, width - x0
        if self.orientation in (3, 4, 7, 8):
            y0, y1 = height - y1, height - y0
        return x0, y0, x1, y1

    def turned_mask(self, read: Callable[[], Mask]) -> Mask:
        """A mask of the stored pixels, of any resolution, in the upright photo."""
        return upright(read(), self.orientation)


def read_frames(photo: Path | bytes) -> Frames | None:
    """The frames of a photo from its header; None if it cannot be read, which loading it will explain."""
    try:
        return Frames(*frame_of(photo))
    except ImageError:
        return None


def picture_size(file: Path) -> Size | None:
    """(height, width) of a picture of a mask; None if there is none."""
    frames = read_frames(file) if file.is_file() else None
    return frames and frames.stored


def bring_upright(photos: Sequence[AnnotatedPhoto], source: Path) -> list[AnnotatedPhoto]:
    """The same photos, with boxes and masks in the upright frame and at the size of the photo.

    The stated ``size`` of a photo is compared with both frames. Where it fits both, or is not stated, the other photos
    of the source decide. Where they do not agree either, upright is assumed, and the log has one warning. A size that
    fits neither frame stays, and ``AnnotatedPhoto.load`` refuses the photo.

    Args:
        photos: files, as they are annotated.
        source: the file or folder of their annotations, for the warning.
    """
    frames = [read_frames(photo.path) for photo in photos]
    meant = [None if one is None else _meant(photo.size, one) for photo, one in zip(photos, frames)]
    turned = [one is not None and one.orientation != 1 for one in frames]
    known = {frame for frame, is_turned in zip(meant, turned) if is_turned and frame in ("upright", "stored")}
    unknown = sum(is_turned and frame == "either" for frame, is_turned in zip(meant, turned))
    if unknown and len(known) != 1:
        _log.warning(
            "%s: does not tell whether the boxes of %d photos with an EXIF orientation are of the upright photo; "
            "they are read as if they were",
            source,
            unknown,
        )
    usual: _Frame = "stored" if known == {"stored"} else "upright"
    return [
        photo
        if one is None or frame in (None, "neither")
        else _placed(photo, one, usual if frame == "either" else frame)
        for photo, one, frame in zip(photos, frames, meant)
    ]


def _meant(stated: Size | None, frames: Frames) -> str:
    """``upright``, ``stored``, ``either`` or ``neither``."""
    if frames.orientation == 1:
        return "upright" if stated is None or same_shape(stated, frames.upright) else "neither"
    if stated is None:
        return "either"
    for fits in (operator.eq, same_shape):
        upright, stored = fits(stated, frames.upright), fits(stated, frames.stored)
        if upright or stored:
            return "either" if upright and stored else "upright" if upright else "stored"
    return "neither"


def same_shape(a: Size, b: Size) -> bool:
    """Whether one size is the other one reduced, with sides rounded to pixels."""
    return abs(a[0] * b[1] - a[1] * b[0]) <= max(*a, *b)


def _placed(photo: AnnotatedPhoto, frames: Frames, frame: str) -> AnnotatedPhoto:
    boxes, mask = photo.boxes, photo.mask
    size = frames.stored if frame == "stored" else frames.upright
    if photo.size not in (None, size):
        scale_y, scale_x = size[0] / photo.size[0], size[1] / photo.size[1]
        boxes = [(x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y) for x0, y0, x1, y1 in boxes]
    if frame == "stored":
        boxes = [frames.turned_box(box) for box in boxes]
        mask = mask and functools.partial(frames.turned_mask, mask)
    return photo._replace(boxes=boxes, mask=mask, size=photo.size and frames.upright)
