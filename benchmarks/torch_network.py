"""The same network with the same weights in PyTorch, and extraction as the official code does it."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from benchmarks.errors import PeerMissing, Unavailable
from delf_jax.models.architectures import Config
from delf_jax.models.layers import Layer, split_units
from delf_jax.models.resnet import STAGE_NAMES, ResNetConfig, pool_layer, stem_layer, unit_layers
from delf_jax.settings import Scorer

Photos = UInt8[np.ndarray, "b h w 3"]


class Variant(NamedTuple):
    """One way to run the network.

    Attributes:
        name: what its rows are called.
        precision: compute type.
        channels_last: memory format of photos and weights.
        compiled: by ``torch.compile``, weights frozen, one program a shape.
    """

    name: str
    precision: str = "float32"
    channels_last: bool = False
    compiled: bool = False


EAGER = Variant("PyTorch")
CHANNELS_LAST = Variant("PyTorch, channels last", channels_last=True)
COMPILED = Variant("PyTorch, compiled", channels_last=True, compiled=True)
BFLOAT16 = Variant("PyTorch, bfloat16", precision="bfloat16", channels_last=True)
COMPILED_BFLOAT16 = Variant("PyTorch, compiled, bfloat16", precision="bfloat16", channels_last=True, compiled=True)


def torch_module() -> Any:
    """PyTorch.

    Raises:
        PeerMissing: it is not installed.
    """
    try:
        import torch  # optional: a peer
    except ImportError as error:
        raise PeerMissing("PyTorch is not installed; pip install delf-jax[peers]") from error
    return torch


class TorchPeer:
    """Backbone and whole extraction in PyTorch, from the parameters of an extractor.

    Batch norm is folded into the convolutions here too, which plain PyTorch code would not do.
    """

    def __init__(
        self,
        variant: Variant,
        params: Mapping[str, Any],
        config: Config,
        preprocess: Mapping[str, Sequence[float]],
        *,
        layer: str = "conv4",
        scorer: Scorer = "norm",
    ) -> None:
        """Builds the network on the GPU where PyTorch has one, else on the CPU.

        Args:
            variant: how to run it.
            params: ``extractor.params``.
            config: of the backbone.
            preprocess: {"mean", "std"} of the photos' channels.
            layer: the map to compute.
            scorer: of the places, ``norm`` or ``learned``.

        Raises:
            PeerMissing: PyTorch is not installed.
            Unavailable: not a network that this file knows, or ``torch.compile`` does not work here.
        """
        self._torch = torch_module()
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        # Full float32, as ours; the GPU's own default is less.
        self._torch.backends.cudnn.allow_tf32 = False
        self._head = {name: self._tensor(value) for name, value in params["head"].items() if name.startswith("pca_")}
        self._mean, self._std = (
            self._tensor(np.asarray(preprocess[name], np.float32)[:, None, None]) for name in ("mean", "std")
        )
        self._variant = variant
        memory = self._torch.channels_last if variant.channels_last else self._torch.contiguous_format
        self._format = {"memory_format": memory}
        network = residual_network(self._torch, jax.device_get(params["backbone"]), config, layer)
        self._network = self._ready(network, channels=3)
        self._score = functools.partial(attention_network, self._torch, jax.device_get(params["head"]), scorer)

    def backbone(self, photos: Photos) -> Any:
        """The map of a batch at scale 1, [b, C, h, w] on the device, computed."""
        with self._torch.inference_mode():
            dense = self._maps(self._images(photos))
            if self._device == "cuda":
                self._torch.cuda.synchronize()
        return dense

    def extract(self, photos: Photos, *, scales: Sequence[float], max_features: int) -> dict[str, np.ndarray]:
        """Local features of a batch, scale after scale: the best cells by score, L2, PCA, L2, on the host.

        Every cell is a place of its own, as in the official code, so this does less than our ``peaks``.

        Raises:
            Unavailable: a scorer that this file does not know.
        """
        functional = self._torch.nn.functional
        with self._torch.inference_mode():
            images = self._images(photos)
            found = [self._level(images, scale, max_features) for scale in scales]
            scores, keypoints, features = (self._torch.cat(parts, 1) for parts in zip(*found))
            scores, rows = scores.topk(min(max_features, scores.shape[1]), dim=1)
            features = functional.normalize(_take(features, rows), dim=-1)
            if self._head:
                features = (features - self._head["pca_mean"]) @ self._head["pca_projection"]
                features = functional.normalize(features, dim=-1)
            result = {"scores": scores, "keypoints": _take(keypoints, rows), "descriptors": features}
            return {name: value.cpu().numpy() for name, value in result.items()}

    @functools.cached_property
    def _attention(self) -> Any:
        network = self._score()
        return None if network is None else self._ready(network, channels=network[0].in_channels)

    def _level(self, images: Any, scale: float, max_features: int) -> tuple[Any, Any, Any]:
        torch = self._torch
        if scale != 1:
            size = [math.floor(side * scale + 0.5) for side in images.shape[2:]]
            images = torch.nn.functional.interpolate(
                images, size, mode="bilinear", antialias=scale < 1, align_corners=False
            ).contiguous(**self._format)
        dense = self._maps(images)
        attention = None if self._attention is None else self._run(self._attention, dense).float().flatten(1)
        dense = dense.float()
        features = dense.flatten(2).transpose(1, 2)
        scores = features.norm(dim=2) if attention is None else attention
        scores, cells = scores.topk(min(max_features, features.shape[1]), dim=1)
        positions = torch.stack([cells % dense.shape[3], cells // dense.shape[3]], dim=-1)
        pitch = images.shape[2] / dense.shape[2] / scale
        return scores, positions * pitch, _take(features, cells)

    def _images(self, photos: Photos) -> Any:
        """Photos as float32 [b, 3, h, w] in 0-255 on the device."""
        images = self._torch.from_numpy(photos).to(self._device).permute(0, 3, 1, 2)
        return images.to(self._torch.float32).contiguous(**self._format)

    def _maps(self, images: Any) -> Any:
        return self._run(self._network, (images - self._mean) / self._std)

    def _run(self, network: Any, values: Any) -> Any:
        if self._variant.precision == "float32":
            return network(values)
        with self._torch.autocast(self._device, self._torch.bfloat16):
            return network(values)

    def _ready(self, network: Any, *, channels: int) -> Any:
        network = network.eval().to(self._device, **self._format)
        if not self._variant.compiled:
            return network
        # One program a shape: past the default of eight shapes PyTorch would quietly stop compiling.
        self._torch._dynamo.config.recompile_limit = 64
        compiled = self._torch.compile(network, dynamic=False, options={"freezing": True})
        example = self._torch.zeros((1, channels, 64, 64), device=self._device).contiguous(**self._format)
        try:
            with self._torch.inference_mode():
                compiled(example)
        except Exception as error:  # whatever a missing compiler leads to in there
            reason = str(error).strip().splitlines()[0]
            raise Unavailable(f"torch.compile does not work here ({reason})") from error
        return compiled

    def _tensor(self, value: Any) -> Any:
        return self._torch.from_numpy(np.array(value, np.float32)).to(self._device)


def residual_network(torch: Any, params: Mapping[str, Any], config: Config, last: str) -> Any:
    """A ``torch.nn.Module`` from photos [b, 3, h, w], already normalised, to the map ``last``.

    Raises:
        Unavailable: not a residual network with symmetric padding.
    """
    if not isinstance(config, ResNetConfig) or config.layout == "tf_slim":
        raise Unavailable("the PyTorch form of this network is not written")
    relu = torch.nn.functional.relu
    convolution = functools.partial(_convolution, torch)

    class Unit(torch.nn.Module):
        def __init__(self, weights: Mapping[str, Any], windows: Sequence[Any]) -> None:
            super().__init__()
            names = ("reduce", "spatial", "expand")
            self.reduce, self.spatial, self.expand = (convolution(weights[n], w) for n, w in zip(names, windows))
            projection = Layer(1, windows[0].stride * windows[1].stride, 0)
            self.shortcut = convolution(weights["shortcut"], projection) if "shortcut" in weights else None

        def forward(self, x: Any) -> Any:
            y = relu(self.reduce(x), inplace=True)
            y = self.expand(relu(self.spatial(y), inplace=True))
            return relu(y + (x if self.shortcut is None else self.shortcut(x)), inplace=True)

    pool = pool_layer(config)
    parts = [
        convolution(params["conv1"], stem_layer(config)),
        torch.nn.ReLU(inplace=True),
        torch.nn.MaxPool2d(pool.kernel, pool.stride, pool.padding),
    ]
    params = split_units(params)
    for stage, name in enumerate(STAGE_NAMES[: STAGE_NAMES.index(last) + 1]):
        for index in range(config.blocks[stage]):
            parts.append(Unit(params[name][f"unit{index + 1}"], unit_layers(config, stage, index)))
    return torch.nn.Sequential(*parts)


def attention_network(torch: Any, head: Mapping[str, Any], scorer: Scorer) -> Any:
    """A ``torch.nn.Module`` from a map [b, C, h, w] to its scores [b, 1, h, w]; None for the norm of the features.

    Raises:
        Unavailable: another scorer, or a head with an autoencoder.
    """
    if scorer == "norm":
        return None
    if scorer != "learned" or "autoencoder" in head:
        raise Unavailable("the PyTorch form of this scorer is not written")
    weights = head["attention"]
    cell = Layer(1, 1, 0)
    hidden = {"kernel": weights["hidden_kernel"][None, None], "bias": weights["hidden_bias"]}
    logit = {"kernel": weights["kernel"][None, None, :, None], "bias": weights["bias"][None]}
    return torch.nn.Sequential(
        _convolution(torch, hidden, cell),
        torch.nn.ReLU(inplace=True),
        _convolution(torch, logit, cell),
        torch.nn.Softplus(),
    )


def _convolution(torch: Any, weights: Mapping[str, Any], window: Layer) -> Any:
    kernel = torch.from_numpy(np.array(weights["kernel"])).permute(3, 2, 0, 1).contiguous()
    made = torch.nn.Conv2d(kernel.shape[1], kernel.shape[0], window.kernel, window.stride, window.padding)
    made.load_state_dict({"weight": kernel, "bias": torch.from_numpy(np.array(weights["bias"]))})
    return made


def _take(values: Any, rows: Any) -> Any:
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[2]))
