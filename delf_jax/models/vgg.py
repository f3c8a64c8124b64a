"""The convolutions of VGG16 and VGG19, with or without batch norm; every named map is returned."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from delf_jax.models import layers
from delf_jax.models.layers import Convolution, Layer, mask_padding, max_pool, placed
from delf_jax.models.regions import Regions

STAGE_NAMES = ("conv1", "conv2", "conv3", "conv4", "conv5")
MAP_NAMES = (*STAGE_NAMES, "pool5")

CONVOLUTION = Layer(kernel=3, stride=1, padding=1)


@dataclass(frozen=True)
class VggConfig:
    """Configuration of a VGG network.

    Attributes:
        norm_epsilon: batch-norm epsilon of the weights; None if they have no batch norm.
        blocks: convolutions of conv1 to conv5; (2, 2, 3, 3, 3) is VGG16, (2, 2, 4, 4, 4) VGG19.
        width: channels of conv1; conv2 to conv5 have 2, 4, 8 and 8 times as many.
        conv5_stride: 2 as trained. 1 makes pool4 and pool5 3x3 windows of stride 1, so that conv5 and pool5 keep the
            stride of 8 pixels, with the same weights: the localization variant (28x28 cells for 224x224 pixels).
    """

    norm_epsilon: float | None
    blocks: tuple[int, int, int, int, int] = (2, 2, 3, 3, 3)
    width: int = 64
    conv5_stride: Literal[1, 2] = 2

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values; ``from_json`` reads it back."""
        return asdict(self) | {"blocks": list(self.blocks)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "VggConfig":
        """Reads the output of ``to_json``; raises TypeError for unknown keys."""
        return cls(**(dict(values) | {"blocks": tuple(values["blocks"])}))


def pool_layer(config: VggConfig, stage: int) -> Layer:
    """The max pool after ``stage`` (0 is conv1)."""
    if stage >= 3 and config.conv5_stride == 1:
        return Layer(kernel=3, stride=1, padding=1)
    return Layer(kernel=2, stride=2, padding=0)


def map_names(config: VggConfig) -> tuple[str, ...]:
    """The maps of the network, the deepest one last."""
    return MAP_NAMES


def layers_to(config: VggConfig, name: str) -> list[Layer]:
    """All windows from the photo to the map ``name``."""
    windows: list[Layer] = []
    for stage, convolutions in enumerate(config.blocks):
        windows += [CONVOLUTION] * convolutions
        if name == STAGE_NAMES[stage]:
            return windows
        windows.append(pool_layer(config, stage))
    return windows


def map_size(valid_hw: Any, name: str, config: VggConfig) -> Any:
    """Cells of the map ``name`` that a photo of ``valid_hw`` pixels fills; any integers, NumPy or traced."""
    return layers.output_size(layers_to(config, name), valid_hw)


def channels(name: str, config: VggConfig) -> int:
    """Channels of the map ``name``."""
    return config.width * min(8, 2 ** STAGE_NAMES.index(name.replace("pool", "conv")))


class Stage(nnx.Module):
    """The convolutions ``unit1``, ``unit2``, ... between two pools."""

    def __init__(self, units: int, inputs: int, outputs: int) -> None:
        self.units = units
        for index in range(units):
            setattr(self, f"unit{index + 1}", Convolution(CONVOLUTION, outputs if index else inputs, outputs))

    def __call__(self, x: Array, regions: Regions, precision: lax.PrecisionLike) -> Array:
        for index in range(self.units):
            x = mask_padding(nnx.relu(getattr(self, f"unit{index + 1}")(x, precision)), regions)
        return x


class Vgg(nnx.Module):
    """The network; ``fold`` returns its parameters as a nested dict, ``forward`` takes them."""

    def __init__(self, config: VggConfig) -> None:
        inputs = 3
        for stage, name in enumerate(STAGE_NAMES):
            setattr(self, name, Stage(config.blocks[stage], inputs, channels(name, config)))
            inputs = channels(name, config)
        self.pools = tuple(pool_layer(config, stage) for stage in range(len(STAGE_NAMES)))

    def __call__(self, images: Array, regions: Regions, *, last: str, precision: lax.PrecisionLike) -> dict[str, Array]:
        """The maps from conv1 to ``last``; see ``forward``."""
        x = images
        maps: dict[str, Array] = {}
        for name, pool in zip(STAGE_NAMES, self.pools, strict=True):
            maps[name] = getattr(self, name)(x, regions, precision)
            if name == last:
                return maps
            x, regions = max_pool(maps[name], regions, pool), regions.after(pool)
            x = mask_padding(x, regions)
        return maps | {"pool5": x}


def initialise(config: VggConfig, *, seed: int) -> dict[str, Any]:
    """Random parameters for ``forward``: a nested dict of float32 arrays, kernels He-normal, biases zero."""
    return layers.initialise(Vgg, config, seed=seed)


def forward(
    params: Mapping[str, Any],
    images: Float[Array, "b h w 3"],
    regions: Regions | Int[Array, "b 2"],
    *,
    config: VggConfig,
    last: str = "conv5",
    dtype: Any = jnp.float32,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> dict[str, Float[Array, "b _ _ _"]]:
    """The maps from conv1 to ``last`` of a batch of padded photos; pure and differentiable.

    conv1 to conv5 are the last ReLU of their stage, before its pool; pool5 is the output of the last pool. Arguments,
    padding and the result are as in ``resnet.forward``. Source: Simonyan and Zisserman, ICLR 2015, configuration D;
    the localization variant has the pools of VGG16 in the wsolevaluation code.
    """
    network = nnx.merge(layers.structure(Vgg, config)[0], dict(params))
    images, regions = placed(images.astype(dtype), regions)
    return network(images, regions, last=last, precision=precision)


def fold(tensors: Mapping[str, np.ndarray], config: VggConfig) -> dict[str, Any]:
    """Parameters for ``forward`` from the tensors of a model file; see ``layers.fold_convolutions``."""
    return layers.fold_convolutions(tensors, layers.structure(Vgg, config)[1], norm_epsilon=config.norm_epsilon)
