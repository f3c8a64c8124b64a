"""Which score means that a photo holds the object: what photos with it exceed, and few photos without it."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from delf_jax.errors import ImageError, PredictorError
from localization.encoders.base import Source
from localization.predictor import Predictor
from localization.representers.found_scores import lower_bound


def found_on(predictor: Predictor, photos: Iterable[tuple[Any, Source]]) -> Predictor:
    """The predictor with the ``found_threshold`` that nearly all of these photos exceed, which hold the object.

    ``fit`` does this with some of its photos if their points are only a sample of their positions.

    Args:
        photos: (key, photo) pairs; those that cannot be used are left out.
    """
    stream = predictor.localize_stream(photos)
    scores = [found.score for _, found in stream if not isinstance(found, ImageError)]
    return dataclasses.replace(predictor, found_threshold=lower_bound(np.array(scores)))


def calibrate_on_empty(
    predictor: Predictor,
    empty: Iterable[Source],
    *,
    false_alarms: float = 0.05,
    on_error: Callable[[ImageError], None] | None = None,
) -> Predictor:
    """The predictor with a ``found_threshold`` that at most a share ``false_alarms`` of these photos exceed.

    It is never below what ``fit`` chose. With fewer photos than 1 / ``false_alarms`` it is at least the highest of
    their scores, so one photo that does hold the object spoils it.

    Args:
        empty: photos without the object, of the kind that the predictor will see; as in ``fit``.
        on_error: called with each photo that cannot be used, which is then left out; None raises instead.

    Raises:
        ImageError: a photo cannot be used and ``on_error`` is None.
        PredictorError: no photo is left.
    """
    scores = []
    for _, found in predictor.localize_stream(enumerate(empty)):
        if not isinstance(found, ImageError):
            scores.append(found.score)
        elif on_error is None:
            raise found
        else:
            on_error(found)
    if not scores:
        raise PredictorError("no photo without the object could be read; give some to calibrate on")
    threshold = found_threshold(scores, false_alarms=false_alarms)
    return dataclasses.replace(predictor, found_threshold=max(threshold, predictor.found_threshold))


def found_threshold(scores: Sequence[float], *, false_alarms: float) -> float:
    """The quantile 1 - ``false_alarms`` of the scores, rounded up to one of them.

    >>> found_threshold([0.1, 0.5, 0.2, 0.3, 0.4], false_alarms=0.25)
    0.4
    """
    return float(np.quantile(np.asarray(scores, np.float64), 1 - false_alarms, method="higher"))


def empty_part(
    boxes: Sequence[Sequence[float]], size: tuple[int, int], *, smallest_side: int = 64
) -> tuple[int, int, int, int] | None:
    """The largest strip of a photo beside all its objects, as edges [x0, y0, x1, y1].

    Returns None if all strips are narrower than ``smallest_side`` pixels.

    Args:
        boxes: [x0, y0, x1, y1, ...] of every object.
        size: (height, width) of the photo.

    >>> empty_part([(100, 20, 280, 200)], (240, 400))
    (280, 0, 400, 240)
    """
    height, width = size
    x0, y0 = (int(max(min(box[i] for box in boxes), 0)) for i in (0, 1))
    x1, y1 = (int(min(-(-max(box[i] for box in boxes) // 1), end)) for i, end in ((2, width), (3, height)))
    strips = [(0, 0, x0, height), (x1, 0, width, height), (0, 0, width, y0), (0, y1, width, height)]
    wide = [s for s in strips if min(s[2] - s[0], s[3] - s[1]) >= smallest_side]
    return max(wide, key=lambda s: (s[2] - s[0]) * (s[3] - s[1]), default=None)
