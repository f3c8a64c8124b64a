"""Calibration of ``found_threshold``: the score that only a few photos without the object exceed."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from delf_jax.errors import ImageError, PredictorError
from delf_jax.photos.load import load_photo
from localization.encoders.base import Source
from localization.predictor import Predictor


def calibrate_on_empty(
    predictor: Predictor,
    empty: Iterable[Source],
    *,
    false_alarms: float = 0.05,
    on_error: Callable[[ImageError], None] | None = None,
) -> Predictor:
    """The predictor with the ``found_threshold`` that at most a share ``false_alarms`` of these photos exceed.

    Without calibration the threshold is 0, the level between foreground and background. It finds nearly every object,
    but also something in many photos without one (``benchmarks.empty_photos``). With fewer photos than
    1 / ``false_alarms`` the threshold is the highest of their scores, so one photo that does hold the object spoils it.

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
    return dataclasses.replace(predictor, found_threshold=found_threshold(scores, false_alarms=false_alarms))


def found_threshold(scores: Sequence[float], *, false_alarms: float) -> float:
    """The quantile 1 - ``false_alarms`` of the scores, rounded up to one of them.

    >>> found_threshold([0.1, 0.5, 0.2, 0.3, 0.4], false_alarms=0.25)
    0.4
    """
    return float(np.quantile(np.asarray(scores, np.float64), 1 - false_alarms, method="higher"))


def calibrate_beside_objects(
    predictor: Predictor,
    photos: Iterable[Source],
    *,
    false_alarms: float = 0.05,
    on_error: Callable[[ImageError], None] | None = None,
) -> Predictor:
    """``calibrate_on_empty`` without empty photos: on the largest strip of each photo beside what is found in it.

    Args:
        photos: paths or uint8 arrays [h, w, 3] with the object, such as the training photos; each is read twice.
        on_error: as in ``calibrate_on_empty``.

    Raises:
        ImageError: a photo cannot be used and ``on_error`` is None.
        PredictorError: no photo has a strip without an object.
    """

    def strips() -> Iterator[np.ndarray]:
        for source, found in predictor.localize_stream((photo, photo) for photo in photos):
            if isinstance(found, ImageError):
                if on_error is None:
                    raise found
                on_error(found)
            elif found.boxes and (strip := empty_part(found.boxes, found.image_size)):
                x0, y0, x1, y1 = strip
                yield load_photo(source, max_side=None).pixels[y0:y1, x0:x1]

    return calibrate_on_empty(predictor, strips(), false_alarms=false_alarms)


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
