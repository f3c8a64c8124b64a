"""Building blocks of the networks: windows that never read padding, folded batch norm, parameters as nested dicts."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from delf_jax.errors import ModelError
from delf_jax.models import space_to_depth, winograd
from delf_jax.models.regions import Regions, regions_of


@dataclass(frozen=True)
class Layer:
    """Geometry of one square convolution or pooling window; ``padding`` on each side, or TensorFlow's SAME."""

    kernel: int
    stride: int
    padding: int | Literal["same"]

    def output_size(self, size: Any) -> Any:
        """Cells along an axis that has ``size`` cells; integers, NumPy or traced arrays."""
        if self.padding == "same":
            return -(-size // self.stride)
        return (size + 2 * self.padding - self.kernel) // self.stride + 1

    def low_padding(self, size: Any) -> Any:
        """Padding before the first cell of an axis of ``size`` cells; SAME puts an odd cell after the last one."""
        if self.padding != "same":
            return self.padding
        return ((self.output_size(size) - 1) * self.stride + self.kernel - size) // 2


def output_size(windows: Iterable[Layer], size: Any) -> Any:
    """Cells along an axis of ``size`` cells after all windows; an int, or an integer NumPy or traced array."""
    for layer in windows:
        size = layer.output_size(size)
    return size


def valid_cells(
    valid_hw: Int[Array | np.ndarray, "*b 2"], height: int, width: int
) -> Bool[Array, "*b {height} {width}"]:
    """True on the cells of a [height, width] canvas that belong to a photo of size ``valid_hw`` (height, width)."""
    valid_hw = jnp.asarray(valid_hw)
    rows = jnp.arange(height) < valid_hw[..., :1]
    columns = jnp.arange(width) < valid_hw[..., 1:]
    return rows[..., :, None] & columns[..., None, :]


def mask_padding(x: Float[Array, "b h w c"], regions: Regions) -> Float[Array, "b h w c"]:
    """Sets the cells outside the photos to zero, even if they are NaN."""
    return jnp.where(regions.mask(*x.shape[1:3])[..., None], x, jnp.zeros((), x.dtype))


def placed(
    images: Float[Array, "b h w c"], regions: Regions | Int[Array, "b 2"]
) -> tuple[Float[Array, "b h w c"], Regions]:
    """Images and their regions as they are; for sizes, photos in the top-left corners of images cleared around them."""
    found = regions_of(regions, images)
    return (images if isinstance(regions, Regions) else mask_padding(images, found)), found


def align(x: Float[Array, "b h w c"], regions: Regions, layer: Layer) -> Float[Array, "b _ _ c"]:
    """Moves the photos of a batch so that one padding of a SAME convolution of stride 2 is right for all of them.

    Along an axis, SAME adds kernel // 2 cells before the first cell of a photo of odd size, and one cell less for a
    photo of even size. Photos of odd size are moved by one cell, so every photo needs the smaller padding; the canvas
    grows by one cell. For layers with other paddings ``x`` is returned as it is.
    """
    if layer.padding != "same":
        return x
    for axis in (1, 2):
        away, still = [(0, 0)] * 4, [(0, 0)] * 4
        away[axis], still[axis] = (1, 0), (0, 1)
        moved, kept = jnp.pad(x, away), jnp.pad(x, still)
        is_odd = (regions.sizes[..., axis - 1] % 2 == 1)[:, regions.places(*kept.shape[1:3])]
        x = jnp.where(is_odd[..., None], moved, kept)
    return x


class Convolution(nnx.Module):
    """A convolution, its batch norm folded into kernel and bias; zero until it gets parameters.

    SAME padding differs from photo to photo: such a convolution takes the output of ``align``. ``copies`` is the
    leading axis of parameters that ``lax.scan`` goes through: (number of equal units,), or nothing.
    """

    def __init__(self, layer: Layer, inputs: int, outputs: int, copies: tuple[int, ...] = ()) -> None:
        self.layer = layer
        self.kernel = nnx.Param(jnp.zeros((*copies, layer.kernel, layer.kernel, inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((*copies, outputs), jnp.float32))

    def __call__(self, x: Array, precision: lax.PrecisionLike) -> Array:
        stride, pad = self.layer.stride, self.layer.padding
        half = self.layer.kernel // 2
        padding = (half - 1, half) if pad == "same" else (pad, pad)

        def plain(x: Array, kernel: Array) -> Array:
            return lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(stride, stride),
                padding=(padding, padding),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=precision,
            )

        kernel = jnp.asarray(self.kernel[...], x.dtype)
        quicker: dict[str, Callable[[Array, Array], Array]] = {}
        if (
            self.layer == Layer(kernel=3, stride=1, padding=1)
            and x.dtype == jnp.float32
            and winograd.is_faster(*x.shape[1:])
        ):
            quicker["cpu"] = functools.partial(winograd.convolve, precision=precision)
        elif stride == 2 and x.shape[-1] == 3:
            quicker["tpu"] = functools.partial(space_to_depth.convolve, padding=padding, precision=precision)
        y = lax.platform_dependent(x, kernel, **quicker, default=plain) if quicker else plain(x, kernel)
        return y + self.bias[...].astype(x.dtype)


class Linear(nnx.Module):
    """A matrix and a bias; zero until it gets parameters."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.kernel = nnx.Param(jnp.zeros((inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32))

    def __call__(self, x: Array, precision: lax.PrecisionLike) -> Array:
        return jnp.matmul(x, self.kernel[...].astype(x.dtype), precision=precision) + self.bias[...].astype(x.dtype)


def max_pool(x: Float[Array, "b h w c"], regions: Regions, layer: Layer) -> Float[Array, "b _ _ c"]:
    """Max pool of a map without negative values that is zero outside the photos, so padding never wins."""
    low = layer.kernel // 2 - 1 if layer.padding == "same" else layer.padding
    cells = x.shape
    x = align(x, regions, layer)
    padding = [(0, 0)] * 4
    for axis in (1, 2):
        needed = (layer.output_size(cells[axis]) - 1) * layer.stride + layer.kernel
        padding[axis] = (low, max(needed - low - x.shape[axis], 0))
    window, strides = (1, layer.kernel, layer.kernel, 1), (1, layer.stride, layer.stride, 1)
    # JAX can only differentiate a maximum that starts from its neutral element.
    return lax.reduce_window(x, -np.inf, lax.max, window, strides, padding)


@functools.lru_cache(maxsize=16)
def structure(network: Callable[[Any], nnx.Module], config: Any) -> tuple[nnx.GraphDef, dict[str, Any]]:
    """The structure of ``network(config)`` and the shapes of its parameters, nested; nothing is computed."""
    graph, state = nnx.split(nnx.eval_shape(lambda: network(config)))
    return graph, nnx.to_pure_dict(state)


def initialise(network: Callable[[Any], nnx.Module], config: Any, *, seed: int) -> dict[str, Any]:
    """Random parameters of ``network(config)``: nested float32 arrays, kernels He-normal, vectors zero."""
    generator = np.random.default_rng(seed)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(leaf.shape) == 1:
            return np.zeros(leaf.shape, np.float32)
        deviation = (2 / np.prod(leaf.shape[:-1])) ** 0.5
        return (deviation * generator.standard_normal(leaf.shape)).astype(np.float32)

    shapes = structure(network, config)[1]
    return join_units(jax.tree.map(draw, split_units(shapes)), shapes)


def split_units(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with an entry for each unit: ``units2to4``, with a leading axis of 3, becomes unit2, unit3, unit4.

    Takes nested dicts of arrays or of ``jax.ShapeDtypeStruct``.
    """
    found: dict[str, Any] = {}
    for name, child in parameters.items():
        if not isinstance(child, Mapping):
            found[name] = child
        elif numbers := _units(name):
            for row, number in enumerate(numbers):
                found[f"unit{number}"] = jax.tree.map(functools.partial(_row, row=row), child)
        else:
            found[name] = split_units(child)
    return found


def join_units(parameters: Mapping[str, Any], shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The opposite of ``split_units``, for NumPy arrays; ``shapes`` as returned by ``structure``."""
    found: dict[str, Any] = {}
    for name, child in shapes.items():
        if numbers := _units(name):
            units = [parameters[f"unit{number}"] for number in numbers]
            found[name] = jax.tree.map(lambda *leaves: np.stack(leaves), *units)
        elif isinstance(child, Mapping) and "kernel" not in child:
            found[name] = join_units(parameters[name], child)
        else:
            found[name] = parameters[name]
    return found


def units_name(first: int, count: int) -> str:
    """The name of the parameters of ``count`` equal units: unit1, or units2to4 with a leading axis of 3."""
    return f"unit{first}" if count == 1 else f"units{first}to{first + count - 1}"


def _units(name: str) -> Sequence[int]:
    """The numbers of the units that have a leading axis in common under this name (``units_name``); none otherwise."""
    found = re.fullmatch(r"units(\d+)to(\d+)", name)
    return range(int(found[1]), int(found[2]) + 1) if found else ()


def _row(leaf: Any, row: int) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf[row]


def take(tensors: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor ``name`` in float64.

    Raises:
        ModelError: it is missing or has another shape.
    """
    if name not in tensors:
        raise ModelError(f"{name}: missing; give the weights of the whole network")
    if tensors[name].shape != shape:
        raise ModelError(f"{name}: its shape is {tensors[name].shape}, not {shape}; give the weights of this network")
    return np.asarray(tensors[name], np.float64)


def fold_convolutions(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, Any], *, norm_epsilon: float | None
) -> dict[str, Any]:
    """Parameters of nested convolutions, the batch norm behind each folded into its kernel and bias.

    factor = scale / sqrt(variance + epsilon);  kernel' = kernel * factor;  bias' = shift + (bias - mean) * factor

    Args:
        tensors: ``{"conv3.unit1.reduce.kernel": [1, 1, in, out], "...bias": [out] (where the source has it),
            "...norm.scale", "...norm.shift", "...norm.mean", "...norm.variance": [out]}`` of any float type.
        shapes: as returned by ``structure``.
        norm_epsilon: of the batch norm; None if the network has no batch norm, but a bias at every convolution.

    Returns:
        Nested dict of float32 arrays; computed in float64.

    Raises:
        ModelError: a tensor is missing or its shape does not fit the network.
    """

    def convolution(path: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        kernel = take(tensors, f"{path}.kernel", shape)
        has_bias = norm_epsilon is None or f"{path}.bias" in tensors
        bias = take(tensors, f"{path}.bias", shape[-1:]) if has_bias else np.zeros(shape[-1:])
        if norm_epsilon is not None:
            scale, shift, mean, variance = (
                take(tensors, f"{path}.norm.{part}", shape[-1:]) for part in ("scale", "shift", "mean", "variance")
            )
            factor = scale / np.sqrt(variance + norm_epsilon)
            kernel, bias = kernel * factor, shift + (bias - mean) * factor
        return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}

    def walk(shapes: Mapping[str, Any], path: str) -> dict[str, Any]:
        if "kernel" in shapes:
            return convolution(path, shapes["kernel"].shape)
        return {name: walk(child, f"{path}.{name}" if path else name) for name, child in shapes.items()}

    return join_units(walk(split_units(shapes), ""), shapes)
