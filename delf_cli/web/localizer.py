"""Localization for the page: the map, boxes at any threshold, and the training places that explain a place."""

import base64
import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from delf_cli import result_pictures
from delf_cli.options import UsageError
from delf_cli.web.display_names import display_names
from delf_jax import drawing
from delf_jax.errors import ImageError
from localization import Predictor, draw
from localization.encoders.base import EncodedPhoto
from localization.localizing import localization_of, map_in_pixels
from localization.representers.values import RepresenterPoint

_POINTS = 6


class LocalizedPhoto(NamedTuple):
    """A photo after the encoder, and its map. Boxes at any threshold follow from it without the network."""

    encoded: EncodedPhoto
    row: dict[str, Any]
    label: str | None


class Localizer:
    """Finds the object in a photo and explains it. ``localize`` and ``explain`` are not thread-safe.

    Raises:
        UsageError: the predictor was fitted on feature maps, so it cannot look at photos.
    """

    def __init__(self, predictor: Predictor) -> None:
        if predictor.statistics.encoder.get("kind") == "maps":
            raise UsageError("--predictor was fitted on feature maps; give a predictor that was fitted on photos")
        self._predictor = predictor
        self._encoder = predictor.running_encoder
        self._shown = display_names([*predictor.points.photos.names()] if predictor.points else [])

    def describe(self) -> dict[str, Any]:
        """The classes of the predictor, its default threshold, and whether it can explain places."""
        return {
            "threshold": self._predictor.map_threshold,
            "labels": sorted(self._predictor.statistics.classes),
            "explains": self._predictor.points is not None,
        }

    def localize(self, photo: bytes, label: str | None) -> LocalizedPhoto:
        """Computes the map; ImageError if the photo cannot be used, PredictorError if there is no such class."""
        arguments = {"w": self._predictor.direction(label)}
        ((_, encoded, row),) = self._encoder.run(map_in_pixels, arguments, [("photo", photo)])
        if isinstance(encoded, ImageError):
            raise encoded
        return LocalizedPhoto(encoded, row, label)

    def record(self, localized: LocalizedPhoto, threshold: float) -> dict[str, Any]:
        """Boxes [x0, y0, x1, y1, score] at a threshold, in pixels of the upright photo, highest score first."""
        found = localization_of(
            localized.encoded,
            localized.row,
            threshold=threshold,
            found_threshold=self._predictor.found_threshold_of(localized.label),
            edges=False,
            label=localized.label,
        )
        return {
            "found": found.found,
            "score": found.score,
            "threshold": threshold,
            "boxes": [list(b) for b in found.boxes],
        }

    def heat_map(self, photo: bytes, localized: LocalizedPhoto) -> bytes:
        """JPEG of the map drawn over the photo."""
        height, width = localized.encoded.size
        activation = np.asarray(localized.row["activation"][:height, :width])
        return drawing.to_jpeg(draw.draw_map(result_pictures.load_pixels(photo), activation))

    def explain(self, photo: bytes, at: tuple[float, float]) -> dict[str, Any]:
        """The training places that speak for and against the object at (x, y) of the upright photo."""
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
    """The training photo with a ring around the place, as a data address, so that the page needs no second request."""
    pixels = np.asarray(Image.open(io.BytesIO(thumbnail)).convert("RGB"))
    jpeg = drawing.to_jpeg(draw.mark_place(pixels, point.xy, point.image_size))
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
