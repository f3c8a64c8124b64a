"""The networks trained on top of a backbone (attention, autoencoder, classifiers), and their export as a head's arrays.

The layers are those of DELF section 3.3 and the official trainer: attention = 1x1 convolution to 512, optional batch
norm, ReLU, 1x1 convolution to 1, softplus; autoencoder = linear 1x1 to d, 1x1 back with ReLU (DELG section 3.3).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from delf_jax.models.layers import Linear
from delf_jax.models.pooling import gem
from delf_jax.training.losses import ARCFACE_MARGIN, arcface_logits

NORM_EPSILON = 1.001e-5
_NORM_MOMENTUM = 0.9
AXIS = "batch"


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Which heads there are, and their sizes.

    Attributes:
        classes: classes to tell apart.
        channels: of the map that the attention weighs.
        hidden: channels between the attention's two convolutions; 0 for no attention at all.
        batch_norm: a batch norm behind the attention's first convolution (official code).
        autoencoder: channels of the reduced features (DELG); 0 for none.
        photo_channels: of the map that is pooled over the whole photo to train the backbone; 0 for none.
        embedding: 0 classifies the mean of that map; otherwise the length of DELG's global descriptor, GeM pooled.
    """

    classes: int
    channels: int
    hidden: int = 512
    batch_norm: bool = False
    autoencoder: int = 0
    photo_channels: int = 0
    embedding: int = 0


class BatchNorm(nnx.Module):
    """Batch norm over the usable cells of all devices' photos; keeps running moments for evaluation."""

    def __init__(self, channels: int) -> None:
        self.factor = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.shift = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((channels,), jnp.float32))
        self.variance = nnx.BatchStat(jnp.ones((channels,), jnp.float32))

    def __call__(self, x: Array, where: Array, *, training: bool) -> Array:
        mean, variance = self.mean[...], self.variance[...]
        if training:
            weight = where[..., None].astype(jnp.float32)
            axes = tuple(range(x.ndim - 1))
            count = jnp.maximum(lax.psum(weight.sum(), AXIS), 1)
            mean = lax.psum((weight * x).sum(axis=axes), AXIS) / count
            variance = lax.psum((weight * jnp.square(x - mean)).sum(axis=axes), AXIS) / count
            self.mean[...] = _NORM_MOMENTUM * self.mean[...] + (1 - _NORM_MOMENTUM) * lax.stop_gradient(mean)
            self.variance[...] = _NORM_MOMENTUM * self.variance[...] + (1 - _NORM_MOMENTUM) * lax.stop_gradient(
                variance
            )
        # The factor is stored as its difference from 1, so that every vector starts at zero.
        return (x - mean) * lax.rsqrt(variance + NORM_EPSILON) * (1 + self.factor[...]) + self.shift[...]


class Attention(nnx.Module):
    """Dense features -> one non-negative score a cell."""

    def __init__(self, config: NetworkConfig) -> None:
        self.hidden = Linear(config.channels, config.hidden)
        self.norm = BatchNorm(config.hidden) if config.batch_norm else None
        self.output = Linear(config.hidden, 1)

    def __call__(self, x: Array, where: Array, *, training: bool) -> Array:
        hidden = self.hidden(x, lax.Precision.HIGHEST).astype(jnp.float32)
        if self.norm is not None:
            hidden = self.norm(hidden, where, training=training)
        logits = self.output(jax.nn.relu(hidden).astype(x.dtype), lax.Precision.HIGHEST)[..., 0]
        return jax.nn.softplus(logits.astype(jnp.float32))


class Autoencoder(nnx.Module):
    """Dense features -> features of fewer channels, and back."""

    def __init__(self, channels: int, dimension: int) -> None:
        self.encode = Linear(channels, dimension)
        self.decode = Linear(dimension, channels)

    def __call__(self, x: Array) -> Array:
        return jax.nn.relu(self.decode(self.encode(x, lax.Precision.HIGHEST), lax.Precision.HIGHEST))


class Heads(nnx.Module):
    """All that a recipe may train besides the backbone."""

    def __init__(self, config: NetworkConfig) -> None:
        if config.hidden:
            self.attention = Attention(config)
            self.classifier = Linear(config.channels, config.classes)
        self.autoencoder = Autoencoder(config.channels, config.autoencoder) if config.autoencoder else None
        self.embedding = Linear(config.photo_channels, config.embedding) if config.embedding else None
        if config.photo_channels:
            self.photo_classifier = Linear(config.embedding or config.photo_channels, config.classes)

    def scores(self, cells: Float[Array, "b n c"], where: Bool[Array, "b n"], *, training: bool) -> Float[Array, "b n"]:
        """The attention of every cell."""
        return self.attention(cells, where, training=training)

    def attention_logits(self, pooled: Float[Array, "b c"]) -> Float[Array, "b k"]:
        """Class scores from the features that the attention weighted."""
        return self.classifier(pooled, lax.Precision.HIGHEST)

    def photo_logits(
        self, cells: Float[Array, "b n c"], where: Bool[Array, "b n"], labels: Int[Array, " b"], *, training: bool
    ) -> Float[Array, "b k"]:
        """Class scores from the map's mean, or by ArcFace from DELG's global descriptor (GeM, then linear)."""
        if self.embedding is None:
            return self.photo_classifier(gem(cells, where, 1.0), lax.Precision.HIGHEST)
        vector = self.embedding(gem(cells, where), lax.Precision.HIGHEST)
        # No margin in evaluation: it would lower the right class.
        margin = ARCFACE_MARGIN if training else 0.0
        return arcface_logits(vector, self.photo_classifier.kernel[...], labels, margin=margin)


