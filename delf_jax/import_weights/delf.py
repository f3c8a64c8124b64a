"""Checkpoints of the official DELF and DELG code -> this project's backbone and head.

There are two kinds. The releases were trained with TF-slim, with names such as
``resnet_v1_50/block3/unit_1/bottleneck_v1/conv1/weights``. Users of the official training code have checkpoints of
Keras, with names such as ``backbone/l4a/conv2a/kernel``. Strides, paddings and batch-norm epsilon differ between the
two, in the attention too.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from delf_jax.errors import ModelError
from delf_jax.extraction.head import Head
from delf_jax.import_weights.delf_config import DelfConfig, read_pca
from delf_jax.import_weights.imported_backbone import ImportedBackbone, count_units
from delf_jax.import_weights.tensor_bundle import TensorBundle
from delf_jax.models import layers
from delf_jax.models.resnet import ResNetConfig

# (x - 128) / 128, RGB.
_PREPROCESS = {"mean": [128.0, 128.0, 128.0], "std": [128.0, 128.0, 128.0]}
_SLIM_EPSILON, _KERAS_EPSILON = 1e-5, 1e-3
_PARTS = {
    "weights": "kernel",
    "kernel": "kernel",
    "biases": "bias",
    "bias": "bias",
    "gamma": "norm.scale",
    "beta": "norm.shift",
    "moving_mean": "norm.mean",
    "moving_variance": "norm.variance",
}
_PART = r"/(?:BatchNorm/)?(\w+)$"
_SLIM_UNITS = {"shortcut": "shortcut", "conv1": "reduce", "conv2": "spatial", "conv3": "expand"}
_KERAS_UNITS = {"_shortcut": "shortcut", "2a": "reduce", "2b": "spatial", "2c": "expand"}


class ImportedDelf(NamedTuple):
    """A backbone, and the head that was trained on it: attention, and PCA or autoencoder."""

    backbone: ImportedBackbone
    head: Head


def import_delf(path: str | os.PathLike[str], *, config: DelfConfig | None = None) -> ImportedDelf:
    """Reads a release of the official DELF or DELG code, or a model trained with it; local features only.

    With an autoencoder (DELG), features are 16 pixels apart, and the attention sees the output of the autoencoder.
    Without one, features of TF-slim are 32 pixels apart; for Keras, the objects in the checkpoint tell.

    Args:
        path: the folder of a release, a SavedModel, or a checkpoint's folder or prefix.
        config: the settings, and the dimensions of the PCA. Without a config there is no PCA.

    Raises:
        ModelError: a file is missing or damaged, or does not hold the tensors of a DELF model.
    """
    prefix = find_checkpoint(path)
    bundle = TensorBundle(prefix)
    tensors = _take(bundle, _slim_target)
    is_slim = "conv1.kernel" in tensors
    if is_slim:
        tensors |= _autoencoder_by_shape(bundle, tensors)
    else:
        tensors = _take(bundle, _keras_target)
    if "conv1.kernel" not in tensors:
        known = ", ".join(list(bundle)[:3])
        raise ModelError(f"{prefix}: has no tensors with the names of DELF in TF-slim or Keras; it holds {known}, ...")
    parts = {name: array for name, array in tensors.items() if not name.startswith("conv")}
    if "attention.hidden.kernel" not in parts:
        raise ModelError(f"{prefix}: has no attention; only models of local features can be imported")
    has_autoencoder = "autoencoder.encode.kernel" in parts
    is_subsampled = any(path.endswith("backbone/subsampling_layer") for path in bundle.objects)
    pitch = (16 if has_autoencoder else 32) if is_slim else (32 if is_subsampled else 16)
    backbone = {name: array for name, array in tensors.items() if name.startswith("conv")}
    network = ResNetConfig(
        layout="tf_slim" if is_slim else "keras_delf",
        norm_epsilon=_SLIM_EPSILON if is_slim else _KERAS_EPSILON,
        blocks=count_units(backbone, prefix),
        width=backbone["conv1.kernel"].shape[-1],
        conv5_stride=1 if is_slim or is_subsampled else 2,
        conv4_pitch=16 if pitch == 16 else 32,
    )
    pca = None
    if config is not None and config.pca_dimension is not None:
        pca = read_pca(config, Path(path) if os.path.isdir(path) else Path(prefix).parent)
    head = Head(
        pca=pca,
        whiten=config is not None and config.whiten,
        attention=_attention(parts, network.norm_epsilon),
        autoencoder=_autoencoder(parts) if has_autoencoder else None,
        released_settings=config.settings if config is not None else {},
    )
    return ImportedDelf(ImportedBackbone(network, backbone, _PREPROCESS), head)


def find_checkpoint(path: str | os.PathLike[str]) -> str:
    """The prefix of the checkpoint at a path: the path itself, or the checkpoint inside that folder.

    Raises:
        ModelError: there is no checkpoint, or there are several and no file ``checkpoint`` names the newest.
    """
    given = os.fspath(path).removesuffix(".index")
    if os.path.isfile(f"{given}.index"):
        return given
    folder = Path(given)
    for inner in ("variables/variables", "model/variables/variables"):
        if (folder / f"{inner}.index").is_file():
            return str(folder / inner)
    state = folder / "checkpoint"
    if state.is_file() and (found := re.search(r'^model_checkpoint_path: "([^"]+)"', state.read_text(), re.MULTILINE)):
        return str(folder / Path(found[1]).name)
    indexes = sorted([*folder.glob("*.index"), *folder.glob("*/variables/variables.index")])
    if len(indexes) != 1:
        what = "no TensorFlow checkpoint" if not indexes else f"{len(indexes)} checkpoints"
        raise ModelError(f"{given}: holds {what}; give the folder of a SavedModel, or a checkpoint's .index file")
    return str(indexes[0]).removesuffix(".index")


def _take(bundle: TensorBundle, target: Callable[[str], str | None]) -> dict[str, np.ndarray]:
    """The tensors whose names ``target`` knows, under this project's names."""
    wanted = {name: ours for name in bundle if (ours := target(name))}
    return {ours: np.asarray(bundle[name], np.float32) for name, ours in wanted.items()}


