"""How often is something found in photos with the object, and in photos without it?

Photos without the object are the largest strips beside the true boxes of test photos: the same places and light, but no
bird.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from delf_jax.errors import ImageError
from localization.evaluation.annotated_photo import AnnotatedPhoto
from localization.fitting.found_threshold import calibrate_on_empty, empty_part
from localization.predictor import Predictor

_COLOURS = ((0, 0, 0), (128, 128, 128), (255, 255, 255), (200, 30, 30), (30, 160, 30), (90, 140, 200))


def measure(
    predictor: Predictor, train: Sequence[AnnotatedPhoto], test: Sequence[AnnotatedPhoto], *, smallest_side: int = 64
) -> list[dict[str, Any]]:
    """Fractions of photos with the object, without it, and of one colour in which something is found.

    ``default`` is what ``fit`` chose. ``calibrated on empty photos`` is chosen on strips beside the true boxes of the
    training photos, as on a user's own empty photos. Strips narrower than ``smallest_side`` pixels are left out.
    """
    beside = functools.partial(_beside, smallest_side=smallest_side)
    whole, empty = _scores(predictor, _whole(test)), _scores(predictor, beside(test))
    uncalibrated = dataclasses.replace(predictor, found_threshold=0.0)
    ways = {
        "zero level": uncalibrated,
        "default": predictor,
        "calibrated on empty photos": calibrate_on_empty(uncalibrated, beside(train)),
    }
    ranks = (whole[:, None] > empty).mean() + (whole[:, None] == empty).mean() / 2
    return [
        {
            "method": name,
            "photos": len(whole),
            "empty_photos": len(empty),
            "found_threshold": float(way.found_threshold),
            "found": float((whole > way.found_threshold).mean()),
            "found_in_empty": float((empty > way.found_threshold).mean()),
            "found_in_plain": float(np.mean([found.found for found in way.localize(_plain())])),
            "auc": float(ranks),
        }
        for name, way in ways.items()
    ]


def _plain() -> list[np.ndarray]:
    return [np.full((300, 400, 3), colour, np.uint8) for colour in _COLOURS]


def _whole(photos: Sequence[AnnotatedPhoto]) -> Iterator[np.ndarray]:
    return (photo.load().pixels for photo in photos)


def _beside(photos: Sequence[AnnotatedPhoto], *, smallest_side: int) -> Iterator[np.ndarray]:
    for photo in photos:
        pixels = photo.load().pixels
        strip = empty_part(photo.boxes, pixels.shape[:2], smallest_side=smallest_side) if photo.boxes else None
        if strip is not None:
            x0, y0, x1, y1 = strip
            yield pixels[y0:y1, x0:x1]


def _scores(predictor: Predictor, photos: Iterator[np.ndarray]) -> np.ndarray:
    found = predictor.localize_stream(enumerate(photos))
    return np.array([one.score for _, one in found if not isinstance(one, ImageError)])