def initialise(config: NetworkConfig, *, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random parameters of ``Heads`` and its running statistics.

    Kernels in front of a ReLU are He-normal, others LeCun-normal; classifiers and vectors start at zero, so the first
    loss is the logarithm of the number of classes. ArcFace compares directions, so its classifier starts at random.
    """
    _, (parameters, statistics) = _split(Heads(config))
    generator = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: Array) -> np.ndarray:
        layer = jax.tree_util.keystr(path[:-1], simple=True, separator=".")
        compares_directions = layer == "photo_classifier" and config.embedding
        if leaf.ndim == 1 or (layer.endswith("classifier") and not compares_directions):
            return np.zeros(leaf.shape, np.float32)
        gain = 2 if layer.endswith(("hidden", "decode")) else 1
        return ((gain / leaf.shape[0]) ** 0.5 * generator.standard_normal(leaf.shape)).astype(np.float32)

    drawn = jax.tree_util.tree_map_with_path(draw, nnx.to_pure_dict(parameters))
    return drawn, jax.tree.map(np.asarray, nnx.to_pure_dict(statistics))


def merge(config: NetworkConfig, parameters: dict[str, Any], statistics: dict[str, Any]) -> Heads:
    """The module with these parameters, for use inside a traced function."""
    graph, (parameter_state, statistic_state) = _split(nnx.eval_shape(lambda: Heads(config)))
    nnx.replace_by_pure_dict(parameter_state, parameters)
    nnx.replace_by_pure_dict(statistic_state, statistics)
    heads: Heads = nnx.merge(graph, parameter_state, statistic_state)
    return heads


def statistics_of(heads: Heads) -> dict[str, Any]:
    """The running statistics after a pass with ``training=True``."""
    statistics: dict[str, Any] = nnx.to_pure_dict(nnx.state(heads, nnx.BatchStat))
    return statistics


def export(
    config: NetworkConfig, parameters: dict[str, Any], statistics: dict[str, Any], *, unit: float
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
    """The head file's arrays of the attention and of the autoencoder, for features as the backbone gives them.

    Batch norm and the unit of training (features were multiplied by ``unit``) are folded in, in float64:
    hidden_kernel = unit * W * g / sqrt(v + eps);  hidden_bias = (b - m) * g / sqrt(v + eps) + s.

    Args:
        config, parameters, statistics: of ``Heads``.
        unit: factor from the backbone's features to those used in training.

    Returns:
        {hidden_kernel [C, h], hidden_bias [h], kernel [h], bias []}, and with an autoencoder
        {encode_kernel [C, d], encode_bias [d], decode_kernel [d, C], decode_bias [C]}; float32.
    """
    attention = jax.tree.map(lambda a: np.asarray(a, np.float64), parameters["attention"])
    kernel, bias = attention["hidden"]["kernel"], attention["hidden"]["bias"]
    if config.batch_norm:
        running = jax.tree.map(lambda a: np.asarray(a, np.float64), statistics["attention"]["norm"])
        factor = (1 + attention["norm"]["factor"]) / np.sqrt(running["variance"] + NORM_EPSILON)
        kernel, bias = kernel * factor, (bias - running["mean"]) * factor + attention["norm"]["shift"]
    arrays = {
        "hidden_kernel": unit * kernel,
        "hidden_bias": bias,
        "kernel": attention["output"]["kernel"][:, 0],
        "bias": attention["output"]["bias"][0],
    }
    autoencoder = None
    if config.autoencoder:
        parts = jax.tree.map(lambda a: np.asarray(a, np.float64), parameters["autoencoder"])
        # ReLU(x / unit) = ReLU(x) / unit: the decoder's output is in the backbone's units.
        autoencoder = {
            "encode_kernel": unit * parts["encode"]["kernel"],
            "encode_bias": parts["encode"]["bias"],
            "decode_kernel": parts["decode"]["kernel"] / unit,
            "decode_bias": parts["decode"]["bias"] / unit,
        }
    return _float32(arrays), None if autoencoder is None else _float32(autoencoder)


def imported_attention(arrays: Mapping[str, np.ndarray], *, unit: float) -> dict[str, Any]:
    """Parameters of the attention from a head file's arrays, so that `export` gives these arrays again.

    Args:
        arrays: {hidden_kernel [C, h], hidden_bias [h], kernel [h], bias []}.
        unit: factor from the backbone's features to those used in training.
    """
    return {
        "hidden": _float32({"kernel": arrays["hidden_kernel"] / unit, "bias": arrays["hidden_bias"]}),
        "output": _float32({"kernel": arrays["kernel"][:, None], "bias": arrays["bias"][None]}),
    }


def _float32(arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def _split(heads: Heads) -> tuple[nnx.GraphDef, tuple[nnx.State, nnx.State]]:
    graph, *states = nnx.split(heads, nnx.Param, nnx.BatchStat)
    return graph, (states[0], states[1])
