"""Dense features of any function from images to feature maps."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import UInt8

from delf_jax.errors import ImageError, PredictorError
from delf_jax.photos.load import load_photo
from localization.encoders.base import DenseFunction, EncodedPhoto, Key, Source, apply_compiled
from localization.grid import Grid, equal_patches


class CallableEncoder:
    """A function of the caller: uint8 [B, size, size, 3] RGB -> float [B, h, w, C].

    Photos are resized to size x size pixels, without keeping their shape, as in the paper's protocol. The function may
    use JAX, PyTorch or anything else that returns what NumPy can read. It normalises the pixels itself.

    Args:
        function: computes the feature maps.
        name: identifies the function; predictors of different names cannot be added.
        size: side of the images in pixels.
        batch_size: B; the last batch is padded with black images.
        grid: where the cells lie in the images. None takes them as equal patches. A ResNet of PyTorch, which pads both
            sides alike, has ``Grid((0, 0), (32, 32))`` at stride 32.
    """

    def __init__(
        self,
        function: Callable[[np.ndarray], Any],
        *,
        name: str,
        size: int = 224,
        batch_size: int = 8,
        grid: Grid | None = None,
    ) -> None:
        self.function = function
        self.grid = grid
        self.size = size
        self.batch_size = batch_size
        self.description: Mapping[str, Any] = {"kind": "callable", "name": name, "size": size}

    def run(
        self, function: DenseFunction, arguments: Any, photos: Iterable[tuple[Key, Source]]
    ) -> Iterator[tuple[Key, EncodedPhoto | ImageError, Any]]:
        """See ``Encoder.run``.

        Raises:
            PredictorError: the caller's function did not return an array [B, h, w, C].
        """
        iterator = iter(photos)
        while group := list(itertools.islice(iterator, self.batch_size)):
            batch: list[tuple[Key, EncodedPhoto]] = []
            squashed: list[np.ndarray] = []
            for key, source in group:
                try:
                    photo = load_photo(source, max_side=None)
                except ImageError as error:
                    yield key, error, None
                    continue
                squashed.append(squash(photo.pixels, self.size))
                batch.append((key, EncodedPhoto(squashed[-1], (self.size, self.size), photo.original_size)))
            if not batch:
                continue
            images = np.stack(squashed)
            missing = self.batch_size - len(batch)
            features = np.asarray(self.function(np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))))
            if features.ndim != 4 or len(features) != self.batch_size:
                raise PredictorError(
                    f"the encoder gave an array of shape {features.shape} for {self.batch_size} images; "
                    "it must be [B, h, w, C]"
                )
            cells = np.tile(np.array(features.shape[1:3], np.int32), (self.batch_size, 1))
            sizes = np.full((self.batch_size, 2), self.size, np.int32)
            grid = self.grid or equal_patches(cells[0], sizes[0])
            grid = Grid(*(np.tile(np.asarray(part, np.float32), (self.batch_size, 1)) for part in grid))
            output = apply_compiled(
                function, arguments, features, cells, grid=grid, image_hw=sizes, canvas=(self.size, self.size)
            )
            for row, (key, encoded) in enumerate(batch):
                yield key, encoded, jax.tree.map(lambda array, row=row: np.asarray(array[row]), output)


def squash(pixels: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The photo resized to size x size pixels without keeping its shape, like the official Resize((size, size))."""
    shrinks = pixels.shape[0] * pixels.shape[1] > size * size
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
