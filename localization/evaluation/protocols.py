"""How benchmarks show photos to the encoder, and in which frame and convention boxes are then compared."""

from collections.abc import ItemsView, Iterator, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from delf_jax.errors import ImageError
from localization.encoders.encoders import Source, squash
from localization.evaluation.datasets import Annotated, Edges
from localization.evaluation.metrics import BoxConvention, inclusive_box


class CropProtocol(NamedTuple):
    """Resize((resize, resize)) squashed, then the central ``crop`` x ``crop`` (localization spec 1.6).

    wsolevaluation truncates true boxes where the official code rounds them, and keeps found boxes inside the photo.
    """

    name: str
    resize: int
    crop: int
    fit_side: int | None = 224
    wsolevaluation: bool = False
    convention: BoxConvention = "inclusive"
    measure: str = "GT-Known"

    def shown(self, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "s s 3"]:
        """The photo as the encoder gets it."""
        return self._cropped(squash(pixels, self.resize))

    def true_boxes(
        self, boxes: Sequence[Edges], original: tuple[int, int], seen: tuple[int, int]
    ) -> Float[np.ndarray, "n 4"]:
        """True boxes as pixel indices of the crop: scaled, shifted, made whole and clipped to [0, crop - 1]."""
        scale = np.array([self.resize / original[1], self.resize / original[0]] * 2)
        whole = np.trunc if self.wsolevaluation else np.round
        return np.clip(whole(np.array(boxes) * scale - self._margin), 0, self.crop - 1)

    def true_mask(self, mask: UInt8[np.ndarray, "H W"], seen: tuple[int, int]) -> UInt8[np.ndarray, "s s"]:
        """A true mask in the crop, nearest pixels."""
        return self._cropped(cv2.resize(mask, (self.resize, self.resize), interpolation=cv2.INTER_NEAREST))

    def found_box(self, box: Sequence[float] | None, seen: tuple[int, int]) -> Sequence[float] | None:
        """The largest box, of edges in the crop, as it is compared."""
        if not self.wsolevaluation:
            return box
        return inclusive_box(box, seen[1], seen[0]) if box else (0, 0, 0, 0)

    @property
    def _margin(self) -> int:
        return (self.resize - self.crop) // 2

    def _cropped(self, squashed: np.ndarray) -> np.ndarray:
        return squashed[self._margin : self._margin + self.crop, self._margin : self._margin + self.crop]


class FullProtocol(NamedTuple):
    """Whole photos in their own shape, reduced as the encoder reduces them; boxes of edges.

    A photo counts where the box meets any of its objects: CorLoc.
    """

    name: str = "full"
    fit_side: int | None = None
    convention: BoxConvention = "edges"
    measure: str = "CorLoc"

    def shown(self, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The photo as it is."""
        return pixels

    def true_boxes(
        self, boxes: Sequence[Edges], original: tuple[int, int], seen: tuple[int, int]
    ) -> Float[np.ndarray, "n 4"]:
        """True boxes in pixels of the reduced photo, which leaves their overlaps as they are."""
        return np.array(boxes) * np.array([seen[1] / original[1], seen[0] / original[0]] * 2)

    def true_mask(self, mask: UInt8[np.ndarray, "H W"], seen: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
        """A true mask in the reduced photo, nearest pixels."""
        return cv2.resize(mask, seen[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8)

    def found_box(self, box: Sequence[float] | None, seen: tuple[int, int]) -> Sequence[float] | None:
        """The largest box as it is."""
        return box


Protocol = CropProtocol | FullProtocol

OFFICIAL_FINE_GRAINED = CropProtocol("fine-grained", 480, 448)
OFFICIAL_IMAGENET = CropProtocol("imagenet", 256, 224)
WSOLEVALUATION = CropProtocol("wsolevaluation", 224, 224, wsolevaluation=True)
FULL = FullProtocol()
PROTOCOLS: Mapping[str, Protocol] = {
    p.name: p for p in (OFFICIAL_FINE_GRAINED, OFFICIAL_IMAGENET, WSOLEVALUATION, FULL)
}


class FittingPhotos(Mapping[str, Source]):
    """Annotated photos as a protocol fits them, by path, read when needed: squashed to ``side`` x ``side``, or whole.

    Going through ``items()`` leaves out photos that cannot be read and keeps the reasons in ``failed``.
    """

    def __init__(self, photos: Sequence[Annotated], *, side: int | None) -> None:
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
