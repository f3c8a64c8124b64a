"""When a photo counts as empty: the raw score that only a few photos without the object exceed."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from delf_jax.errors import ImageError, PredictorError
from delf_jax.photos.load import load_photo
from localization.encoders.encoders import Source
from localization.predictor import Predictor


def calibrated(
    predictor: Predictor,
    empty: Iterable[Source],
    *,
    false_alarms: float = 0.05,
    on_error: Callable[[ImageError], None] | None = None,
) -> Predictor:
    """The predictor with the ``found_threshold`` that only a share ``false_alarms`` of these empty photos exceed.

    Uncalibrated, the threshold is the zero level of w*, the bisector of object and background, which finds nearly every
    object and something in many empty photos too (``benchmarks.empty_photos``). With fewer photos than
    1 / ``false_alarms`` the threshold is the highest of their scores: one photo that is not empty after all spoils it.

    Args:
        empty: photos without the object, such as the predictor is going to see; what ``fit`` takes.
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
    return predictor.calibrated(scores, false_alarms=false_alarms)


def calibrated_beside(
    predictor: Predictor,
    photos: Iterable[Source],
    *,
    false_alarms: float = 0.05,
    on_error: Callable[[ImageError], None] | None = None,
) -> Predictor:
    """``calibrated`` without empty photos: on the largest strip of each photo beside what the predictor finds there.

    Args:
        photos: paths or uint8 arrays [h, w, 3] with the object, such as it was fitted on; read twice.
        on_error: as in ``calibrated``.

    Raises:
        ImageError: a photo cannot be used and ``on_error`` is None.
        PredictorError: objects fill all photos.
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

    return calibrated(predictor, strips(), false_alarms=false_alarms)


def empty_part(
    boxes: Sequence[Sequence[float]], size: tuple[int, int], *, smallest_side: int = 64
) -> tuple[int, int, int, int] | None:
    """The largest strip of a photo beside all its objects, edges [x0, y0, x1, y1]; None when all are too narrow.

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
