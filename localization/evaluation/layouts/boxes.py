"""Checks of true boxes that all layouts share."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from delf_jax.errors import DelfError
from localization.evaluation.annotated_photo import AnnotatedPhoto, Edges

_log = logging.getLogger(__name__)


def four_numbers(values: Any, place: str) -> tuple[float, float, float, float]:
    """Four numbers, or texts of numbers; DelfError, which begins with ``place``, if they are not four finite ones."""
    try:
        first, second, third, fourth = (float(value) for value in values)
        if isinstance(values, str) or not all(map(math.isfinite, (first, second, third, fourth))):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DelfError(f"{place}: its box is not four numbers; correct it") from None
    return first, second, third, fourth


def between(x0: float, y0: float, x1: float, y1: float) -> Edges:
    """The box [x0, y0, x1, y1] between two opposite corners, whichever comes first."""
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def has_area(box: Edges) -> bool:
    """Whether anything lies between its edges."""
    return box[0] < box[2] and box[1] < box[3]


def require_pixels(photos: Sequence[AnnotatedPhoto], source: Path) -> None:
    """Raises DelfError if all boxes are within one pixel: then they are shares of their photos."""
    boxes = [box for photo in photos for box in photo.boxes]
    if boxes and all(0 <= value <= 1 for box in boxes for value in box):
        raise DelfError(f"{source}: its boxes are shares of the photos, from 0 to 1; give them in pixels")


def tell(source: Path, count: int, what: str, example: object = "") -> None:
    """Writes into the log how many entries of a source are left out or doubtful; nothing if none."""
    if count:
        _log.warning("%s: %s: %d%s", source, what, count, f", such as {str(example)!r}" if str(example) else "")
