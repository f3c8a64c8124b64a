"""Size buckets: the few canvas sizes to which photos are padded, so that few programs are compiled.

A photo goes into the smallest bucket that holds it. The default buckets have four longest sides (1, 5/8, 3/8 and 1/4 of
``max_side``) and three aspect ratios (4:3, 1:1, 3:4): at most twelve programs for any collection.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

Bucket = tuple[int, int]

_GRID = 32
_FRACTIONS = (1.0, 5 / 8, 3 / 8, 1 / 4)
_ASPECTS = ((3 / 4, 1.0), (1.0, 1.0), (1.0, 3 / 4))


def default_buckets(max_side: int) -> tuple[Bucket, ...]:
    """The canvas sizes (height, width) for photos whose longest side is at most ``max_side`` pixels.

    >>> default_buckets(1024)[:3]
    ((192, 256), (256, 192), (256, 256))
    """
    sizes = {
        (_round_up(max_side * fraction * height), _round_up(max_side * fraction * width))
        for fraction in _FRACTIONS
        for height, width in _ASPECTS
    }
    return tuple(sorted(sizes, key=lambda hw: (hw[0] * hw[1], hw)))


def choose_bucket(height: int, width: int, buckets: Sequence[Bucket]) -> Bucket:
    """The smallest bucket that holds a photo of ``height`` x ``width`` pixels.

    Raises:
        ValueError: no bucket is large enough.
    """
    fitting = [b for b in buckets if b[0] >= height and b[1] >= width]
    if not fitting:
        raise ValueError(f"no bucket holds a photo of {height}x{width} pixels; the largest is {max(buckets)}")
    return min(fitting, key=lambda hw: (hw[0] * hw[1], hw))


def pad_batch(
    photos: Sequence[UInt8[np.ndarray, "_h _w 3"]], bucket: Bucket, batch_size: int
) -> tuple[UInt8[np.ndarray, "b H W 3"], np.ndarray]:
    """A batch of photos, each in the top-left corner of a canvas of zeros.

    Args:
        photos: at most ``batch_size`` RGB photos, none larger than the bucket.
        bucket: (height, width) of the canvas.
        batch_size: rows of the batch; missing photos become rows of size (0, 0).

    Returns:
        images uint8 [b, H, W, 3], and valid_hw int32 [b, 2], the (height, width) of each photo.
    """
    images = np.zeros((batch_size, *bucket, 3), np.uint8)
    valid_hw = np.zeros((batch_size, 2), np.int32)
    for row, photo in enumerate(photos):
        height, width = photo.shape[:2]
        images[row, :height, :width] = photo
        valid_hw[row] = height, width
    return images, valid_hw


def _round_up(value: float) -> int:
    return max(_GRID, int(-(-value // _GRID)) * _GRID)
