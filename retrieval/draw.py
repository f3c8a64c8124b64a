"""The one way to draw what was found: keypoints, attention, matches and their proof, as plain RGB pictures."""

import dataclasses
import io
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from delf_jax.features import LocalFeatures

Picture = UInt8[np.ndarray, "_height _width 3"]

BACKGROUND = (24, 24, 27)
TEXT = (228, 228, 231)
GREEN = (74, 222, 128)
RED = (248, 113, 113)
GAP = 10
CAPTION_HEIGHT = 40

# cv2 draws at a sixteenth of a pixel.
SHIFT = 4

# Radius of a feature's circle in pixels of the scaled photo where it was found: half the spacing of conv4's cells.
CELL_RADIUS = 8.0


@dataclasses.dataclass(frozen=True)
class Panel:
    """A photo as it is drawn, with its features.

    Attributes:
        pixels: uint8 [h, w, 3] RGB, upright; may be smaller than the photo.
        features: its LocalFeatures; their coordinates belong to the original of ``features.image_size``.
    """

    pixels: Picture
    features: LocalFeatures

    def resized(self, height: int) -> "Panel":
        """The same photo drawn ``height`` pixels high."""
        width = max(1, round(self.pixels.shape[1] * height / self.pixels.shape[0]))
        shrinks = height < self.pixels.shape[0]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return dataclasses.replace(self, pixels=cv2.resize(self.pixels, (width, height), interpolation=method))

    def to_picture(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Moves (x, y) from pixels of the original photo to pixels of ``pixels``."""
        return (points + 0.5) * self._ratio() - 0.5

    def radii(self) -> Float[np.ndarray, " n"]:
        """Radius of each keypoint's circle in pixels of ``pixels``; a feature of a smaller scale saw more."""
        return CELL_RADIUS / np.asarray(self.features.scales, np.float64) * self._ratio().mean()

    def _ratio(self) -> Float[np.ndarray, " 2"]:
        height, width = self.features.image_size
        return np.array([self.pixels.shape[1] / width, self.pixels.shape[0] / height])


def draw_keypoints(panel: Panel, *, most: int = 400) -> Picture:
    """The photo with a circle around each of its strongest features, sized by scale and coloured by score.

    Colours run from violet (weakest of those drawn) to yellow (strongest); the strongest lie on top.
    """
    canvas = panel.pixels // 2 + 24  # bright photos would swallow the circles
    count = min(most, len(panel.features))
    centres = panel.to_picture(np.asarray(panel.features.keypoints, np.float64))
    radii = panel.radii()
    ramp = _colours(np.linspace(1.0, 0.25, count), cv2.COLORMAP_PLASMA)
    for i in reversed(range(count)):
        _circle(canvas, centres[i], max(2.0, float(radii[i])), ramp[i], thickness=2)
    return canvas


def draw_heat(
    pixels: Picture,
    heat: Float[np.ndarray, "rows columns"],
    *,
    origin: tuple[float, float],
    step: tuple[float, float],
    opacity: float = 0.72,
) -> Picture:
    """Lays a map over a photo: dark violet where it is lowest, bright yellow where it is highest.

    Args:
        pixels: the photo.
        heat: the map; its lowest value counts as no heat, its 99.5 % quantile as full heat.
        origin: (x, y) of the centre of the map's first cell, in pixels of ``pixels``.
        step: distance between neighbouring cells along x and y, in pixels of ``pixels``.
        opacity: share of the colour in the result.
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
    colours = _colours(smooth, cv2.COLORMAP_INFERNO)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    return np.clip(opacity * colours + (1 - opacity) * grey + 0.25 * grey * smooth[..., None], 0, 255).astype(np.uint8)


def draw_matches(
    left: Panel,
    right: Panel,
    left_points: Float[np.ndarray, "k 2"],
    right_points: Float[np.ndarray, "k 2"],
    *,
    where: Bool[np.ndarray, " k"] | None = None,
    caption: str = "",
    accepted: bool | None = None,
    height: int = 480,
) -> Picture:
    """Both photos side by side, a line for each inlier, all keypoints as faint circles sized by scale.

    Args:
        left: the query.
        right: the photo that it is compared with.
        left_points: (x, y) of each match in pixels of the left original.
        right_points: the same in the right original, row by row.
        where: which matches are inliers; the others are not drawn. None draws all.
        caption: a line of text below the photos; no text, no line.
        accepted: puts a green or red dot before the caption; None puts none.
        height: height of the photos in the picture, in pixels.

    Returns:
        uint8 [height (+ caption), left + gap + right, 3]. A line's colour tells where in the left photo it starts.
    """
    panels = left.resized(height), right.resized(height)
    shift = panels[0].pixels.shape[1] + GAP
    canvas = np.full((height, shift + panels[1].pixels.shape[1], 3), BACKGROUND, np.uint8)
    for panel, x in zip(panels, (0, shift), strict=True):
        canvas[:, x : x + panel.pixels.shape[1]] = _with_faint_keypoints(panel)
    keep = np.ones(len(left_points), bool) if where is None else where
    starts = panels[0].to_picture(left_points[keep].astype(np.float64))
    ends = panels[1].to_picture(right_points[keep].astype(np.float64)) + np.array([shift, 0.0])
    colours = _position_colours(starts)
    lines = canvas.copy()
    for start, end, colour in zip(starts, ends, colours, strict=True):
        cv2.line(lines, _fixed(start), _fixed(end), colour.tolist(), 2, cv2.LINE_AA, SHIFT)
    # Many lines would hide the photos that they are to explain.
    opacity = float(np.clip(30 / max(len(starts), 1), 0.28, 0.85))
    canvas = cv2.addWeighted(lines, opacity, canvas, 1 - opacity, 0)
    for point, colour in zip(np.concatenate([starts, ends]), np.concatenate([colours, colours])):
        _circle(canvas, point, 4.0, np.zeros(3, np.uint8), thickness=cv2.FILLED)
        _circle(canvas, point, 3.0, colour, thickness=cv2.FILLED)
    return with_caption(canvas, caption, accepted=accepted) if caption else canvas


def stack(pictures: Sequence[Picture]) -> Picture:
    """Pictures of any width one below the other: how a query and its best results are shown on one sheet."""
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
    """The picture above one line of text, after a green (accepted) or red dot where ``accepted`` is given."""
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


def proof(inliers: int, log10_nfa: float, *, accepted: bool) -> str:
    """The caption of a verified match.

    >>> proof(57, -48.21, accepted=True)
    '57 inliers, log10 NFA -48.2, accepted'
    """
    return f"{inliers} inliers, log10 NFA {log10_nfa:.1f}, {'accepted' if accepted else 'refused'}"


def _with_faint_keypoints(panel: Panel) -> Picture:
    drawn = panel.pixels.copy()
    centres = panel.to_picture(np.asarray(panel.features.keypoints, np.float64))
    white = np.array([255, 255, 255], np.uint8)
    for centre, radius in zip(centres, panel.radii()):
        _circle(drawn, centre, max(1.5, float(radius)), white)
    return cv2.addWeighted(drawn, 0.16, panel.pixels, 0.84, 0)


def _colours(values: Float[np.ndarray, "..."], colormap: int) -> UInt8[np.ndarray, "... 3"]:
    """RGB of values in 0 to 1."""
    flat = np.round(255 * np.asarray(values, np.float64)).astype(np.uint8).reshape(-1, 1)
    return cv2.applyColorMap(flat, colormap)[:, 0, ::-1].reshape(*np.shape(values), 3)


def _position_colours(points: Float[np.ndarray, "n 2"]) -> UInt8[np.ndarray, "n 3"]:
    """Neighbours get like colours, so that a line can be followed: hue from x, saturation from y, over their extent."""
    if not len(points):
        return np.zeros((0, 3), np.uint8)
    extent = np.maximum(np.ptp(points, axis=0), 1e-6)
    x, y = ((points - points.min(axis=0)) / extent).T
    hsv = np.stack([160 * x, 110 + 110 * y, np.full(len(points), 255)], axis=-1).astype(np.uint8)
    return cv2.cvtColor(hsv[:, None], cv2.COLOR_HSV2RGB)[:, 0]


def _fixed(point: Float[np.ndarray, " 2"]) -> tuple[int, int]:
    return round(float(point[0]) * 2**SHIFT), round(float(point[1]) * 2**SHIFT)


def _circle(
    canvas: Picture,
    centre: Float[np.ndarray, " 2"],
    radius: float,
    colour: UInt8[np.ndarray, " 3"],
    *,
    thickness: int = 1,
) -> None:
    cv2.circle(canvas, _fixed(centre), round(radius * 2**SHIFT), colour.tolist(), thickness, cv2.LINE_AA, SHIFT)
