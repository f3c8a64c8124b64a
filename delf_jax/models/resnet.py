"""Residual networks (ResNet-50, -101) in the four stride layouts of public weights; every named map is returned."""

import functools
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from delf_jax.errors import ModelError
from delf_jax.models import layers
from delf_jax.models.layers import Convolution, Layer, align, mask_padding, max_pool, placed
from delf_jax.models.parts import OfCells, sum_of_cells
from delf_jax.models.regions import Regions

MAP_NAMES = ("conv1", "conv2", "conv3", "conv4", "conv5")
STAGE_NAMES = MAP_NAMES[1:]


# ResNet-152 has 50. A damaged description must not make a network that takes hours to build.
_MOST_UNITS = 1000


@dataclass(frozen=True)
class ResNetConfig:
    """Configuration of a residual network.

    Attributes:
        layout: where strides and paddings are. ``keras_v1``: stride in the first 1x1 of a stage. ``keras_delf``:
            the same, but conv1 is padded SAME and the first pool not at all (official training code of DELF and DELG).
            ``torchvision`` (v1.5): in the 3x3 of a stage's first unit. ``tf_slim``: in the 3x3 of a stage's last unit,
            first pool padded SAME; its released checkpoints use ``conv5_stride=1``.
        blocks: residual units of conv2 to conv5; (3, 4, 6, 3) is ResNet-50, (3, 4, 23, 3) ResNet-101. With 0 units of
            conv5 the network ends at conv4.
        width: channels of conv1; conv2 to conv5 have 4, 8, 16 and 32 times as many.
        conv5_stride: stride of the last stage, at the place where the layout has strides.
        conv4_pitch: pixels between the cells of conv4; None is 32 for ``tf_slim`` and 16 for the others. 32 keeps every
            second cell of 16 along each axis, with the same values. conv5 starts from the cells that its layout keeps.
        norm_epsilon: batch-norm epsilon that the weights were trained with; None if it is folded into the kernels.
    """

    layout: Literal["keras_v1", "keras_delf", "torchvision", "tf_slim"]
    norm_epsilon: float | None
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64
    conv5_stride: Literal[1, 2] = 2
    conv4_pitch: Literal[16, 32] | None = None

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values; ``from_json`` reads it back."""
        return asdict(self) | {"blocks": list(self.blocks)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ResNetConfig":
        """Reads the output of ``to_json``; raises TypeError for unknown keys, ValueError for more than 1000 units."""
        config = cls(**(dict(values) | {"blocks": tuple(values["blocks"])}))
        if sum(config.blocks) > _MOST_UNITS:
            raise ValueError(f"{sum(config.blocks)} residual units are more than {_MOST_UNITS}")
        return config


_SUBSAMPLE = Layer(kernel=1, stride=2, padding=0)


def map_names(config: ResNetConfig) -> tuple[str, ...]:
    """The maps of the network, the deepest one last."""
    return MAP_NAMES if config.blocks[-1] else MAP_NAMES[:-1]


def stem_layer(config: ResNetConfig) -> Layer:
    """The convolution conv1."""
    return Layer(kernel=7, stride=2, padding="same" if config.layout == "keras_delf" else 3)


def pool_layer(config: ResNetConfig) -> Layer:
    """The max pool between conv1 and conv2."""
    padding: dict[str, int | Literal["same"]] = {"tf_slim": "same", "keras_delf": 0}
    return Layer(kernel=3, stride=2, padding=padding.get(config.layout, 1))


def unit_layers(config: ResNetConfig, stage: int, index: int) -> tuple[Layer, Layer, Layer]:
    """The 1x1, 3x3 and 1x1 convolutions of residual unit ``index`` of ``stage`` (0 is conv2), with their strides."""
    stride = (1, 2, 2, config.conv5_stride)[stage]
    if config.layout == "tf_slim":
        # TF-slim strides at the end of conv2, conv3 and conv4, so that the next stage starts on the coarser grid.
        stride = (2, 2, 1 if config.conv4_pitch == 16 else 2, config.conv5_stride)[stage]
    carrier = config.blocks[stage] - 1 if config.layout == "tf_slim" else 0
    stride = stride if index == carrier else 1
    in_reduce = config.layout in ("keras_v1", "keras_delf")
    return (
        Layer(kernel=1, stride=stride if in_reduce else 1, padding=0),
        Layer(kernel=3, stride=1 if in_reduce else stride, padding=1),
        Layer(kernel=1, stride=1, padding=0),
    )


def subsampled(config: ResNetConfig, stage: int) -> tuple[bool, bool]:
    """Whether only every second cell is kept before a stage's first unit, and after its last one."""
    is_slim = config.layout == "tf_slim"
    before = is_slim and config.conv4_pitch == 16 and STAGE_NAMES[stage] == "conv5"
    after = not is_slim and config.conv4_pitch == 32 and STAGE_NAMES[stage] == "conv4"
    return before, after


