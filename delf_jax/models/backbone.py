"""A backbone between its file and the network: what importers return, how it is packed, how it is opened."""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from delf_jax import model_file
from delf_jax.errors import ModelError
from delf_jax.models.resnet import ResNetConfig, fold


class ImportedBackbone(NamedTuple):
    """A backbone read from another project's file.

    Attributes:
        config: the network that the tensors belong to.
        tensors: float32, named as ``resnet.fold`` wants them; kernels HWIO, input channels RGB.
        preprocess: {"mean": [r, g, b], "std": [r, g, b]} on the 0-255 scale.
    """

    config: ResNetConfig
    tensors: dict[str, np.ndarray]
    preprocess: dict[str, list[float]]


class Backbone(NamedTuple):
    """A backbone ready for ``resnet.forward``.

    Attributes:
        config: the network.
        params: nested dict of float32 arrays, batch norm folded in.
        mean: float32 [3], RGB on the 0-255 scale, to be subtracted from a photo.
        std: float32 [3], to divide it by.
    """

    config: ResNetConfig
    params: dict[str, Any]
    mean: np.ndarray
    std: np.ndarray


def pack_backbone(imported: ImportedBackbone, path: str | os.PathLike[str], *, source: Mapping[str, str]) -> None:
    """Writes a model file: kernels float16, batch-norm vectors and biases float32 (they overflow float16).

    Args:
        imported: what an importer returned.
        path: the file to write.
        source: where the weights come from: package, address, sha256, licence.

    Raises:
        ModelError: a kernel does not fit float16.
    """
    tensors = {}
    for name, array in imported.tensors.items():
        is_kernel = name.endswith(".kernel")
        if is_kernel and not np.abs(array).max() <= np.finfo(np.float16).max:
            raise ModelError(f"{name}: values beyond float16; this model cannot be packed")
        tensors[name] = array.astype(np.float16 if is_kernel else np.float32)
    description = {
        "kind": "backbone",
        "config": imported.config.to_json(),
        "preprocess": imported.preprocess,
        "source": dict(source),
    }
    model_file.write(path, tensors, description)


def open_backbone(path: str | os.PathLike[str]) -> Backbone:
    """Reads a model file of kind ``backbone`` and folds its batch norm.

    Raises:
        ModelError: the file is missing, damaged, newer, of another kind, or lacks tensors of its own network.
    """
    description, tensors = model_file.read(path)
    if description.get("kind") != "backbone":
        raise ModelError(f"{path}: holds a {description.get('kind')}, not a backbone; give a backbone's file")
    try:
        config = ResNetConfig.from_json(description["config"])
        mean, std = (np.asarray(description["preprocess"][key], np.float32) for key in ("mean", "std"))
        return Backbone(config, fold(tensors, config), mean, std)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: does not hold the network it describes ({error}); import it again") from error


def count_units(tensors: Mapping[str, np.ndarray], place: str) -> tuple[int, int, int, int]:
    """Residual units of conv2 to conv5 by the names of `tensors`; `place` names their source in errors.

    Raises:
        ModelError: a stage is missing.
    """
    counts = [0, 0, 0, 0]
    for name in tensors:
        if found := re.match(r"conv([2-5])\.unit(\d+)\.reduce\.kernel", name):
            stage = int(found[1]) - 2
            counts[stage] = max(counts[stage], int(found[2]))
    if 0 in counts:
        raise ModelError(
            f"{place}: no weights of conv{counts.index(0) + 2}; give the file of a whole bottleneck ResNet"
        )
    return counts[0], counts[1], counts[2], counts[3]
