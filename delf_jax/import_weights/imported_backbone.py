"""Backbones read from other projects' files, and the model files that they are written to."""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from delf_jax.errors import ModelError
from delf_jax.files import model_file
from delf_jax.models.architectures import Config, architecture_of, network_of


class ImportedBackbone(NamedTuple):
    """A backbone read from another project's file.

    Attributes:
        config: the network that the tensors belong to.
        tensors: float32, with the names that the network's ``fold`` reads; kernels HWIO, input channels RGB.
        preprocess: {"mean": [r, g, b], "std": [r, g, b]} on the 0-255 scale.
    """

    config: Config
    tensors: dict[str, np.ndarray]
    preprocess: dict[str, list[float]]


def pack_backbone(
    imported: ImportedBackbone,
    path: str | os.PathLike[str],
    *,
    source: Mapping[str, str],
    kernels: type[np.floating] = np.float16,
) -> None:
    """Writes a model file: batch-norm vectors and biases float32 (they overflow float16), kernels float16 by default.

    Args:
        imported: what an importer returned.
        path: the file to write.
        source: where the weights come from: package, address, sha256, licence.
        kernels: their type; float16 halves the file and moves features by about 1e-3, float32 keeps every bit.

    Raises:
        ModelError: a tensor is missing or misshapen, or a kernel does not fit float16.
    """
    network_of(imported.config).fold(imported.tensors, imported.config)
    tensors = {}
    for name, array in imported.tensors.items():
        is_kernel = name.endswith(".kernel")
        if is_kernel and not np.abs(array).max() <= np.finfo(kernels).max:
            raise ModelError(f"{name}: values beyond {kernels.__name__}; this model cannot be packed")
        tensors[name] = array.astype(kernels if is_kernel else np.float32)
    architecture = architecture_of(imported.config)
    description = {
        "kind": "backbone",
        # The first model files knew residual networks alone and said nothing; they stay as they are.
        **({} if architecture == "resnet" else {"architecture": architecture}),
        "config": imported.config.to_json(),
        "preprocess": imported.preprocess,
        "source": dict(source),
    }
    model_file.write(path, tensors, description)


def count_units(tensors: Mapping[str, np.ndarray], place: str) -> tuple[int, int, int, int]:
    """Residual units of conv2 to conv5 by the names of `tensors`; `place` names their source in errors.

    Raises:
        ModelError: a stage before conv5 is missing.
    """
    counts = [0, 0, 0, 0]
    for name in tensors:
        if found := re.match(r"conv([2-5])\.unit(\d+)\.reduce\.kernel", name):
            stage = int(found[1]) - 2
            counts[stage] = max(counts[stage], int(found[2]))
    if 0 in counts[:3]:
        raise ModelError(
            f"{place}: no weights of conv{counts.index(0) + 2}; give the file of a whole bottleneck ResNet"
        )
    return counts[0], counts[1], counts[2], counts[3]
