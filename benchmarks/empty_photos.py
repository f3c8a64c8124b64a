"""How often is something found in photos with the object, and in photos without it?

Photos without the object are the largest strips beside the true boxes of test photos: the same places and light, but no
bird.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from delf_jax.errors import ImageError
from localization.evaluation.annotated_photo import AnnotatedPhoto
from localization.fitting.found_threshold import calibrate_on_empty, empty_part
from localization.predictor import Predictor


def measure(
    predictor: Predictor, train: Sequence[AnnotatedPhoto], test: Sequence[AnnotatedPhoto], *, smallest_side: int = 64
) -> list[dict[str, Any]]:
    """Fractions of photos with and without the object in which something is found: at threshold 0, and calibrated.

    ``own boxes`` calibrates on strips of the training photos beside what the predictor itself finds there, which needs
    no truth; ``true boxes`` on strips beside their true boxes, as a user's own empty photos would. Strips narrower than
    ``smallest_side`` pixels are left out.
    """
    beside = functools.partial(_beside, smallest_side=smallest_side)
    whole, empty = _scores(predictor, _whole(test)), _scores(predictor, beside(test, [p.boxes for p in test]))
    own = [found.boxes for found in predictor.localize([p.load().pixels for p in train])]
    thresholds = {
        "zero level": predictor.found_threshold,
        "calibrated beside own boxes": calibrate_on_empty(predictor, beside(train, own)).found_threshold,
        "calibrated beside true boxes": calibrate_on_empty(
            predictor, beside(train, [p.boxes for p in train])
        ).found_threshold,
    }
    ranks = (whole[:, None] > empty).mean() + (whole[:, None] == empty).mean() / 2
    return [
        {
            "method": name,
            "photos": len(whole),
            "empty_photos": len(empty),
            "found_threshold": float(threshold),
            "found": float((whole > threshold).mean()),
            "found_in_empty": float((empty > threshold).mean()),
            "auc": float(ranks),
        }
        for name, threshold in thresholds.items()
    ]


def _whole(photos: Sequence[AnnotatedPhoto]) -> Iterator[np.ndarray]:
    return (photo.load().pixels for photo in photos)


def _beside(
    photos: Sequence[AnnotatedPhoto], boxes: Sequence[Sequence[Sequence[float]]], *, smallest_side: int
) -> Iterator[np.ndarray]:
    for photo, own in zip(photos, boxes):
        pixels = photo.load().pixels
        strip = empty_part(own, pixels.shape[:2], smallest_side=smallest_side) if len(own) else None
        if strip is not None:
            x0, y0, x1, y1 = strip
            yield pixels[y0:y1, x0:x1]


def _scores(predictor: Predictor, photos: Iterator[np.ndarray]) -> np.ndarray:
    found = predictor.localize_stream(enumerate(photos))
    return np.array([one.score for _, one in found if not isinstance(one, ImageError)])
