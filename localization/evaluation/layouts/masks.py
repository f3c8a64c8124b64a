"""True masks that are read when they are needed, and name their file if they are damaged."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
from PIL import Image

from delf_jax.errors import DelfError, one_line
from localization.evaluation.annotated_photo import Mask

_DRAWING_ERRORS = (cv2.error, Image.DecompressionBombError)


def mask_file(file: Path, read_mask: Callable[[Image.Image], Mask]) -> Callable[[], Mask] | None:
    """Reads a picture of a mask; None if the file is not there."""
    if not os.path.isfile(file):
        return None

    def read_picture() -> Mask:
        with Image.open(file) as picture:
            return read_mask(picture)

    return functools.partial(drawn_mask, file, read_picture)


def drawn_mask(file: Path, draw: Callable[..., Mask], *arguments: Any) -> Mask:
    """The mask that ``draw`` makes; DelfError if its annotation in ``file`` is damaged."""
    try:
        return draw(*arguments)
    except DelfError as error:
        raise DelfError(f"{file}: {error}") from error
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, SyntaxError, *_DRAWING_ERRORS) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise DelfError(f"{file}: the mask of a photo is damaged ({reason}); fetch the annotations again") from error
