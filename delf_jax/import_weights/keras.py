"""Keras ResNet weights (TensorFlow.js folders, or arrays by their names in an .h5 file) -> this project's tensors."""

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from delf_jax.errors import ModelError, one_line, reason_of
from delf_jax.files import json_files
from delf_jax.import_weights.imported_backbone import ImportedBackbone, count_units
from delf_jax.models.resnet import ResNetConfig

# Keras's "caffe" preprocessing is BGR minus this mean, without scaling; here in RGB.
CAFFE_MEAN = [123.68, 116.779, 103.939]

_BRANCHES = {"1": "shortcut", "2a": "reduce", "2b": "spatial", "2c": "expand"}
_POSITIONS = {"0": "shortcut", "1": "reduce", "2": "spatial", "3": "expand"}
_PARTS = {
    "kernel": "kernel",
    "bias": "bias",
    "gamma": "norm.scale",
    "beta": "norm.shift",
    "moving_mean": "norm.mean",
    "moving_variance": "norm.variance",
}


def import_keras(source: str | os.PathLike[str] | Mapping[str, np.ndarray]) -> ImportedBackbone:
    """Reads a Keras ResNet v1 (stride in the first 1x1 of a stage) without its classifier; its input becomes RGB.

    Args:
        source: a TensorFlow.js folder with ``model.json`` and its shards, or {name: array} as in a Keras .h5 file,
            in the old naming (``res2a_branch2a/kernel:0``) or the new (``conv2_block1_1_conv/kernel:0``).

    Raises:
        ModelError: a file or tensor is missing, truncated, quantised, or not of a ResNet.
    """
    if isinstance(source, Mapping):
        place, arrays, topology = "the given arrays", dict(source), None
    else:
        place = os.fspath(source)
        arrays, topology = _read_tensorflowjs(Path(source))
    tensors: dict[str, np.ndarray] = {}
    old_naming = False
    for name, array in arrays.items():
        # .h5 files nest a layer's name twice: "conv1/conv1/kernel:0".
        *layers, part = name.removesuffix(":0").split("/")
        target = _target(layers[-1]) if layers else None
        if target is None or part not in _PARTS:
            continue
        old_naming |= layers[-1] in ("conv1", "bn_conv1")
        tensors[f"{target}.{_PARTS[part]}"] = np.ascontiguousarray(array, np.float32)
    if "conv1.kernel" not in tensors:
        raise ModelError(f"{place}: no tensor named conv1/kernel or conv1_conv/kernel; is it a Keras ResNet?")
    tensors["conv1.kernel"] = np.ascontiguousarray(tensors["conv1.kernel"][:, :, ::-1])
    epsilon = _epsilon(topology) if topology else (1e-3 if old_naming else 1.001e-5)
    config = ResNetConfig(
        layout="keras_v1",
        norm_epsilon=epsilon,
        blocks=count_units(tensors, place),
        width=tensors["conv1.kernel"].shape[-1],
    )
    return ImportedBackbone(config, tensors, {"mean": list(CAFFE_MEAN), "std": [1.0, 1.0, 1.0]})


def _target(layer: str) -> str | None:
    """ "res4b_branch2a", "bn4b1_branch2a" or "conv4_block2_1_bn" -> "conv4.unit2.reduce"; None for other layers."""
    if layer in ("conv1", "bn_conv1", "conv1_conv", "conv1_bn"):
        return "conv1"
    if found := re.fullmatch(r"(?:res|bn)([2-5])([a-z])(\d*)_branch(1|2[abc])", layer):
        unit = int(found[3]) + 1 if found[3] else ord(found[2]) - ord("a") + 1
        return f"conv{found[1]}.unit{unit}.{_BRANCHES[found[4]]}"
    if found := re.fullmatch(r"conv([2-5])_block(\d+)_([0-3])_(?:conv|bn)", layer):
        return f"conv{found[1]}.unit{found[2]}.{_POSITIONS[found[3]]}"
    return None


def _read_tensorflowjs(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Every tensor of a TensorFlow.js layers model; the shards of a manifest group are one string of bytes."""
    try:
        model = json_files.loads_object((folder / "model.json").read_bytes())
        arrays: dict[str, np.ndarray] = {}
        for group in model["weightsManifest"]:
            data = b"".join((folder / Path(shard).name).read_bytes() for shard in group["paths"])
            for name, array in _cut(data, group["weights"], folder):
                arrays[name] = array
        topology = model["modelTopology"]
        if not isinstance(topology, dict):
            raise TypeError("its topology is not an object")
        return arrays, topology
    except OSError as error:
        raise ModelError(f"{error.filename or folder}: {reason_of(error)}; unpack the whole package") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = one_line(error)
        raise ModelError(f"{folder}/model.json: not a TensorFlow.js layers model ({reason})") from error


def _cut(data: bytes, weights: list[dict[str, Any]], folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    offset = 0
    for weight in weights:
        if not isinstance(weight["name"], str):
            raise TypeError("the name of a weight is not text")
        if weight["dtype"] != "float32" or "quantization" in weight:
            raise ModelError(f"{folder}: {weight['name']} is quantised; use a float32 export of the model")
        if not all(type(n) is int and n >= 0 for n in weight["shape"]):
            raise ValueError(f"the shape of {weight['name']} is not a list of integers")
        count = math.prod(weight["shape"])
        if offset + 4 * count > len(data):
            raise ModelError(f"{folder}: the shards end inside {weight['name']}; unpack the package again")
        yield weight["name"], np.frombuffer(data, "<f4", count, offset).reshape(weight["shape"])
        offset += 4 * count
    if offset != len(data):
        raise ModelError(f"{folder}: {len(data) - offset} bytes more than model.json lists; unpack the package again")


def _epsilon(topology: Mapping[str, Any]) -> float:
    try:
        layers = topology["model_config"]["config"]["layers"]
        epsilons = {
            float(layer["config"]["epsilon"]) for layer in layers if layer["class_name"].startswith("BatchNorm")
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(
            f"model.json: does not describe its layers ({one_line(error)}); export the model again"
        ) from None
    if len(epsilons) != 1:
        found = ", ".join(map(str, sorted(epsilons))) or "missing"
        raise ModelError(f"model.json: its batch-norm epsilons are {found}; expected one for the whole network")
    return epsilons.pop()
