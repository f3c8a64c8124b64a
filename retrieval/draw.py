"""Pictures of keypoints and of verified matches, as RGB arrays."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from delf_jax.drawing import BACKGROUND, GAP, SHIFT, Picture, circle, colours_of, fixed_point, with_caption
from delf_jax.features import LocalFeatures

__all__ = ["Panel", "draw_keypoints", "draw_matches", "proof"]

# Radius of a feature's circle, in pixels of the scaled photo in which it was found: half a cell of conv4.
CELL_RADIUS = 8.0


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """A photo to draw, with its features.

    Attributes:
        pixels: uint8 [h, w, 3] RGB, upright; may be smaller than the photo.
        features: of the photo; their coordinates are pixels of the original, whose size is ``features.image_size``.
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
        """Radius of each keypoint's circle in pixels of ``pixels``; features of smaller scales have larger circles."""
        return CELL_RADIUS / np.asarray(self.features.scales, np.float64) * self._ratio().mean()

    def _ratio(self) -> Float[np.ndarray, " 2"]:
        height, width = self.features.image_size
        return np.array([self.pixels.shape[1] / width, self.pixels.shape[0] / height])


def draw_keypoints(panel: Panel, *, most: int = 400) -> Picture:
    """The photo with a circle around each of its ``most`` strongest features, sized by scale and coloured by score.

    Colours go from violet (weakest of those drawn) to yellow (strongest); the strongest are on top.
    """
    canvas = panel.pixels // 2 + 24  # circles are hard to see on bright photos
    count = min(most, len(panel.features))
    centres = panel.to_picture(np.asarray(panel.features.keypoints, np.float64))
    radii = panel.radii()
    ramp = colours_of(np.linspace(1.0, 0.25, count), cv2.COLORMAP_PLASMA)
    for i in reversed(range(count)):
        circle(canvas, centres[i], max(2.0, float(radii[i])), ramp[i], thickness=2)
    return canvas


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
    """Both photos side by side, with a line for each inlier and all keypoints as faint circles sized by scale.

    Args:
        left: the query.
        right: the photo that it is compared with.
        left_points: (x, y) of each match in pixels of the left original.
        right_points: the same in the right original, row by row.
        where: which matches are inliers; the others are not drawn. None draws all.
        caption: text below the photos; no line is added if it is empty.
        accepted: puts a green or red dot before the caption; None puts none.
        height: height of the photos in the picture, in pixels.

    Returns:
        uint8 [height (+ caption), left + gap + right, 3]. The colour of a line shows where in the left photo it starts.
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
        cv2.line(lines, fixed_point(start), fixed_point(end), colour.tolist(), 2, cv2.LINE_AA, SHIFT)
    # Many opaque lines would hide the photos.
    opacity = float(np.clip(30 / max(len(starts), 1), 0.28, 0.85))
    canvas = cv2.addWeighted(lines, opacity, canvas, 1 - opacity, 0)
    for point, colour in zip(np.concatenate([starts, ends]), np.concatenate([colours, colours])):
        circle(canvas, point, 4.0, np.zeros(3, np.uint8), thickness=cv2.FILLED)
        circle(canvas, point, 3.0, colour, thickness=cv2.FILLED)
    return with_caption(canvas, caption, accepted=accepted) if caption else canvas


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
        circle(drawn, centre, max(1.5, float(radius)), white)
    return cv2.addWeighted(drawn, 0.16, panel.pixels, 0.84, 0)


def _position_colours(points: Float[np.ndarray, "n 2"]) -> UInt8[np.ndarray, "n 3"]:
    """Similar colours for neighbouring points, so that the eye can follow a line: hue from x, saturation from y."""
    if not len(points):
        return np.zeros((0, 3), np.uint8)
    extent = np.maximum(np.ptp(points, axis=0), 1e-6)
    x, y = ((points - points.min(axis=0)) / extent).T
    hsv = np.stack([160 * x, 110 + 110 * y, np.full(len(points), 255)], axis=-1).astype(np.uint8)
    return cv2.cvtColor(hsv[:, None], cv2.COLOR_HSV2RGB)[:, 0]
