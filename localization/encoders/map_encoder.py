"""Feature maps that were computed before, from arrays or .npy files."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from delf_jax.errors import ImageError
from localization.encoders.base import DenseFunction, EncodedPhoto, Key, Source, apply_compiled
from localization.grid import Grid, equal_patches


class MapEncoder:
    """Feature maps: float arrays [h, w, C], paths of .npy files, or tuples of an array and where it lies in its photo.

    The tuples are (array, (height, width) of the photo) or (array, (height, width), grid). Without the size, boxes are
    in cells of the map. Without the grid, cells are equal patches of the photo.

    Args:
        name: identifies what computed the maps; predictors of different names cannot be added.
    """

    def __init__(self, *, name: str = "maps") -> None:
        self.description: Mapping[str, Any] = {"kind": "maps", "name": name}

    def run(
        self, function: DenseFunction, arguments: Any, photos: Iterable[tuple[Key, Source]]
    ) -> Iterator[tuple[Key, EncodedPhoto | ImageError, Any]]:
        """See ``Encoder.run``."""
        for key, source in photos:
            try:
                dense, size, grid = read_map(source)
            except ImageError as error:
                yield key, error, None
                continue
            h, w, _ = dense.shape
            size = size or (h, w)
            # Padded to multiples of eight cells and 32 pixels, so that maps of many sizes share a few programs.
            padded = np.pad(dense, ((0, -h % 8), (0, -w % 8), (0, 0)))
            canvas = (size[0] + -size[0] % 32, size[1] + -size[1] % 32)
            cells, sizes = np.array([[h, w]], np.int32), np.array([size], np.int32)
            grid = Grid(*(np.asarray(part, np.float32)[None] for part in grid or equal_patches(cells[0], sizes[0])))
            output = apply_compiled(function, arguments, padded[None], cells, grid=grid, image_hw=sizes, canvas=canvas)
            yield key, EncodedPhoto(None, size, size), jax.tree.map(lambda array: np.asarray(array[0]), output)


def is_map(source: Source) -> bool:
    """Whether this is a feature map and not a photo."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source).endswith(".npy")
    return isinstance(source, tuple) or (isinstance(source, np.ndarray) and np.issubdtype(source.dtype, np.floating))


class FeatureMap(NamedTuple):
    """A feature map in float32, and (height, width) of its photo and the grid if they were given."""

    dense: Float[np.ndarray, "h w c"]
    size: tuple[int, int] | None
    grid: Grid | None


def read_map(source: Source) -> FeatureMap:
    """A feature map as ``MapEncoder`` takes it.

    Raises:
        ImageError: not a float array [h, w, C], or empty, or it holds NaN or infinity.
    """
    size = grid = None
    if isinstance(source, tuple):
        source, size, grid = (*source, None)[:3]
    name = "feature map" if isinstance(source, np.ndarray) else os.fspath(source)
    if not isinstance(source, np.ndarray):
        try:
            source = np.load(source, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ImageError(name, f"not a readable .npy file ({error})") from error
    if not isinstance(source, np.ndarray) or source.ndim != 3 or not np.issubdtype(source.dtype, np.floating):
        raise ImageError(name, "not a feature map; save a float array [h, w, C]")
    if not source.size or not np.isfinite(source).all():
        raise ImageError(name, "the feature map is empty or holds NaN or infinity; compute it again")
    return FeatureMap(source.astype(np.float32), size, grid)
