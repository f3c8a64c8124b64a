"""Vision transformers as in DINO and DINOv2; their patch tokens are returned as maps."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from delf_jax.models import layers
from delf_jax.models.layers import Layer, Linear, mask_padding, placed, take, valid_cells
from delf_jax.models.regions import Regions

MAP_NAMES = ("tokens", "relu")

# Every LayerNorm in DINO, DINOv2 and timm has this value.
NORM_EPSILON = 1e-6


# ViT-g has 40. A damaged description must not make a network that takes hours to build.
_MOST_BLOCKS = 1000


@dataclass(frozen=True)
class VitConfig:
    """Configuration of a vision transformer.

    Attributes:
        patch: side of a patch in pixels; rows and columns of a photo that do not fill a patch are ignored.
        depth, width, heads: number of blocks, channels of a token, attention heads; ViT-S has 12, 384 and 6.
        grid: there are position embeddings for grid x grid patches.
        registers: tokens besides the class token that belong to no patch (DINOv2 with registers).
        layer_scale: whether each residual branch is multiplied by learned factors (DINOv2).
        positions: how embeddings are resampled to n patches along an axis. ``offset``: bicubic at the ratio
            (n + 0.1) / grid, as DINO and DINOv2 without registers do. ``size``: bicubic at n / grid (Hugging Face).
            ``antialias``: the same with a filter that widens when there are fewer patches than embeddings (DINOv2
            with registers, timm).
    """

    patch: int
    grid: int
    depth: int = 12
    width: int = 384
    heads: int = 6
    registers: int = 0
    layer_scale: bool = False
    positions: Literal["offset", "size", "antialias"] = "offset"

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values; ``from_json`` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "VitConfig":
        """Reads the output of ``to_json``; raises TypeError for unknown keys, ValueError for more than 1000 blocks."""
        config = cls(**values)
        if config.depth > _MOST_BLOCKS:
            raise ValueError(f"{config.depth} blocks are more than {_MOST_BLOCKS}")
        return config


def map_names(config: VitConfig) -> tuple[str, ...]:
    """The maps of the network, the deepest one last."""
    return MAP_NAMES


def layers_to(config: VitConfig, name: str) -> list[Layer]:
    """The window of a patch, for every map; attention also lets every cell see the whole photo."""
    return [Layer(kernel=config.patch, stride=config.patch, padding=0)]


def map_size(valid_hw: Any, name: str, config: VitConfig) -> Any:
    """Number of whole patches of a photo of ``valid_hw`` pixels; any integers, NumPy or traced."""
    return layers.output_size(layers_to(config, name), valid_hw)


def channels(name: str, config: VitConfig) -> int:
    """Channels of the map ``name``."""
    return config.width


class LayerNorm(nnx.Module):
    """Normalises each token over its channels, in float32."""

    def __init__(self, width: int) -> None:
        self.scale = nnx.Param(jnp.zeros((width,), jnp.float32))
        self.shift = nnx.Param(jnp.zeros((width,), jnp.float32))

    def __call__(self, x: Array) -> Array:
        exact = x.astype(jnp.float32)
        centred = exact - exact.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        normalised = centred * lax.rsqrt(variance + NORM_EPSILON)
        return (normalised * self.scale[...] + self.shift[...]).astype(x.dtype)


class Block(nnx.Module):
    """Attention and a two-layer perceptron, each after a LayerNorm and added to its input."""

    def __init__(self, config: VitConfig) -> None:
        width = config.width
        self.heads = config.heads
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.qkv, self.projection = Linear(width, 3 * width), Linear(width, width)
        self.expand, self.reduce = Linear(width, 4 * width), Linear(4 * width, width)
        self.has_scale = config.layer_scale
        if config.layer_scale:
            self.scale1 = nnx.Param(jnp.zeros((width,), jnp.float32))
            self.scale2 = nnx.Param(jnp.zeros((width,), jnp.float32))

    def __call__(self, x: Array, where: Array, precision: lax.PrecisionLike) -> Array:
        y = self.projection(self._attend(self.norm1(x), where, precision), precision)
        x = x + (y * self.scale1[...].astype(y.dtype) if self.has_scale else y)
        y = self.expand(self.norm2(x), precision)
        y = self.reduce(jax.nn.gelu(y, approximate=False), precision)
        return x + (y * self.scale2[...].astype(y.dtype) if self.has_scale else y)

    def _attend(self, x: Array, where: Array, precision: lax.PrecisionLike) -> Array:
        """softmax(q k / sqrt(d)) v over the tokens in ``where``, the heads side by side."""
        batch, tokens, width = x.shape
        q, k, v = jnp.moveaxis(self.qkv(x, precision).reshape(batch, tokens, 3, self.heads, -1), 2, 0)
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, precision=precision).astype(jnp.float32) * q.shape[-1] ** -0.5
        weights = jax.nn.softmax(jnp.where(where[:, None, None], logits, -jnp.inf), axis=-1).astype(x.dtype)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, v, precision=precision).reshape(batch, tokens, width)


class Vit(nnx.Module):
    """The network; ``fold`` returns its parameters as a nested dict, ``forward`` takes them."""

    def __init__(self, config: VitConfig) -> None:
        self.config = config
        self.patches = Linear(config.patch**2 * 3, config.width)
        self.class_token = nnx.Param(jnp.zeros((1, config.width), jnp.float32))
        self.positions = nnx.Param(jnp.zeros((config.grid**2, config.width), jnp.float32))
        if config.registers:
            self.registers = nnx.Param(jnp.zeros((config.registers, config.width), jnp.float32))
        for index in range(config.depth):
            setattr(self, f"block{index + 1}", Block(config))
        self.norm = LayerNorm(config.width)

    def __call__(self, images: Array, regions: Regions, *, last: str, precision: lax.PrecisionLike) -> dict[str, Array]:
        """The maps from ``tokens`` to ``last``; see ``forward``."""
        cells = regions.after(layers_to(self.config, last)[0])
        if len(regions.slots) == 1:
            tokens = self._tokens(images, cells.sizes[:, 0], precision)
        else:
            # Attention sees whole photos, so each slot is a pass of its own.
            batch, height, width, _ = images.shape
            tokens = jnp.zeros(
                (batch, height // self.config.patch, width // self.config.patch, self.config.width), images.dtype
            )
            for index, (pixels, place) in enumerate(zip(regions.slots, cells.slots)):
                photo = images[:, pixels.top : pixels.top + pixels.height, pixels.left : pixels.left + pixels.width]
                own = self._tokens(photo, cells.sizes[:, index], precision)
                tokens = lax.dynamic_update_slice(tokens, own, (0, place.top, place.left, 0))
        maps = {"tokens": mask_padding(tokens, cells)}
        return maps if last == "tokens" else maps | {"relu": nnx.relu(maps["tokens"])}

    def _tokens(self, x: Array, cells_hw: Array, precision: lax.PrecisionLike) -> Array:
        """The tokens of photos that fill ``cells_hw`` cells each, [B, h, w, C]."""
        config, dtype = self.config, x.dtype
        batch, height, width = x.shape[0], x.shape[1] // config.patch, x.shape[2] // config.patch
        x = x[:, : height * config.patch, : width * config.patch]
        x = x.reshape(batch, height, config.patch, width, config.patch, 3).transpose(0, 1, 3, 2, 4, 5)
        x = self.patches(x.reshape(batch, height, width, -1), precision)
        x = x + self._positions(cells_hw, height, width).astype(dtype)
        own = [self.class_token[...]] + ([self.registers[...]] if config.registers else [])
        own_tokens = jnp.broadcast_to(jnp.concatenate(own).astype(dtype), (batch, 1 + config.registers, config.width))
        x = jnp.concatenate([own_tokens, x.reshape(batch, -1, config.width)], axis=1)
        where = valid_cells(cells_hw, height, width).reshape(batch, -1)
        where = jnp.concatenate([jnp.ones((batch, own_tokens.shape[1]), bool), where], axis=1)
        for index in range(config.depth):
            x = getattr(self, f"block{index + 1}")(x, where, precision)
        return self.norm(x)[:, own_tokens.shape[1] :].reshape(batch, height, width, -1)

    def _positions(self, cells_hw: Array, height: int, width: int) -> Array:
        """The position embeddings, resampled for the size of each photo, [B, height, width, C]."""
        grid = self.config.grid
        table = self.positions[...].reshape(grid, grid, -1)
        # DINO resamples, at its slightly shifted ratio, unless both axes have exactly the size of the grid.
        same = (cells_hw == grid).all(axis=-1)
        rows, columns = (
            position_weights(cells_hw[:, axis], same, length=length, grid=grid, kind=self.config.positions)
            for axis, length in enumerate((height, width))
        )
        return jnp.einsum("byi,bxj,ijc->byxc", rows, columns, table, precision=lax.Precision.HIGHEST)


def position_weights(
    cells: Int[Array, " b"],
    same: Bool[Array, " b"],
    *,
    length: int,
    grid: int,
    kind: Literal["offset", "size", "antialias"],
) -> Float[Array, "b {length} {grid}"]:
    """Bicubic weights of ``grid`` position embeddings for each of ``cells`` patches along an axis, half-pixel centres.

    Cubic convolution (Keys, 1981) with a = -0.75 and taps clamped at the ends, or, for ``antialias``, a = -0.5 with
    taps beyond the ends left out: PyTorch's two bicubic filters.

    Args:
        cells: number of patches of each photo; rows from there on have no meaning.
        same: photos whose embeddings are not resampled.
        length: number of rows.
        grid: number of columns, the embeddings along an axis.
        kind: as ``VitConfig.positions``.
    """
    target = jnp.maximum(cells, 1).astype(jnp.float32) + (0.1 if kind == "offset" else 0.0)
    ratio = (grid / target)[:, None]
    centres = (jnp.arange(length) + 0.5) * ratio - 0.5
    if kind == "antialias":
        distance = jnp.abs(jnp.arange(grid) - centres[..., None]) / jnp.maximum(ratio, 1)[..., None]
        weights = _cubic(distance, -0.5)
        weights = weights / jnp.maximum(weights.sum(axis=-1, keepdims=True), 1e-6)
    else:
        first = jnp.floor(centres)
        weights = jnp.zeros((*centres.shape, grid))
        for step in (-1, 0, 1, 2):
            tap = jnp.clip(first + step, 0, grid - 1).astype(jnp.int32)
            weights += jax.nn.one_hot(tap, grid) * _cubic(jnp.abs(centres - first - step), -0.75)[..., None]
    return jnp.where(same[:, None, None], jnp.eye(length, grid), weights)


def _cubic(distance: Array, a: float) -> Array:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return jnp.where(distance <= 1, near, jnp.where(distance < 2, far, 0))


def initialise(config: VitConfig, *, seed: int) -> dict[str, Any]:
    """Random parameters for ``forward``: a nested dict of float32 arrays, matrices He-normal, vectors zero."""
    return layers.initialise(Vit, config, seed=seed)


def forward(
    params: Mapping[str, Any],
    images: Float[Array, "b h w 3"],
    regions: Regions | Int[Array, "b 2"],
    *,
    config: VitConfig,
    last: str = "relu",
    dtype: Any = jnp.float32,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> dict[str, Float[Array, "b _ _ _"]]:
    """The patch tokens of a batch of padded photos; pure and differentiable.

    ``tokens`` are the output of the last LayerNorm, ``relu`` is their positive part. Localization needs ``relu``: after
    a LayerNorm all tokens have about the same length, but the length separates foreground from background. Padded
    tokens are left out of every attention, and positions are resampled for the size of each photo. Arguments, padding
    and the result are as in ``resnet.forward``. Sources: Dosovitskiy et al., ICLR 2021; Caron et al., ICCV 2021;
    Oquab et al., 2023; Darcet et al., ICLR 2024.
    """
    network = nnx.merge(layers.structure(Vit, config)[0], dict(params))
    images, regions = placed(images.astype(dtype), regions)
    return network(images, regions, last=last, precision=precision)


def fold(tensors: Mapping[str, np.ndarray], config: VitConfig) -> dict[str, Any]:
    """Parameters for ``forward`` from the tensors of a model file, named by their path ("block1.qkv.kernel").

    Raises:
        ModelError: a tensor is missing or its shape does not fit the network.
    """

    def walk(shapes: Mapping[str, Any], path: str) -> dict[str, Any]:
        return {
            name: walk(child, f"{path}{name}.")
            if isinstance(child, Mapping)
            else take(tensors, f"{path}{name}", child.shape).astype(np.float32)
            for name, child in shapes.items()
        }

    return walk(layers.structure(Vit, config)[1], "")
