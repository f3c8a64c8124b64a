"""The atlas: all levels of the image pyramid side by side on one canvas, so that the network runs once.

Every level begins at a multiple of the network's largest stride, and between two levels there is at least one cell of
every map. The network sets all cells outside the levels to zero, so each level sees what it would see alone.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from delf_jax.extraction.pyramid import resize_by_matrices, resize_by_taps
from delf_jax.models.regions import Slot

_MOST_SIDE_BY_SIDE = 3


class Atlas(NamedTuple):
    """Size of the canvas and the slot of each level of the pyramid, in pixels; even numbers, but for slots' sizes."""

    height: int
    width: int
    slots: tuple[Slot, ...]


@functools.lru_cache(maxsize=256)
def pack(sizes: tuple[tuple[int, int], ...], stride: int) -> Atlas:
    """The smallest canvas that was found for levels of these sizes.

    For each of several widths, the levels are put on the canvas one after the other, the highest first, each as high up
    as it fits.

    >>> pack(((240, 320), (480, 640), (960, 1280)), 16)
    Atlas(height=960, width=1936, slots=(Slot(top=496, left=1296, ...

    Args:
        sizes: (height, width) of each level in pixels.
        stride: the largest distance between the cells of a map, in pixels.
    """
    # Two pixels are the smallest step: see ``lay_out``.
    stride = math.lcm(stride, 2)
    boxes = [(-(-height // stride) + 1, -(-width // stride) + 1) for height, width in sizes]
    order = sorted(range(len(sizes)), key=lambda level: boxes[level], reverse=True)
    rows = (row for count in range(1, _MOST_SIDE_BY_SIDE + 1) for row in itertools.combinations(boxes, count))
    found = []
    for across in sorted({sum(width for _, width in row) for row in rows}):
        if across < max(width for _, width in boxes):
            continue
        corners = dict(zip(order, _corners([boxes[level] for level in order], across)))
        slots = tuple(
            Slot(corners[level][0] * stride, corners[level][1] * stride, *size) for level, size in enumerate(sizes)
        )
        height, width = max(s.top + s.height for s in slots), max(s.left + s.width for s in slots)
        found.append(Atlas(height + height % 2, width + width % 2, slots))
    return min(found, key=lambda atlas: atlas.height * atlas.width)


def _corners(boxes: Sequence[tuple[int, int]], across: int) -> list[tuple[int, int]]:
    """(top, left) of boxes (height, width), each as high up as it fits below the ones before it."""
    filled = [0] * across
    corners = []
    for height, width in boxes:
        top, left = min((max(filled[left : left + width]), left) for left in range(across - width + 1))
        filled[left : left + width] = [top + height] * width
        corners.append((top, left))
    return corners


def lay_out(
    photos: Float[Array, "b H W c"], valid_hw: Int[Array, "b 2"], scales: Sequence[float], atlas: Atlas, *, dtype: Any
) -> Float[Array, "b h w c"]:
    """The photos of a padded batch, resized by each of ``scales``, in the slots of the atlas; zero elsewhere.

    Args:
        photos: zero outside ``valid_hw``.
        valid_hw: int32, (height, width) of each photo.
        scales: of the levels for which the atlas was packed.
        atlas: from ``pack``.
        dtype: float32 or bfloat16: the type of the result and, on accelerators, of the factors of matrix products.
    """
    return lax.platform_dependent(
        photos,
        valid_hw,
        cpu=functools.partial(_pixels_by_taps, scales=scales, atlas=atlas, dtype=dtype),
        default=functools.partial(_pixels_by_matrices, scales=scales, atlas=atlas, dtype=dtype),
    )


def _pixels_by_taps(photos: Array, valid_hw: Array, *, scales: Sequence[float], atlas: Atlas, dtype: Any) -> Array:
    others = [scale for scale in scales if scale != 1]
    levels = iter(resize_by_taps(photos, valid_hw, scales=others) if others else [])
    canvas = jnp.zeros((photos.shape[0], atlas.height, atlas.width, photos.shape[3]), dtype)
    for scale, slot in zip(scales, atlas.slots):
        level = photos if scale == 1 else next(levels)
        canvas = lax.dynamic_update_slice(canvas, level.astype(dtype), (0, slot.top, slot.left, 0))
    return canvas


def _pixels_by_matrices(photos: Array, valid_hw: Array, *, scales: Sequence[float], atlas: Atlas, dtype: Any) -> Array:
    batch, _, _, channels = photos.shape
    canvas = jnp.zeros((batch, channels, 2, 2, atlas.height // 2, atlas.width // 2), dtype)
    for level, slot in zip(resize_by_matrices(photos, valid_hw, scales=scales, dtype=dtype), atlas.slots):
        canvas = lax.dynamic_update_slice(canvas, level, (0, 0, 0, 0, slot.top // 2, slot.left // 2))
    # The first convolution on a TPU wants the 2x2 blocks again, so nothing of this is left there.
    return canvas.transpose(0, 4, 2, 5, 3, 1).reshape(batch, atlas.height, atlas.width, channels)
