"""The atlas: all levels of the image pyramid side by side on one canvas, so that the network runs once.

Every level begins at a multiple of the network's largest stride, and between two levels there is at least one cell of
every map. The network sets all cells outside the levels to zero, so each level sees what it would see alone.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Num

from delf_jax.extraction.pyramid import pyramid
from delf_jax.models.regions import Slot

_MOST_SIDE_BY_SIDE = 3


class Atlas(NamedTuple):
    """Size of the canvas and the slot of each level of the pyramid, in pixels."""

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
        found.append(Atlas(height, width, slots))
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
    images: Num[Array, "b H W c"], valid_hw: Int[Array, "b 2"], scales: Sequence[float], atlas: Atlas, *, dtype: Any
) -> Float[Array, "b h w c"]:
    """The photos of a padded batch, resized by each of ``scales``, in the slots of the atlas; float32, zero elsewhere.

    Args:
        images, valid_hw, dtype: as in ``pyramid.pyramid``.
        scales: of the levels for which the atlas was packed.
        atlas: from ``pack``.
    """
    levels = pyramid(images, valid_hw, scales, dtype=dtype)
    if len(levels) == 1:
        return levels[0]
    canvas = jnp.zeros((images.shape[0], atlas.height, atlas.width, images.shape[3]))
    for level, slot in zip(levels, atlas.slots):
        canvas = lax.dynamic_update_slice(canvas, level, (0, slot.top, slot.left, 0))
    return canvas
