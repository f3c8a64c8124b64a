"""The one place where pixels are normalised and a network runs: photos -> named feature maps."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from delf_jax.models.architectures import Config, network_of
from delf_jax.models.layers import valid_cells
from delf_jax.models.regions import Regions, regions_of
from delf_jax.settings import Precision


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """A network and the normalisation that its weights were trained with; hashable, so static under ``jit``.

    Attributes:
        network: which network.
        mean, std: (r, g, b) on the 0-255 scale; the network sees ``(pixels - mean) / std``.
    """

    network: Config
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def map_names(self) -> tuple[str, ...]:
        """The named maps of the network, the deepest one last."""
        names: tuple[str, ...] = network_of(self.network).map_names(self.network)
        return names

    def channels(self, name: str) -> int:
        """Channels of a named map."""
        return int(network_of(self.network).channels(name, self.network))

    def map_size(self, valid_hw: Any, name: str) -> Any:
        """Cells (height, width) of a named map that photos of size ``valid_hw`` [..., 2] fill; NumPy or traced."""
        return network_of(self.network).map_size(valid_hw, name, self.network)


def normalised(
    images: Num[Array | np.ndarray, "b H W 3"], valid_hw: Int[Array | np.ndarray, "b 2"], config: BackboneConfig
) -> Float[Array, "b H W 3"]:
    """What the network sees of a padded batch of photos, RGB in 0-255: float32, zero outside the photos."""
    mean, std = np.asarray(config.mean, np.float32), np.asarray(config.std, np.float32)
    pixels = (jnp.asarray(images, jnp.float32) - mean) / std
    return jnp.where(valid_cells(valid_hw, *images.shape[1:3])[..., None], pixels, 0)


def feature_maps(
    params: Mapping[str, Any],
    images: Float[Array, "b h w 3"],
    regions: Regions | Int[Array, "b 2"],
    *,
    config: BackboneConfig,
    last: str,
    precision: Precision,
) -> dict[str, Float[Array, "b _ _ _"]]:
    """The named feature maps of a batch of padded photos; pure and differentiable.

    Args:
        params: nested dict of float32 arrays, as the network's ``fold`` gives them.
        images: from ``normalised``, or resized from there; zero outside the photos.
        regions: where photos lie on the canvases; or int32 [B, 2], the (height, width) of one photo in the top-left
            corner of each canvas.
        config: the network and its normalisation.
        last: the deepest map wanted; layers behind it are not computed.
        precision: type in which the network computes, and type of the maps.

    Returns:
        The maps up to ``last``, in the order of ``config.map_names``, zero outside each photo.
    """
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    maps: dict[str, Array] = network_of(config.network).forward(
        params, images, regions_of(regions, images), config=config.network, last=last, dtype=dtype
    )
    return maps
