"""``AnnotatedPhoto``: a photo with its true boxes and mask. Boxes are pixel edges [x0, y0, x1, y1], upright."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from delf_jax.errors import ImageError
from delf_jax.photos.load import Photo, load_photo

Edges = tuple[float, float, float, float]
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
        size: (height, width) of the photo that was annotated; None if the annotation does not say it.
    """

    path: Path
    boxes: list[Edges]
    label: str | None = None
    train: bool | None = None
    mask: Callable[[], Mask] | None = None
    data: Callable[[], bytes] | None = None
    size: tuple[int, int] | None = None

    def load(self) -> Photo:
        """The whole photo; raises ImageError, which names it, also if its annotation is that of another photo."""
        try:
            photo = load_photo(self.path if self.data is None else self.data(), max_side=None)
        except ImageError as error:
            raise ImageError(str(self.path), error.reason) from error
        height, width = photo.original_size
        if self.size not in (None, (height, width)):
            stated = f"{self.size[1]} x {self.size[0]}"
            raise ImageError(
                str(self.path),
                f"has {width} x {height} pixels, its annotation is of {stated}; put the right photo there",
            )
        for x0, y0, x1, y1 in self.boxes:
            if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
                reason = f"the true box {x0:g}, {y0:g}, {x1:g}, {y1:g} lies outside of its {width} x {height} pixels"
                raise ImageError(str(self.path), f"{reason}; correct the annotation")
        return photo
