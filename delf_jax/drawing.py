"""Drawing that all pictures share: heat maps over photos, captions, sheets, JPEG. Pictures are uint8 RGB arrays."""

import io
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

Picture = UInt8[np.ndarray, "_height _width 3"]

BACKGROUND = (24, 24, 27)
TEXT = (228, 228, 231)
GREEN = (74, 222, 128)
RED = (248, 113, 113)
GAP = 10
CAPTION_HEIGHT = 40

# Fractional bits of the coordinates that cv2 takes: it draws at a sixteenth of a pixel.
SHIFT = 4


def draw_heat(
    pixels: Picture,
    heat: Float[np.ndarray, "rows columns"],
    *,
    origin: tuple[float, float],
    step: tuple[float, float],
    opacity: float = 0.72,
) -> Picture:
    """A map laid over a photo: dark violet where it is lowest, bright yellow where it is highest.

    Args:
        pixels: the photo.
        heat: the map; its lowest value is drawn as no heat, its 99.5 % quantile as full heat.
        origin: (x, y) of the centre of the map's first cell, in pixels of ``pixels``.
        step: distance (x, y) between neighbouring cells, in pixels of ``pixels``.
        opacity: share of the colours in the result, 0 to 1.
    """
    low, high = float(heat.min()), float(np.quantile(heat, 0.995))
    unit = np.clip((heat - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    to_map = np.array([[1 / step[0], 0, -origin[0] / step[0]], [0, 1 / step[1], -origin[1] / step[1]]])
    height, width = pixels.shape[:2]
    smooth = cv2.warpAffine(
        unit,
        to_map,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    colours = colours_of(smooth, cv2.COLORMAP_INFERNO)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    return np.clip(opacity * colours + (1 - opacity) * grey + 0.25 * grey * smooth[..., None], 0, 255).astype(np.uint8)


def stack(pictures: Sequence[Picture]) -> Picture:
    """Pictures of any width, one below the other, for example a query and its best results; needs at least one."""
    if not pictures:
        raise ValueError("nothing to stack; give at least one picture")
    width = max(picture.shape[1] for picture in pictures)
    height = sum(picture.shape[0] for picture in pictures) + GAP * (len(pictures) - 1)
    sheet = np.full((height, width, 3), BACKGROUND, np.uint8)
    y = 0
    for picture in pictures:
        sheet[y : y + picture.shape[0], : picture.shape[1]] = picture
        y += picture.shape[0] + GAP
    return sheet


def with_caption(picture: Picture, text: str, *, accepted: bool | None = None) -> Picture:
    """The picture above one line of text; ``accepted`` puts a green (True) or red dot before the text."""
    strip = Image.new("RGB", (picture.shape[1], CAPTION_HEIGHT), BACKGROUND)
    pen, middle, x = ImageDraw.Draw(strip), CAPTION_HEIGHT // 2, 14
    if accepted is not None:
        pen.ellipse((x, middle - 6, x + 12, middle + 6), fill=GREEN if accepted else RED)
        x += 24
    pen.text((x, middle), text, fill=TEXT, anchor="lm", font=ImageFont.load_default(size=17))
    return np.concatenate([picture, np.asarray(strip)])


def to_jpeg(picture: Picture, *, quality: int = 85) -> bytes:
    """The picture as a JPEG file."""
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", quality=quality, optimize=True)
    return encoded.getvalue()


def colours_of(values: Float[np.ndarray, "..."], colormap: int) -> UInt8[np.ndarray, "... 3"]:
    """RGB colours of values from 0 to 1; ``colormap`` is one of ``cv2.COLORMAP_*``."""
    flat = np.round(255 * np.asarray(values, np.float64)).astype(np.uint8).reshape(-1, 1)
    return cv2.applyColorMap(flat, colormap)[:, 0, ::-1].reshape(*np.shape(values), 3)


def fixed_point(point: Float[np.ndarray, " 2"]) -> tuple[int, int]:
    """(x, y) in sixteenths of a pixel, as cv2 takes it together with ``SHIFT``."""
    return round(float(point[0]) * 2**SHIFT), round(float(point[1]) * 2**SHIFT)


def circle(
    canvas: Picture,
    centre: Float[np.ndarray, " 2"],
    radius: float,
    colour: UInt8[np.ndarray, " 3"],
    *,
    thickness: int = 1,
) -> None:
    """Draws a circle into the picture; centre (x, y) and radius in pixels."""
    cv2.circle(canvas, fixed_point(centre), round(radius * 2**SHIFT), colour.tolist(), thickness, cv2.LINE_AA, SHIFT)