def layers_to(config: ResNetConfig, name: str) -> list[Layer]:
    """All windows on the residual path from the photo to the map ``name``; shortcuts see no more pixels."""
    windows = [stem_layer(config)]
    if name != "conv1":
        windows.append(pool_layer(config))
    for stage in range(MAP_NAMES.index(name)):
        before, after = subsampled(config, stage)
        windows.extend([_SUBSAMPLE] * before)
        for index in range(config.blocks[stage]):
            windows.extend(unit_layers(config, stage, index))
        windows.extend([_SUBSAMPLE] * after)
    return windows


def map_size(valid_hw: Any, name: str, config: ResNetConfig) -> Any:
    """Cells of the map ``name`` that a photo of ``valid_hw`` pixels fills.

    ``valid_hw`` is an int, or an integer NumPy or JAX array [..., 2] (height, width); so is the result.
    """
    return layers.output_size(layers_to(config, name), valid_hw)


def channels(name: str, config: ResNetConfig) -> int:
    """Channels of the map ``name``."""
    return config.width * (1 if name == "conv1" else 4 * 2 ** STAGE_NAMES.index(name))


class Unit(nnx.Module):
    """A bottleneck residual unit: 1x1 reduce, 3x3, 1x1 expand, added to an identity, subsampled or 1x1 shortcut."""

    def __init__(
        self, windows: tuple[Layer, Layer, Layer], inputs: int, width: int, copies: tuple[int, ...] = ()
    ) -> None:
        reduce, spatial, expand = windows
        self.stride = reduce.stride * spatial.stride
        self.reduce = Convolution(reduce, inputs, width, copies)
        self.spatial = Convolution(spatial, width, width, copies)
        self.expand = Convolution(expand, width, 4 * width, copies)
        self.has_projection = inputs != 4 * width
        if self.has_projection:
            self.shortcut = Convolution(Layer(1, self.stride, 0), inputs, 4 * width, copies)

    def __call__(self, x: Array, regions: Regions, precision: lax.PrecisionLike) -> tuple[Array, Regions]:
        reduced = regions.after(self.reduce.layer)
        # Only the 3x3 of the unit can read cells outside the photo.
        y = mask_padding(nnx.relu(self.reduce(x, precision)), reduced)
        y = nnx.relu(self.spatial(y, precision))
        project: OfCells | None = None
        if self.has_projection and self.stride == 1:
            project = functools.partial(self.shortcut, precision=precision)
        elif self.has_projection:
            x = self.shortcut(x, precision)
        elif self.stride > 1:
            x = _subsample(x, self.stride)
        x = sum_of_cells(x, y, functools.partial(self.expand, precision=precision), project)
        return x, reduced.after(self.spatial.layer)


class Stage(nnx.Module):
    """The residual units of one stage; equal ones share their parameters' arrays, as ``units2to4``, and one program."""

    def __init__(self, config: ResNetConfig, stage: int) -> None:
        self.subsample_before, self.subsample_after = subsampled(config, stage)
        width = config.width * 2**stage
        kinds = [
            (unit_layers(config, stage, index), 4 * width if index else config.width if stage == 0 else 2 * width)
            for index in range(config.blocks[stage])
        ]
        self.units: tuple[tuple[str, int], ...] = ()
        first = 1
        for (windows, inputs), equal in itertools.groupby(kinds):
            count = len(list(equal))
            name = layers.units_name(first, count)
            setattr(self, name, Unit(windows, inputs, width, () if count == 1 else (count,)))
            self.units += ((name, count),)
            first += count

    def __call__(self, x: Array, regions: Regions, precision: lax.PrecisionLike) -> tuple[Array, Regions]:
        if self.subsample_before:
            x, regions = _subsample(x, 2), regions.after(_SUBSAMPLE)
        for name, count in self.units:
            unit = getattr(self, name)
            if count > 1:
                x = _run_equal(unit, x, regions, precision)
            else:
                x, regions = unit(x, regions, precision)
        if self.subsample_after:
            x, regions = _subsample(x, 2), regions.after(_SUBSAMPLE)
        return x, regions


