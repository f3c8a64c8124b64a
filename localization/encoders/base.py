"""What an encoder is: it computes the dense features of photos and hands them to a pure function.

``encoder.run(function, arguments, photos)`` applies ``function`` to the features on the encoder's device. So only what
the function returns (sums, maps, unit features) leaves the device, and not the whole feature maps.
"""

import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from delf_jax.errors import ImageError
from localization.grid import Grid

Key = TypeVar("Key", bound=Hashable)
# A photo: a path, bytes or an array. A feature map: an array, a path, or as in ``MapEncoder``.
Source = Any
# Either by name or in a row; in a row, paths are their own names.
Photos = Mapping[str, Source] | Iterable[Source]


class DenseFeatures(NamedTuple):
    """The features of a padded batch of photos.

    Attributes:
        features: float [B, h, w, C].
        cells_hw: int [B, 2], (height, width) in cells of each photo's own part of the map, at the top left.
        grid: where the cells lie, in pixels of the photo as the encoder saw it; arrays [B, 2].
        image_hw: int [B, 2], (height, width) in pixels of the photo as the encoder saw it.
        canvas: static (height, width) in pixels of the padded batch.
        other_scales: the same photos at the other scales that were asked for.
    """

    features: Float[Array, "b h w c"]
    cells_hw: Int[Array, "b 2"]
    grid: Grid
    image_hw: Int[Array, "b 2"]
    canvas: tuple[int, int]
    other_scales: tuple["DenseFeatures", ...] = ()


class EncodedPhoto(NamedTuple):
    """A photo as the encoder saw it.

    Attributes:
        pixels: uint8 [h, w, 3] RGB, or None if only a feature map was given.
        size: (height, width) that ``DenseFeatures.image_hw`` refers to.
        original_size: (height, width) of the upright original photo.
    """

    pixels: UInt8[np.ndarray, "h w 3"] | None
    size: tuple[int, int]
    original_size: tuple[int, int]


# function(arguments, dense) -> a pytree of arrays with leading axis B; pure.
DenseFunction = Callable[[Any, DenseFeatures], Any]


@runtime_checkable
class Encoder(Protocol):
    """Computes dense features of photos and applies a function to them.

    Attributes:
        description: JSON values that identify the features. Statistics with different descriptions cannot be added.
    """

    description: Mapping[str, Any]

    def run(
        self, function: DenseFunction, arguments: Any, photos: Iterable[tuple[Key, Source]]
    ) -> Iterator[tuple[Key, EncodedPhoto | ImageError, Any]]:
        """Yields (key, photo, its row of ``function(arguments, dense)`` in NumPy), or (key, ImageError, None).

        The order may differ from that of ``photos``.
        """
        ...


# One cache of compiled programs for all encoders that compute their features outside of JAX.
@functools.partial(jax.jit, static_argnums=0, static_argnames="canvas")
def apply_compiled(
    function: DenseFunction,
    arguments: Any,
    features: Any,
    cells_hw: Any,
    *,
    grid: Grid,
    image_hw: Any,
    canvas: tuple[int, int],
) -> Any:
    """``function(arguments, dense)`` for a batch of features, compiled once for each function and shape."""
    return function(arguments, DenseFeatures(jnp.asarray(features), cells_hw, grid, image_hw, canvas))
