"""Boxes and masks from a map in pixels."""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8


class Box(NamedTuple):
    """A box [x0, y0, x1, y1] of pixel edges, and its score: the mean cosine of its region times its share of the photo.

    Scores rank the objects of one photo and of many photos.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    score: float


class Region(NamedTuple):
    """One connected region of a thresholded map: its box, and bool [H, W], its pixels without holes."""

    box: Box
    mask: Bool[np.ndarray, "H W"]


def threshold_map(activation: Float[np.ndarray, "H W"], threshold: float) -> UInt8[np.ndarray, "H W"]:
    """255 where the map in 8 bits is above int(threshold * its maximum), as in the official code; 0 elsewhere."""
    return _above(_in_8_bits(activation), threshold)


def _in_8_bits(activation: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    return (np.clip(activation, 0, 1) * 255).astype(np.uint8)


def _above(grey: UInt8[np.ndarray, "H W"], threshold: float) -> UInt8[np.ndarray, "H W"]:
    return np.asarray(cv2.threshold(grey, int(threshold * grey.max()), 255, cv2.THRESH_BINARY)[1])


def find_regions(
    activation: Float[np.ndarray, "H W"],
    threshold: float,
    *,
    cosines: tuple[float, float] = (0.0, 1.0),
    minimum_area: float = 0.0,
) -> list[Region]:
    """The connected regions above a threshold, highest score first.

    Args:
        activation: float32 [H, W] in 0-1, a map in pixels.
        threshold: share of the map's maximum, 0 to 1.
        cosines: the cosines that activations of 0 and 1 stand for.
        minimum_area: regions below this share of the photo are left out; the first one is always kept.
    """
    labels, areas, boxes = _scored(activation, threshold, cosines)
    order = sorted(range(len(boxes)), key=lambda number: -boxes[number].score)
    kept = [
        number for place, number in enumerate(order) if not place or areas[number] >= minimum_area * activation.size
    ]
    return [Region(boxes[number], labels == number + 1) for number in kept]


def best_box(
    activation: Float[np.ndarray, "H W"], threshold: float, *, cosines: tuple[float, float] = (0.0, 1.0)
) -> Box | None:
    """The first box of ``find_regions``; None if nothing is above the threshold."""
    return max(_scored(activation, threshold, cosines)[2], key=lambda box: box.score, default=None)


def _scored(
    activation: Float[np.ndarray, "H W"], threshold: float, cosines: tuple[float, float]
) -> tuple[Int[np.ndarray, "H W"], Int[np.ndarray, " n"], list[Box]]:
    """The number of each pixel's region, 0 for none; area in pixels and box of region 1, 2 and so on."""
    above = threshold_map(activation, threshold)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    sums = np.bincount(labels.reshape(-1), activation.reshape(-1), minlength=count)[1:]
    low, high = cosines
    boxes = []
    for (x, y, w, h, area), total in zip(statistics[1:].tolist(), sums.tolist()):
        boxes.append(Box(x, y, x + w, y + h, (low * area + total * (high - low)) / activation.size))
    return np.asarray(labels), np.asarray(statistics[1:, cv2.CC_STAT_AREA]), boxes


def largest_boxes(
    activation: Float[np.ndarray, "H W"], thresholds: Iterable[float]
) -> list[tuple[int, int, int, int] | None]:
    """Edges [x0, y0, x1, y1] around the largest contour at each threshold, as in the official code of Song et al.

    None where nothing is above the threshold.
    """
    grey = _in_8_bits(activation)
    found: list[tuple[int, int, int, int] | None] = []
    for threshold in thresholds:
        contours = _outer_contours(_above(grey, threshold))
        if contours:
            x, y, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea))
            found.append((x, y, x + w, y + h))
        else:
            found.append(None)
    return found


def _outer_contours(above: UInt8[np.ndarray, "H W"]) -> list[np.ndarray]:
    contours, hierarchy = cv2.findContours(above, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    # Contours with a parent are holes.
    return [np.asarray(c) for c, (_, _, _, parent) in zip(contours, hierarchy[0]) if parent < 0] if contours else []


def rescale_box(box: Box, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Box:
    """The box in a photo of (height, width) ``from_hw``, scaled to the same photo in ``to_hw``."""
    sy, sx = to_hw[0] / from_hw[0], to_hw[1] / from_hw[1]
    return Box(box.x0 * sx, box.y0 * sy, box.x1 * sx, box.y1 * sy, box.score)


def mask_box(mask: Bool[np.ndarray, "H W"], score: float) -> Box:
    """The bounding box of a mask, which must not be empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1, score)
