"""Localization as the page shows it: a map, boxes at any threshold, and the training places behind a place."""

import base64
import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from delf_cli import pictures
from delf_cli.options import UsageError
from delf_cli.web.names import shown_names
from delf_jax import drawing
from delf_jax.errors import ImageError
from localization import Predictor, draw
from localization.encoders.base import EncodedPhoto
from localization.localizing import localization_of, map_in_pixels
from localization.representers.explain import RepresenterPoint

_POINTS = 6


class Looked(NamedTuple):
    """A photo as the predictor's encoder saw it, and its map: boxes at any threshold follow without the network."""

    encoded: EncodedPhoto
    row: dict[str, Any]
    label: str | None


class Locator:
    """Answers where the object is and why; ``look`` and ``explain`` are not for several threads at once.

    Raises:
        UsageError: the predictor was fitted on feature maps, which a page has none of.
    """

    def __init__(self, predictor: Predictor) -> None:
        if predictor.statistics.encoder.get("kind") == "maps":
            raise UsageError("--predictor was fitted on feature maps; the page needs one that was fitted on photos")
        self._predictor = predictor
        self._encoder = predictor.running_encoder
        self._shown = shown_names([*predictor.points.photos.names()] if predictor.points else [])

    def describe(self) -> dict[str, Any]:
        """What can be asked: classes to look for, the threshold to begin with, whether places can be explained."""
        return {
            "threshold": self._predictor.map_threshold,
            "labels": sorted(self._predictor.statistics.classes),
            "explains": self._predictor.points is not None,
        }

    def look(self, photo: bytes, label: str | None) -> Looked:
        """Computes the map; ImageError where the photo cannot be used, PredictorError where there is no such class."""
        arguments = {"w": self._predictor.direction(label)}
        ((_, encoded, row),) = self._encoder.run(map_in_pixels, arguments, [("photo", photo)])
        if isinstance(encoded, ImageError):
            raise encoded
        return Looked(encoded, row, label)

    def record(self, looked: Looked, threshold: float) -> dict[str, Any]:
        """Boxes [x0, y0, x1, y1, score] at a threshold in pixels of the upright photo, largest first."""
        found = localization_of(
            looked.encoded,
            looked.row,
            threshold=threshold,
            found_threshold=self._predictor.found_threshold,
            edges=False,
            label=looked.label,
        )
        return {
            "found": found.found,
            "score": found.score,
            "threshold": threshold,
            "boxes": [list(b) for b in found.boxes],
        }

    def heat(self, photo: bytes, looked: Looked) -> bytes:
        """JPEG of the map laid over the photo."""
        height, width = looked.encoded.size
        activation = np.asarray(looked.row["activation"][:height, :width])
        return drawing.to_jpeg(draw.draw_map(pictures.pixels_of(photo), activation))

    def explain(self, photo: bytes, at: tuple[float, float]) -> dict[str, Any]:
        """The training places that make (x, y) of the upright photo foreground, and those that hold it back."""
        explained = self._predictor.explain(photo, at, top=_POINTS)
        return {
            "value": explained.value,
            "excitatory": [self._point(point) for point in explained.excitatory],
            "inhibitory": [self._point(point) for point in explained.inhibitory],
        }

    def _point(self, point: RepresenterPoint) -> dict[str, Any]:
        return {
            "name": self._shown[point.image],
            "label": point.label,
            "xy": point.xy,
            "importance": point.importance,
            "similarity": point.similarity,
            "value": point.value,
            "share": point.share,
            "thumbnail": None if point.thumbnail is None else _marked(point.thumbnail, point),
        }


def _marked(thumbnail: bytes, point: RepresenterPoint) -> str:
    """The training photo with a ring around the place, as a data address: nothing to ask for again, or to forget."""
    pixels = np.asarray(Image.open(io.BytesIO(thumbnail)).convert("RGB"))
    jpeg = drawing.to_jpeg(draw.mark_place(pixels, point.xy, point.image_size))
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
