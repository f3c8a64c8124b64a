"""From a photo to the square view used in training: the published crops, whole photos, and warps.

An augmentation is a frozen dataclass, called with a photo and a random generator. It has no state, so it works in any
thread or worker process, and equal generators give equal views. ``size`` is the side of its views, ``max_side`` the
longest side in pixels that photos may be reduced to while they are decoded.
"""

import dataclasses
import math
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8

from delf_jax.photos.load import reduced_size

Pixels = UInt8[np.ndarray, "h w 3"]


class View(NamedTuple):
    """A view of a photo for training.

    Attributes:
        pixels: uint8 [size, size, 3] RGB.
        valid_hw: (height, width) of the part at the top left that holds photo; the rest is zero.
    """

    pixels: UInt8[np.ndarray, "size size 3"]
    valid_hw: tuple[int, int]


@runtime_checkable
class Augmentation(Protocol):
    """What the loader calls on every photo."""

    @property
    def size(self) -> int: ...
    @property
    def max_side(self) -> int: ...

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> View: ...


@dataclasses.dataclass(frozen=True)
class SquareCrop:
    """The paper's crop: the central square, resized, then a random or central crop of it (DELF, section 3.2).

    Descriptors are fine-tuned with ``SquareCrop(250, 224)``, attention is trained with ``SquareCrop(900, 720)``.

    Attributes:
        resize: side in pixels that the central square is brought to, up or down.
        size: side of the crop.
        random: whether the crop's place is random; validation takes the centre.
    """

    resize: int
    size: int
    random: bool = True

    @property
    def max_side(self) -> int:
        return 4 * self.resize

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> View:
        """A view filled by the photo."""
        height, width = photo.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = _resized(photo[top : top + side, left : left + side], (self.resize, self.resize))
        room = self.resize - self.size
        y, x = rng.integers(0, room, size=2, endpoint=True) if self.random else (room // 2, room // 2)
        return _full(square[y : y + self.size, x : x + self.size])


@dataclasses.dataclass(frozen=True)
class AreaCrop:
    """The official joint trainer's crop: random area and aspect, resized without keeping the aspect, never mirrored.

    Attributes:
        size: side of the view.
        area: smallest and largest share of the photo's area.
        aspect: smallest and largest width over height.
    """

    size: int = 321
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    _TRIES: ClassVar[int] = 10

    @property
    def max_side(self) -> int:
        return 4 * self.size

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> View:
        """A view filled by the photo; the whole photo if no crop of the wanted area and aspect fits."""
        height, width = photo.shape[:2]
        for _ in range(self._TRIES):
            area = rng.uniform(*self.area) * height * width
            aspect = math.exp(rng.uniform(*np.log(self.aspect)))
            h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 1 <= h <= height and 1 <= w <= width:
                y, x = rng.integers(0, height - h, endpoint=True), rng.integers(0, width - w, endpoint=True)
                return _full(_resized(photo[y : y + h, x : x + w], (self.size, self.size)))
        return _full(_resized(photo, (self.size, self.size)))


@dataclasses.dataclass(frozen=True)
class Whole:
    """The whole photo, reduced to ``size`` and never enlarged, at the top left of a black canvas; nothing random.

    The cache of dense features is computed from these views.
    """

    size: int

    @property
    def max_side(self) -> int:
        return self.size

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> View:
        """The photo on its canvas."""
        height, width = reduced_size((photo.shape[0], photo.shape[1]), self.size)
        canvas = np.zeros((self.size, self.size, 3), np.uint8)
        canvas[:height, :width] = _resized(photo, (height, width))
        return View(canvas, (height, width))


@dataclasses.dataclass(frozen=True)
class Warp:
    """A moderate change of viewpoint and light, for training in which each photo with its warps is a class.

    A rectangle of random area, aspect and angle is drawn inside the photo, its corners are moved at random, and a
    homography brings it to the view. So no border shows. It is never mirrored, because landmarks are not.

    Attributes:
        size: side of the view.
        area: smallest and largest share of the photo's area, before the rectangle is shrunk to fit.
        aspect: smallest and largest width over height, relative to the photo's own.
        angle: largest turn in degrees, either way.
        corners: largest move of a corner, in shares of the rectangle's sides.
        light: strength of the photometric changes; 0 leaves colours alone.
    """

    size: int
    area: tuple[float, float] = (0.25, 0.9)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    angle: float = 15.0
    corners: float = 0.12
    light: float = 1.0

    @property
    def max_side(self) -> int:
        return 3 * self.size

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> View:
        """A view filled by the photo."""
        warped = _rectified(photo, self._quadrilateral(photo.shape[0], photo.shape[1], rng), self.size)
        return _full(_relit(warped, self.light, rng) if self.light else warped)

    def _quadrilateral(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """Corners float64 [4, 2] (x, y), in the frame where the photo covers [0, width] x [0, height]."""
        share = math.sqrt(rng.uniform(*self.area))
        stretch = math.exp(0.5 * rng.uniform(*np.log(self.aspect)))
        sides = np.array([width * share * stretch, height * share / stretch])
        corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
        corners = (corners + rng.uniform(-self.corners, self.corners, (4, 2))) * sides
        angle = math.radians(rng.uniform(-self.angle, self.angle))
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        corners = corners @ turn
        low, high = corners.min(axis=0), corners.max(axis=0)
        shrink = min(1.0, *(np.array([width, height]) / (high - low)))
        low, high = low * shrink, high * shrink
        place = rng.uniform(size=2) * (np.array([width, height]) - (high - low)) - low
        return corners * shrink + place


def _full(pixels: np.ndarray) -> View:
    return View(np.ascontiguousarray(pixels), (pixels.shape[0], pixels.shape[1]))


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Averages areas to reduce, interpolates to enlarge; ``size`` is (height, width)."""
    if pixels.shape[:2] == size:
        return pixels
    smaller = size[0] * size[1] < pixels.shape[0] * pixels.shape[1]
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def _rectified(photo: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
    factor = size / sides.mean()
    if factor < 1:
        # warpPerspective takes single samples, so fine detail is removed first.
        height, width = (max(1, round(side * factor)) for side in photo.shape[:2])
        corners = corners * (width / photo.shape[1], height / photo.shape[0])
        photo = _resized(photo, (height, width))
    target = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    # OpenCV counts from the centre of the first pixel.
    matrix = cv2.getPerspectiveTransform((corners - 0.5).astype(np.float32), target - 0.5)
    return cv2.warpPerspective(photo, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _relit(pixels: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Changes exposure, contrast, gamma, white balance and saturation; some photos become grey or out of focus."""
    exponent, contrast = np.exp(strength * rng.uniform(-0.35, 0.35, 2))
    brightness = strength * rng.uniform(-0.12, 0.12)
    balance = np.exp(strength * rng.uniform(-0.1, 0.1, 3))
    saturation = 0.0 if rng.uniform() < 0.1 * strength else math.exp(strength * rng.uniform(-0.5, 0.3))
    blur = rng.uniform(0.5, 1.5) if rng.uniform() < 0.2 * strength else 0.0
    table = (np.arange(256) / 255) ** exponent
    levels = (table - 0.5) * contrast + 0.5 + brightness
    tables = np.clip(255 * levels[:, None] * balance, 0, 255).round().astype(np.uint8)
    lit = cv2.LUT(pixels, tables.reshape(256, 1, 3))
    grey = cv2.cvtColor(cv2.cvtColor(lit, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    lit = cv2.addWeighted(lit, saturation, grey, 1 - saturation, 0)
    return cv2.GaussianBlur(lit, (0, 0), blur) if blur else lit
