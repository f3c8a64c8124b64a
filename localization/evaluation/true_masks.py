"""Readers of true masks. A mask is uint8 [H, W]: 1 is object, 0 is background, and 255 is ignored."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from delf_jax.errors import DelfError

IGNORED = 255
# OpenCV fills every pixel that an outline touches. Drawn at four times the size, that is an eighth of a pixel too much.
_FINER = 4
_MOST_PIXELS = 50_000_000


def _require_modest(size: tuple[int, int]) -> None:
    """Raises DelfError for sizes that would fill the memory: annotations can give any size."""
    height, width = size
    if not all(isinstance(side, int) and 0 < side <= _MOST_PIXELS for side in size) or height * width > _MOST_PIXELS:
        raise DelfError(f"a mask of {width} x {height} pixels; fetch the annotations again")


def polygon_mask(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """The union of polygons [x0, y0, x1, y1, ...] in pixel edges, in a photo of ``size`` (height, width).

    Raises:
        DelfError: the size is that of no photo, or a corner is further outside of the photo than the photo is large.
    """
    _require_modest(size)
    fine = np.zeros((size[0] * _FINER, size[1] * _FINER), np.uint8)
    for polygon in polygons:
        edges = np.asarray(polygon, np.float64).reshape(-1, 2)
        if not np.all((edges >= -np.array(size[::-1])) & (edges <= 2 * np.array(size[::-1]))):
            raise DelfError("an outline that leads far out of its photo; fetch the annotations again")
        corners = edges * _FINER - 0.5  # OpenCV's pixel centres are integers
        if len(corners) >= 3:
            cv2.fillPoly(fine, [np.round(corners * 16).astype(np.int32)], (255,), shift=4)
    return np.asarray(cv2.resize(fine, size[::-1], interpolation=cv2.INTER_AREA)) > 127


def run_length_mask(counts: Sequence[int] | str | bytes, size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """The mask of COCO's run lengths: alternating runs of background and object, column by column.

    Args:
        counts: the run lengths, or COCO's compressed text of them.
        size: (height, width) of the photo.

    Raises:
        DelfError: the runs do not add up to the size of the photo.
    """
    _require_modest(size)
    runs = _decompressed(counts) if isinstance(counts, str | bytes) else counts
    if sum(runs) != size[0] * size[1] or min(runs, default=0) < 0:
        raise DelfError(f"run lengths of {sum(runs)} pixels for a photo of {size[1]} x {size[0]}; fetch them again")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size[1], size[0]).T


def _decompressed(text: str | bytes) -> list[int]:
    """The run lengths of COCO's compressed text.

    Each character minus 48 has five bits of a number, lowest bits first; its sixth bit says that more follow. From the
    fourth run on, a number is the difference to the run two places before.
    """
    code = text.encode() if isinstance(text, str) else text
    runs: list[int] = []
    value = shift = 0
    for character in code:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs


def coco_mask(annotations: Sequence[dict[str, Any]], size: tuple[int, int]) -> UInt8[np.ndarray, "H W"]:
    """The mask of all objects of one COCO photo; crowds are ignored pixels."""
    _require_modest(size)
    mask = np.zeros(size, np.uint8)
    for annotation in sorted(annotations, key=lambda a: not a.get("iscrowd")):
        form = annotation["segmentation"]
        if isinstance(form, dict):
            inside = run_length_mask(form["counts"], (form["size"][0], form["size"][1]))
        else:
            inside = polygon_mask(form, size)
        if inside.shape != mask.shape:
            raise DelfError(f"a mask of {inside.shape} in a photo of {mask.shape}; fetch the annotations again")
        mask[inside] = IGNORED if annotation.get("iscrowd") else 1
    return mask


def voc_mask(indices: Image.Image) -> UInt8[np.ndarray, "H W"]:
    """The mask of VOC's palette picture of objects or classes; 255 marks their borders, which are ignored."""
    values = np.asarray(indices)
    return np.where(values == IGNORED, IGNORED, values > 0).astype(np.uint8)


def grey_mask(votes: Image.Image) -> UInt8[np.ndarray, "H W"]:
    """The mask of CUB's grey picture of how many of five people marked a pixel; object is what most marked."""
    return (np.asarray(votes.convert("L")) > 127).astype(np.uint8)
