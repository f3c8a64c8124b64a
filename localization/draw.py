"""Pictures of localizations and explanations: maps with boxes, and training photos with marked places."""

import io
import os
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from delf_jax.drawing import (
    BACKGROUND,
    GAP,
    GREEN,
    SHIFT,
    TEXT,
    Picture,
    circle,
    draw_heat,
    fixed_point,
    stack,
    with_caption,
)
from localization.localizing import Localization
from localization.maps.cells import Place
from localization.representers.explain import Explanation
from localization.representers.values import RepresenterPoint

WHITE = (255, 255, 255)
BLACK = (0, 0, 0)
_GREY = 128
SHOWN = 6
_TILE = 168
_TEXT_HEIGHT = 98
_MARK = 12.0


def draw_localization(pixels: Picture, found: Localization) -> Picture:
    """The photo with its map as an overlay and its boxes; the first box has a thicker line.

    Args:
        pixels: the photo, of any size.
        found: its result from ``Predictor.localize``.
    """
    height, width = pixels.shape[:2]
    canvas = draw_map(pixels, found.activation)
    ratio = np.array([width / found.image_size[1], height / found.image_size[0]] * 2)
    for number, box in reversed(list(enumerate(found.boxes))):
        _rectangle(canvas, np.array(box[:4]) * ratio, GREEN, thickness=4 if number == 0 else 2)
    return canvas


def draw_map(pixels: Picture, activation: Float[np.ndarray, "h w"]) -> Picture:
    """The photo, of any size, with ``Localization.activation`` as an overlay."""
    step = pixels.shape[1] / activation.shape[1], pixels.shape[0] / activation.shape[0]
    return draw_heat(pixels, activation, origin=((step[0] - 1) / 2, (step[1] - 1) / 2), step=step)


def backdrop(found: Localization) -> Picture:
    """A grey picture in place of an unknown photo, for feature maps; 8 x 8 pixels for each pixel of the map."""
    height, width = found.activation.shape
    return np.full((8 * height, 8 * width, 3), _GREY, np.uint8)


def number_masks(found: Localization) -> UInt8[np.ndarray, "H W"]:
    """Masks as one picture in pixels of the upright original photo: n in the region of box n (from 1), else 0.

    Regions from the 255th on, all of them small, share the number 255.
    """
    numbers = np.zeros(found.activation.shape, np.uint8)
    for number, mask in reversed(list(enumerate(found.masks, start=1))):
        numbers[mask] = min(number, 255)
    height, width = found.image_size
    return np.asarray(cv2.resize(numbers, (width, height), interpolation=cv2.INTER_NEAREST))


def draw_explanation(
    pixels: Picture,
    found: Localization,
    explanation: Explanation,
    where: Place = None,
    *,
    shown: int = SHOWN,
    height: int = 400,
) -> Picture:
    """One picture: the photo and its map with the place marked, and a row of training places for each sign.

    Args:
        pixels: the photo, of any size.
        found: its localization, for the map.
        explanation: from ``Predictor.explain`` for ``where``.
        where: (x, y) or box [x0, y0, x1, y1] in pixels of the original photo; None for the whole photo.
        shown: number of training places in a row.
        height: height of the photo in the picture, in pixels.
    """
    photo = cv2.resize(pixels, (max(1, round(pixels.shape[1] * height / pixels.shape[0])), height))
    panels = [mark_place(panel, where, found.image_size) for panel in (photo, draw_map(photo, found.activation))]
    top = np.full((height, 2 * photo.shape[1] + GAP, 3), BACKGROUND, np.uint8)
    top[:, : photo.shape[1]], top[:, photo.shape[1] + GAP :] = panels
    width = max(top.shape[1], shown * (_TILE + GAP) - GAP)
    rows = [top]
    for points, excitatory, text in (
        (explanation.excitatory, True, "Training places that make it foreground"),
        (explanation.inhibitory, False, "Training places that hold it back"),
    ):
        rows.append(with_caption(np.zeros((0, width, 3), np.uint8), text, accepted=excitatory))
        rows.append(draw_points(points[:shown]))
    return stack(rows)


def draw_points(points: Sequence[RepresenterPoint]) -> Picture:
    """A row of tiles: each training photo with its place marked, and the numbers of the place below."""
    row = np.full((_TILE + _TEXT_HEIGHT, max(len(points), 1) * (_TILE + GAP) - GAP, 3), BACKGROUND, np.uint8)
    for number, point in enumerate(points):
        x = number * (_TILE + GAP)
        row[:, x : x + _TILE] = _tile(point)
    return row


def mark_place(picture: Picture, where: Place, image_size: tuple[int, int]) -> Picture:
    """A copy of the picture with a place marked by a ring or a box.

    Args:
        picture: the photo, of any size.
        where: (x, y) or box [x0, y0, x1, y1] in pixels of the original photo; None marks nothing.
        image_size: (height, width) of the original photo.
    """
    marked = picture.copy()
    if where is None:
        return marked
    ratio = np.array([picture.shape[1] / image_size[1], picture.shape[0] / image_size[0]])
    if len(where) == 4:
        box = np.array(where) * np.tile(ratio, 2)
        _rectangle(marked, box, BLACK, thickness=4)
        _rectangle(marked, box, WHITE, thickness=2)
        return marked
    centre = (np.array(where) + 0.5) * ratio - 0.5
    for colour, thickness in ((BLACK, 5), (WHITE, 2)):
        circle(marked, centre, _MARK, np.array(colour, np.uint8), thickness=thickness)
    return marked


def _tile(point: RepresenterPoint) -> Picture:
    tile = np.full((_TILE, _TILE, 3), BACKGROUND, np.uint8)
    if point.thumbnail is not None:
        photo = np.asarray(Image.open(io.BytesIO(point.thumbnail)).convert("RGB"))
        scale = _TILE / max(photo.shape[:2])
        size = [max(1, round(side * scale)) for side in photo.shape[1::-1]]
        photo = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC))
        tile[: photo.shape[0], : photo.shape[1]] = mark_place(photo, point.xy, point.image_size)
    text = Image.new("RGB", (_TILE, _TEXT_HEIGHT), BACKGROUND)
    lines = [
        os.path.basename(point.image),
        f"share {point.share:.1%}, together {point.cumulative:.1%}",
        f"value {point.value:+.2e}",
        f"cosine {point.similarity:.2f}",
        f"importance {point.importance:+.2e}",
    ]
    pen, font = ImageDraw.Draw(text), ImageFont.load_default(size=13)
    for number, line in enumerate(lines):
        pen.text((2, 6 + 18 * number), line, fill=TEXT, font=font)
    return np.concatenate([tile, np.asarray(text)])


def _rectangle(
    picture: Picture, edges: Float[np.ndarray, " 4"], colour: tuple[int, int, int], *, thickness: int
) -> None:
    corners = edges - 0.5  # edges to the coordinates of pixel centres
    cv2.rectangle(picture, fixed_point(corners[:2]), fixed_point(corners[2:]), colour, thickness, cv2.LINE_AA, SHIFT)