def _run_equal(units: Unit, x: Array, regions: Regions, precision: lax.PrecisionLike) -> Array:
    """Runs units of stride 1 one after the other; the program holds them once, which makes it quick to compile."""
    structure, parameters = nnx.split(units)

    def step(x: Array, own: Any) -> tuple[Array, None]:
        return nnx.merge(structure, own)(x, regions, precision)[0], None

    def run(x: Array, parameters: Any, *, unroll: bool) -> Array:
        return lax.scan(step, x, parameters, unroll=unroll)[0]

    # On GPUs every round of a loop would copy the whole map, as cuDNN cannot write over what it reads.
    return lax.platform_dependent(
        x, parameters, cuda=functools.partial(run, unroll=True), default=functools.partial(run, unroll=False)
    )


def _subsample(x: Array, step: int) -> Array:
    return x[:, ::step, ::step]


class ResNet(nnx.Module):
    """The network; ``fold`` returns its parameters as a nested dict, ``forward`` takes them."""

    def __init__(self, config: ResNetConfig) -> None:
        self.pool = pool_layer(config)
        self.conv1 = Convolution(stem_layer(config), 3, config.width)
        self.names = map_names(config)
        for stage, name in enumerate(self.names[1:]):
            setattr(self, name, Stage(config, stage))

    def __call__(self, images: Array, regions: Regions, *, last: str, precision: lax.PrecisionLike) -> dict[str, Array]:
        """The maps from conv1 (after its ReLU, before the pool) to ``last``; see ``forward``."""
        if last not in self.names:
            raise ModelError(f"{last}: these weights have no such map; they have {', '.join(self.names)}")
        stem = self.conv1.layer
        x = nnx.relu(self.conv1(align(images, regions, stem), precision))
        regions = regions.after(stem)
        maps: dict[str, Array] = {"conv1": mask_padding(x, regions)}
        if last == "conv1":
            return maps
        x = max_pool(maps["conv1"], regions, self.pool)
        regions = regions.after(self.pool)
        for name in self.names[1 : self.names.index(last) + 1]:
            x, regions = getattr(self, name)(x, regions, precision)
            maps[name] = mask_padding(x, regions)
        return maps


def initialise(config: ResNetConfig, *, seed: int) -> dict[str, Any]:
    """Random parameters for ``forward``: a nested dict of float32 arrays, kernels He-normal, biases zero."""
    return layers.initialise(ResNet, config, seed=seed)


def forward(
    params: Mapping[str, Any],
    images: Float[Array, "b h w 3"],
    regions: Regions | Int[Array, "b 2"],
    *,
    config: ResNetConfig,
    last: str = "conv4",
    dtype: Any = jnp.float32,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> dict[str, Float[Array, "b _ _ _"]]:
    """The maps from conv1 to ``last`` of a batch of padded photos; pure and differentiable.

    Padding never changes a valid cell, whatever it contains; cells outside the photo are zero.

    Args:
        params: nested dict of float32 arrays, as ``fold`` returns it.
        images: [B, H, W, 3], RGB, normalised; see ``backbone.normalised``.
        regions: where photos lie on canvases that are zero elsewhere; or int32 [B, 2], the (height, width) of one photo
            in the top-left corner of each canvas, which may have anything around it.
        last: the deepest map wanted; layers behind it are not computed.
        dtype: float32 or bfloat16: the type of all computations and of the maps.
        precision: of products of float32 on accelerators; the default is full float32.

    Returns:
        {name: [B, h, w, channels]}; ``map_size`` gives the number of valid cells.

    Raises:
        ModelError: the weights end before ``last``.
    """
    network = nnx.merge(layers.structure(ResNet, config)[0], dict(params))
    images, regions = placed(images.astype(dtype), regions)
    return network(images, regions, last=last, precision=precision)


def fold(tensors: Mapping[str, np.ndarray], config: ResNetConfig) -> dict[str, Any]:
    """Parameters for ``forward`` from the tensors of a model file; see ``layers.fold_convolutions``."""
    return layers.fold_convolutions(tensors, layers.structure(ResNet, config)[1], norm_epsilon=config.norm_epsilon)
