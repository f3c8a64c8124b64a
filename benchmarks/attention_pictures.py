"""Draws the strongest features of every scorer side by side on the same photo."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from benchmarks.raw_features import RawFeatures, score
from delf_jax import drawing
from delf_jax.extraction.head import Head
from delf_jax.features import LocalFeatures
from delf_jax.files import atomic
from delf_jax.photos.load import load_photo
from delf_jax.settings import Scorer

_WIDTH = 480
_SHOWN = 100


def write(folder: Path, photos: Sequence[Path], heads: Sequence[Head], cache: Path) -> None:
    """Writes one JPEG per photo: the scorers of the first head side by side, then the learned ones of other heads."""
    scorers: list[tuple[Head, Scorer]] = [(heads[0], scorer) for scorer in heads[0].scorers]
    scorers += [(head, "learned") for head in heads[1:] if "learned" in head.scorers]
    folder.mkdir(parents=True, exist_ok=True)
    for photo, raw in zip(photos, RawFeatures().cached(photos, cache), strict=True):
        pixels = load_photo(photo, max_side=None).pixels
        panels = [draw(pixels, raw, score(raw, head.arrays(), scorer), caption=scorer) for head, scorer in scorers]
        sheet = np.concatenate(panels, axis=1)
        atomic.write_bytes(folder / f"{photo.parent.name}_{photo.stem}.jpg", drawing.to_jpeg(sheet))


def draw(
    pixels: drawing.Picture, raw: LocalFeatures, scores: Float[np.ndarray, " n"], *, caption: str, shown: int = _SHOWN
) -> drawing.Picture:
    """The photo with its ``shown`` strongest features, as circles of the size of their cells; stronger is brighter."""
    zoom = _WIDTH / pixels.shape[1]
    canvas = cv2.resize(pixels, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    best = np.argsort(-scores, kind="stable")[:shown][::-1]
    colours = drawing.colours_of(np.linspace(0.25, 1, len(best)), cv2.COLORMAP_INFERNO)
    for row, colour in zip(best, colours, strict=True):
        centre = (raw.keypoints[row] + 0.5) * zoom - 0.5
        drawing.circle(canvas, centre, max(3.0, 8 * zoom / float(raw.scales[row])), colour, thickness=2)
    return drawing.with_caption(canvas, f"{caption}: {len(best)} strongest of {len(scores)} places")
