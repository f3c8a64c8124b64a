"""ResNet weights in torchvision's naming (.pth or safetensors) -> this project's tensors."""

import os
import re

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from delf_jax.errors import ModelError, reason_of
from delf_jax.import_weights.imported_backbone import ImportedBackbone, count_units
from delf_jax.import_weights.torch_file import read_torch_file
from delf_jax.models.resnet import ResNetConfig

# torchvision's normalisation of ImageNet photos, on the 0-255 scale.
IMAGENET_PREPROCESS = {
    "mean": [255 * value for value in (0.485, 0.456, 0.406)],
    "std": [255 * value for value in (0.229, 0.224, 0.225)],
}

_POSITIONS = {"1": "reduce", "2": "spatial", "3": "expand"}
# The tensors of a batch norm in PyTorch.
NORM_PARTS = {
    "weight": "norm.scale",
    "bias": "norm.shift",
    "running_mean": "norm.mean",
    "running_var": "norm.variance",
}


def import_torchvision(path: str | os.PathLike[str]) -> ImportedBackbone:
    """Reads a bottleneck ResNet v1.5 (stride in the 3x3) without its classifier.

    Any prefix before torchvision's names (``module.``, ``backbone.``, ...) is allowed. Of several networks in a file it
    takes the teacher (DINO) or the query encoder (MoCo, DenseCL), otherwise the first one. Photos are assumed to be
    normalised by ImageNet's mean and standard deviation.

    Args:
        path: a PyTorch file, of which only tensors are unpickled, or a ``.safetensors`` file.

    Raises:
        ModelError: the file is missing or damaged, or holds anything but the tensors of a bottleneck ResNet.
    """
    place = os.fspath(path)
    arrays = read_tensors(place)
    anchor = "layer1.0.conv1.weight"
    prefixes = [name.removesuffix(anchor) for name in arrays if name.endswith(anchor)]
    if not prefixes:
        raise ModelError(f"{place}: no tensor named {anchor}; is it a ResNet in torchvision's naming?")
    prefix = max(prefixes, key=lambda name: ("teacher" in name, "encoder_q" in name))
    tensors: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        target = _target(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if target is not None:
            # PyTorch keeps kernels as [out, in, height, width].
            array = array.transpose(2, 3, 1, 0) if target.endswith(".kernel") else array
            tensors[target] = np.ascontiguousarray(array, np.float32)
    if "conv1.kernel" not in tensors or "conv2.unit1.expand.kernel" not in tensors:
        raise ModelError(f"{place}: no bottleneck units with a plain stem; ResNet-50, -101 or -152 is needed")
    config = ResNetConfig(
        layout="torchvision",
        norm_epsilon=1e-5,
        blocks=count_units(tensors, place),
        width=tensors["conv1.kernel"].shape[-1],
    )
    return ImportedBackbone(config, tensors, IMAGENET_PREPROCESS)


def _target(name: str) -> str | None:
    """ "layer3.1.bn2.running_var" -> "conv4.unit2.spatial.norm.variance"; None for other tensors."""
    path, _, part = name.rpartition(".")
    if path in ("conv1", "bn1"):
        unit, kind = "conv1", path[:-1]
    elif found := re.fullmatch(r"layer([1-4])\.(\d+)\.(conv|bn)([123])", path):
        unit, kind = f"conv{int(found[1]) + 1}.unit{int(found[2]) + 1}.{_POSITIONS[found[4]]}", found[3]
    elif found := re.fullmatch(r"layer([1-4])\.(\d+)\.downsample\.([01])", path):
        unit, kind = f"conv{int(found[1]) + 1}.unit{int(found[2]) + 1}.shortcut", ("conv", "bn")[int(found[3])]
    else:
        return None
    if kind == "conv":
        return f"{unit}.kernel" if part == "weight" else None
    return f"{unit}.{NORM_PARTS[part]}" if part in NORM_PARTS else None


def read_tensors(path: str) -> dict[str, np.ndarray]:
    """The tensors of a ``.safetensors`` or PyTorch file, by name.

    Raises:
        ModelError: the file is missing or damaged, or holds objects other than tensors.
    """
    if not path.endswith(".safetensors"):
        return read_torch_file(path)
    try:
        return load_file(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({reason_of(error)})") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: damaged or not a safetensors file ({error}); get it again") from error
