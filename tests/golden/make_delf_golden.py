"""Writes delf.npz beside it: what PyTorch makes of random checkpoints in the official names.

    python -m tests.golden.make_delf_golden

Needs PyTorch, and nothing of this project. The forward passes follow TF-slim's resnet_v1 and the official Keras
training code: strides, paddings, batch-norm epsilons, and where the attention looks.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F

from tests.golden.make_resnet_golden import FOLDER, Weights, forward_tf_slim, pad, sample
from tests.golden.random_delf import SIZES, UNITS, keras_arrays, slim_arrays
from tests.golden.random_resnet import random_photo

Arrays = Mapping[str, torch.Tensor]


def convolve(x: torch.Tensor, arrays: Arrays, kernel: str, stride: int = 1) -> torch.Tensor:
    """VALID convolution by an HWIO kernel, with the bias beside it if there is one."""
    scope = kernel.rpartition("/")[0]
    bias = next((arrays[f"{scope}/{name}"] for name in ("bias", "biases") if f"{scope}/{name}" in arrays), None)
    return F.conv2d(x, arrays[kernel].permute(3, 2, 0, 1), bias, stride=stride)


def normalise(x: torch.Tensor, arrays: Arrays, scope: str, epsilon: float) -> torch.Tensor:
    """Batch norm by its running moments."""
    mean, variance, scale, shift = (
        arrays[f"{scope}/{part}"] for part in ("moving_mean", "moving_variance", "gamma", "beta")
    )
    return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, epsilon)


def slim_weights(arrays: Arrays, depth: int) -> Weights:
    """Looks up TF-slim's variables."""
    names = {"1": "conv1", "2": "conv2", "3": "conv3", "shortcut": "shortcut"}

    def find(stage: int, unit: int, position: str) -> Callable[[torch.Tensor, int], torch.Tensor]:
        inner = "" if stage == 1 else f"block{stage - 1}/unit_{unit + 1}/bottleneck_v1/"
        scope = f"resnet_v1_{depth}/{inner}{names[position]}"
        return lambda x, stride: normalise(
            convolve(x, arrays, f"{scope}/weights", stride), arrays, f"{scope}/BatchNorm", 1e-5
        )

    return find


def slim_maps(
    photo: np.ndarray, depth: int, stride: int, attention: str, autoencoder: str | None
) -> dict[str, np.ndarray]:
    """conv4 and attention of a normalised photo [H, W, 3], cells `stride` pixels apart."""
    arrays = {n: torch.tensor(a) for n, a in slim_arrays(depth, attention=attention, autoencoder=autoencoder).items()}
    x = torch.tensor(photo).permute(2, 0, 1)[None]
    strides = (2, 2, 2 if stride == 32 else 1)
    x = forward_tf_slim(x, slim_weights(arrays, depth), UNITS[depth][:3], strides)["conv4"]
    maps, seen = {"conv4": x}, x
    if autoencoder:
        maps["reduced"] = convolve(x, arrays, f"{autoencoder}/conv1/weights")
        seen = F.relu(convolve(maps["reduced"], arrays, f"{autoencoder}/conv2/weights"))
    scope = f"{attention}/attention/compute"
    hidden = F.relu(
        normalise(convolve(seen, arrays, f"{scope}/conv1/weights"), arrays, f"{scope}/conv1/BatchNorm", 1e-5)
    )
    maps["attention"] = F.softplus(convolve(hidden, arrays, f"{scope}/conv2/weights"))
    return _as_arrays(maps)


def keras_maps(photo: np.ndarray, stride: int) -> dict[str, np.ndarray]:
    """conv4, conv5, reduced features and attention; ``block3_strides`` makes cells 32 pixels apart."""
    arrays = {name: torch.tensor(array) for name, array in keras_arrays().items()}

    def layer(x: torch.Tensor, conv: str, norm: str, step: int = 1) -> torch.Tensor:
        return normalise(convolve(x, arrays, f"{conv}/kernel", step), arrays, norm, 1e-3)

    x = torch.tensor(photo).permute(2, 0, 1)[None]
    margins: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // 2) - 1) * 2 + 7 - size, 0)
        margins += [total // 2, total - total // 2]
    x = F.relu(layer(F.pad(x, margins), "backbone/conv1", "backbone/bn_conv1", 2))
    x = F.max_pool2d(x, 3, 2)
    maps: dict[str, torch.Tensor] = {}
    for stage, units in enumerate(UNITS[50], start=2):
        for unit in range(units):
            place = f"backbone/l{stage}{'abcdef'[unit]}"
            step = 2 if unit == 0 and (stage in (3, 4) or (stage == 5 and stride == 16)) else 1
            y = F.relu(layer(x, f"{place}/conv2a", f"{place}/bn2a", step))
            y = F.relu(layer(pad(y, 1, 1), f"{place}/conv2b", f"{place}/bn2b"))
            y = layer(y, f"{place}/conv2c", f"{place}/bn2c")
            x = F.relu(y + (layer(x, f"{place}/conv_shortcut", f"{place}/bn_shortcut", step) if unit == 0 else x))
        if stage == 4 and stride == 32:
            x = F.max_pool2d(x, 1, 2)
        if stage >= 4:
            maps[f"conv{stage}"] = x
    maps["reduced"] = convolve(maps["conv4"], arrays, "autoencoder/conv1/kernel")
    seen = F.relu(convolve(maps["reduced"], arrays, "autoencoder/conv2/kernel"))
    hidden = F.relu(layer(seen, "attention/conv1", "attention/bn_conv1"))
    maps["attention"] = F.softplus(convolve(hidden, arrays, "attention/conv2/kernel"))
    return _as_arrays(maps)


def _as_arrays(maps: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: values[0].permute(1, 2, 0).numpy() for name, values in maps.items()}


def main() -> None:
    """Writes everything anew."""
    golden: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for height, width in SIZES:
            photo, size = random_photo(height, width), f"{height}x{width}"
            golden |= sample(slim_maps(photo, 50, 32, "attonly", None), f"slim50/{size}", 400)
            golden |= sample(slim_maps(photo, 101, 16, "attention_block", "local/autoencoder"), f"slim101/{size}", 400)
            for stride in (16, 32):
                golden |= sample(keras_maps(photo, stride), f"keras{stride}/{size}", 400)
    np.savez_compressed(FOLDER / "delf.npz", **golden)


if __name__ == "__main__":
    main()
