"""The evaluation protocols: how photos are prepared for the encoder, and in which coordinates boxes are compared."""

from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from delf_jax.errors import ImageError
from localization.encoders.base import Source
from localization.encoders.callable_encoder import squash
from localization.evaluation.annotated_photo import AnnotatedPhoto, Edges
from localization.evaluation.metrics import BoxConvention, inclusive_box
from localization.grid import Grid, aligned_corners
from localization.maps.boxes import best_box, largest_boxes


class CropProtocol(NamedTuple):
    """Photos resized to ``resize`` x ``resize`` without keeping their shape, then cropped to the central square.

    This is the protocol of the official code of Song et al. The code of wsolevaluation differs: it truncates true
    boxes, which the official code rounds, and clips the boxes that were found to the photo.

    Attributes:
        name: name of the protocol.
        resize: side of the resized photo in pixels.
        crop: side of the central square in pixels.
        fit_side: training photos are resized to this side, and not cropped.
        wsolevaluation: whether to follow wsolevaluation instead of the official code.
        convention: convention of the boxes.
        measure: name of the share of photos whose box is right.
    """

    name: str
    resize: int
    crop: int
    fit_side: int | None = 224
    wsolevaluation: bool = False
    convention: BoxConvention = "inclusive"
    measure: str = "GT-Known"

    def prepare(self, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "s s 3"]:
        """The photo for the encoder."""
        return self._cropped(squash(pixels, self.resize))

    def true_boxes(
        self, boxes: Sequence[Edges], original_size: tuple[int, int], encoded_size: tuple[int, int]
    ) -> Float[np.ndarray, "n 4"]:
        """True boxes as pixel indices of the crop: scaled, shifted, made integers and clipped to [0, crop - 1]."""
        scale = np.array([self.resize / original_size[1], self.resize / original_size[0]] * 2)
        to_integer = np.trunc if self.wsolevaluation else np.round
        return np.clip(to_integer(np.array(boxes) * scale - self._margin), 0, self.crop - 1)

    def true_mask(self, mask: UInt8[np.ndarray, "H W"], encoded_size: tuple[int, int]) -> UInt8[np.ndarray, "s s"]:
        """A true mask in the crop, with nearest-neighbour interpolation."""
        return self._cropped(cv2.resize(mask, (self.resize, self.resize), interpolation=cv2.INTER_NEAREST))

    def found_boxes(
        self, activation: Float[np.ndarray, "h w"], cosines: tuple[float, float], thresholds: Iterable[float]
    ) -> list[Sequence[float] | None]:
        """The box that is compared at each map threshold: around the largest contour, as edges in the crop."""
        found = largest_boxes(activation, thresholds)
        if not self.wsolevaluation:
            return [*found]
        height, width = activation.shape
        return [inclusive_box(box, width, height) if box else (0, 0, 0, 0) for box in found]

    def grid(self, grid: Grid, cells_hw: Int[np.ndarray, "2"], encoded_size: tuple[int, int]) -> Grid:
        """Where the official code draws the cells of a map, whatever their receptive fields are."""
        return aligned_corners(cells_hw, np.array(encoded_size))

    @property
    def _margin(self) -> int:
        return (self.resize - self.crop) // 2

    def _cropped(self, squashed: np.ndarray) -> np.ndarray:
        return squashed[self._margin : self._margin + self.crop, self._margin : self._margin + self.crop]


class FullProtocol(NamedTuple):
    """Whole photos in their own shape, reduced by the encoder; boxes are edges.

    A photo counts if the box meets any of its objects (CorLoc). The attributes are those of ``CropProtocol``.
    """

    name: str = "full"
    fit_side: int | None = None
    convention: BoxConvention = "edges"
    measure: str = "CorLoc"

    def prepare(self, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The photo, unchanged."""
        return pixels

    def true_boxes(
        self, boxes: Sequence[Edges], original_size: tuple[int, int], encoded_size: tuple[int, int]
    ) -> Float[np.ndarray, "n 4"]:
        """True boxes in pixels of the reduced photo."""
        return np.array(boxes) * np.array([encoded_size[1] / original_size[1], encoded_size[0] / original_size[0]] * 2)

    def true_mask(self, mask: UInt8[np.ndarray, "H W"], encoded_size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
        """A true mask in the reduced photo, with nearest-neighbour interpolation."""
        return cv2.resize(mask, encoded_size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8)

    def found_boxes(
        self, activation: Float[np.ndarray, "h w"], cosines: tuple[float, float], thresholds: Iterable[float]
    ) -> list[Sequence[float] | None]:
        """The box that is compared at each map threshold: the first one that ``Predictor.localize`` gives.

        Args:
            activation: the map in pixels, 0 to 1.
            cosines: the cosines that 0 and 1 stand for.
            thresholds: shares of the map's maximum.
        """
        return [best_box(activation, threshold, cosines=cosines) for threshold in thresholds]

    def grid(self, grid: Grid, cells_hw: Int[np.ndarray, "2"], encoded_size: tuple[int, int]) -> Grid:
        """Where the cells of a map lie: the centres of their receptive fields."""
        return grid


Protocol = CropProtocol | FullProtocol

OFFICIAL_FINE_GRAINED = CropProtocol("fine-grained", 480, 448)
OFFICIAL_IMAGENET = CropProtocol("imagenet", 256, 224)
WSOLEVALUATION = CropProtocol("wsolevaluation", 224, 224, wsolevaluation=True)
FULL = FullProtocol()
PROTOCOLS: Mapping[str, Protocol] = {
    p.name: p for p in (OFFICIAL_FINE_GRAINED, OFFICIAL_IMAGENET, WSOLEVALUATION, FULL)
}


class FittingPhotos(Mapping[str, Source]):
    """Annotated photos by path, for ``localization.fit``; each is read when it is needed.

    ``items()`` leaves out photos that cannot be read, and puts their errors into ``failed``.

    Args:
        photos: training photos.
        side: photos are resized to ``side`` x ``side`` without keeping their shape; None leaves them unchanged.
    """

    def __init__(self, photos: Sequence[AnnotatedPhoto], *, side: int | None) -> None:
        self._photos = {str(photo.path): photo for photo in photos}
        self._side = side
        self.failed: dict[str, ImageError] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        pixels = self._photos[name].load().pixels
        return pixels if self._side is None else squash(pixels, self._side)

    def __iter__(self) -> Iterator[str]:
        return iter(self._photos)

    def __len__(self) -> int:
        return len(self._photos)

    def items(self) -> "_Readable":
        return _Readable(self)


class _Readable(ItemsView[str, Source]):
    def __init__(self, photos: FittingPhotos) -> None:
        super().__init__(photos)
        self._photos = photos

    def __iter__(self) -> Iterator[tuple[str, Source]]:
        for name in self._photos:
            try:
                photo = self._photos[name]
            except ImageError as error:
                self._photos.failed[name] = error
                continue
            yield name, photo