def _slim_target(name: str) -> str | None:
    """ "resnet_v1_50/block3/unit_1/bottleneck_v1/conv2/BatchNorm/beta" -> "conv4.unit1.spatial.norm.shift"."""
    place = None
    if found := re.search(rf"(?:^|/)resnet_v1_\d+/conv1{_PART}", name):
        place = "conv1"
    elif found := re.search(rf"/block([1-4])/unit_(\d+)/bottleneck_v1/(shortcut|conv[123]){_PART}", name):
        place = f"conv{int(found[1]) + 1}.unit{found[2]}.{_SLIM_UNITS[found[3]]}"
    elif found := re.search(rf"(?:^|/)attention/compute/(conv[12]){_PART}", name):
        place = {"conv1": "attention.hidden", "conv2": "attention.output"}[found[1]]
    return _joined(place, found)


def _keras_target(name: str) -> str | None:
    """ "backbone/l4a/bn2b/beta" -> "conv4.unit1.spatial.norm.shift"."""
    place = None
    if found := re.search(rf"(?:^|/)backbone/(?:conv1|bn_conv1){_PART}", name):
        place = "conv1"
    elif found := re.search(rf"(?:^|/)backbone/l([2-5])([a-z])/(?:conv|bn)(2[abc]|_shortcut){_PART}", name):
        place = f"conv{found[1]}.unit{ord(found[2]) - ord('a') + 1}.{_KERAS_UNITS[found[3]]}"
    elif found := re.search(rf"(?:^|/)attention/(conv1|bn_conv1|conv2){_PART}", name):
        place = "attention.output" if found[1] == "conv2" else "attention.hidden"
    elif found := re.search(rf"(?:^|/)autoencoder/(conv1|conv2){_PART}", name):
        place = {"conv1": "autoencoder.encode", "conv2": "autoencoder.decode"}[found[1]]
    return _joined(place, found)


def _joined(place: str | None, found: re.Match[str] | None) -> str | None:
    if place is None or found is None or found[found.re.groups] not in _PARTS:
        return None
    return f"{place}.{_PARTS[found[found.re.groups]]}"


def _autoencoder_by_shape(bundle: TensorBundle, taken: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The pair of 1x1 convolutions that reduces the features and expands them again, whatever it is called."""
    channels = taken["attention.hidden.kernel"].shape[2] if "attention.hidden.kernel" in taken else 0
    kernels: dict[str, list[str]] = {"encode": [], "decode": []}
    for name in bundle:
        if re.search(r"/(?:weights|kernel)$", name) and not _slim_target(name):
            shape = bundle.shape(name)
            if shape[:2] == (1, 1) and len(shape) == 4 and channels in shape[2:] and shape[2] != shape[3]:
                kernels["encode" if shape[2] == channels else "decode"].append(name)
    pairs = [
        {"encode": encode, "decode": decode}
        for encode in kernels["encode"]
        for decode in kernels["decode"]
        if bundle.shape(encode)[3] == bundle.shape(decode)[2]
    ]
    if not pairs:
        return {}
    if len(pairs) > 1:
        named = ", ".join(f"{pair['encode']} and {pair['decode']}" for pair in pairs)
        raise ModelError(f"{bundle.prefix}: has {len(pairs)} pairs of layers that could be the autoencoder: {named}")
    tensors: dict[str, np.ndarray] = {}
    for part, name in pairs[0].items():
        kernel = np.asarray(bundle[name], np.float32)
        scope = name.rpartition("/")[0]
        bias = next((bundle[f"{scope}/{b}"] for b in ("biases", "bias") if f"{scope}/{b}" in bundle), None)
        tensors[f"autoencoder.{part}.kernel"] = kernel
        tensors[f"autoencoder.{part}.bias"] = np.zeros(kernel.shape[3]) if bias is None else bias
    return tensors


def _attention(parts: Mapping[str, np.ndarray], norm_epsilon: float | None) -> dict[str, np.ndarray]:
    hidden = _folded(parts, "attention", "hidden", norm_epsilon)
    output = _folded(parts, "attention", "output", None)
    return {
        "hidden_kernel": hidden["kernel"][0, 0],
        "hidden_bias": hidden["bias"],
        "kernel": output["kernel"][0, 0, :, 0],
        "bias": output["bias"][0],
    }


def _autoencoder(parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for part in ("encode", "decode"):
        folded = _folded(parts, "autoencoder", part, None)
        arrays |= {f"{part}_kernel": folded["kernel"][0, 0], f"{part}_bias": folded["bias"]}
    return arrays


def _folded(
    parts: Mapping[str, np.ndarray], group: str, name: str, norm_epsilon: float | None
) -> dict[str, np.ndarray]:
    """Kernel and bias of one layer, with the batch norm after it folded in."""
    kernel = parts.get(f"{group}.{name}.kernel", np.zeros((1, 1, 0, 0)))
    shapes = {group: {name: {"kernel": kernel}}}
    folded: dict[str, np.ndarray] = layers.fold_convolutions(parts, shapes, norm_epsilon=norm_epsilon)[group][name]
    return folded
