"""Vision-transformer weights: DINO, DINOv2, timm, Hugging Face's DINOv2, or the latter in ONNX -> this project's."""

import math
import os
import re

import numpy as np

from delf_jax.errors import ModelError
from delf_jax.import_weights.imported_backbone import ImportedBackbone
from delf_jax.import_weights.onnx_file import read_onnx
from delf_jax.import_weights.torchvision import IMAGENET_PREPROCESS, read_tensors
from delf_jax.models.vit import VitConfig

# Tensors outside the blocks, by their names without prefix, in the naming of several projects.
_NAMES = {
    "patch_embed.proj": "patches",
    "embeddings.patch_embeddings.projection": "patches",
    "norm": "norm",
    "layernorm": "norm",
    "cls_token": "class_token",
    "embeddings.cls_token": "class_token",
    "pos_embed": "positions",
    "embeddings.position_embeddings": "positions",
    "register_tokens": "registers",
    "reg_token": "registers",
    "embeddings.register_tokens": "registers",
}
_IN_BLOCK = {
    "norm1": "norm1",
    "attn.qkv": "qkv",
    "attention.attention.query": "query",
    "attention.attention.key": "key",
    "attention.attention.value": "value",
    "attn.proj": "projection",
    "attention.output.dense": "projection",
    "ls1.gamma": "scale1",
    "layer_scale1.lambda1": "scale1",
    "norm2": "norm2",
    "mlp.fc1": "expand",
    "mlp.fc2": "reduce",
    "ls2.gamma": "scale2",
    "layer_scale2.lambda1": "scale2",
}
_ANCHORS = ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight")


def import_vit(path: str | os.PathLike[str], *, heads: int | None = None) -> ImportedBackbone:
    """Reads a vision transformer with a final LayerNorm, without its heads for classes and training.

    Any prefix (``module.``, ``backbone.``, ``teacher.backbone.``, ...) is allowed. Of a student and a teacher it takes
    the teacher, as DINO's evaluation does.

    Args:
        path: a PyTorch file, of which only tensors are unpickled, a ``.safetensors`` file, or an ``.onnx`` file with
            Hugging Face's names.
        heads: attention heads; by default one per 64 channels, as in every published DINO.

    Raises:
        ModelError: the file is missing or damaged, or holds anything but the tensors of such a transformer.
    """
    place = os.fspath(path)
    arrays = read_onnx(place) if place.endswith(".onnx") else read_tensors(place)
    prefixes = [name.removesuffix(anchor) for name in arrays for anchor in _ANCHORS if name.endswith(anchor)]
    if not prefixes:
        raise ModelError(f"{place}: no tensor named {_ANCHORS[0]}; is it a vision transformer of DINO or DINOv2?")
    prefix = max(prefixes, key=lambda name: "teacher" in name)
    named = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    if any(".mlp.w12." in name for name in named):
        raise ModelError(f"{place}: its perceptrons are gated (SwiGLU, DINOv2 giant); give a ViT-S, -B or -L")
    tensors: dict[str, np.ndarray] = {}
    for name, array in named.items():
        if target := _target(name):
            tensors[target] = np.asarray(array, np.float32)
    config = _shape_up(tensors, place, heads, is_hugging_face="embeddings.cls_token" in named)
    contiguous = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
    return ImportedBackbone(config, contiguous, IMAGENET_PREPROCESS)


def _target(name: str) -> str | None:
    """ "blocks.0.attn.qkv.weight" -> "block1.qkv.kernel"; None for tensors of other parts."""
    layer, _, part = name.rpartition(".")
    table, place = _NAMES, ""
    if found := re.fullmatch(r"(?:blocks|encoder\.layer)\.(\d+)\.(.+)", name):
        table, place = _IN_BLOCK, f"block{int(found[1]) + 1}."
        name, layer = found[2], found[2].rpartition(".")[0]
    if name in table:
        return place + table[name]
    if layer not in table or part not in ("weight", "bias"):
        return None
    if "norm" in table[layer]:
        return f"{place}{table[layer]}.{'scale' if part == 'weight' else 'shift'}"
    return f"{place}{table[layer]}.{'kernel' if part == 'weight' else 'bias'}"


def _shape_up(tensors: dict[str, np.ndarray], place: str, heads: int | None, *, is_hugging_face: bool) -> VitConfig:
    """Brings tensors into the network's shapes, in place, and returns which network it is."""
    missing = [name for name in ("patches.kernel", "class_token", "positions", "norm.scale") if name not in tensors]
    if missing:
        raise ModelError(f"{place}: has no {missing[0]}; give the file of a whole vision transformer")
    width, _, patch, _ = tensors["patches.kernel"].shape
    if heads is None and width % 64:
        raise ModelError(f"{place}: {width} channels are not a multiple of 64; say how many heads it has")
    depth = 0
    while f"block{depth + 1}.norm1.scale" in tensors:
        depth += 1
        _join_heads(tensors, f"block{depth}.")
    for name in [name for name in tensors if name.endswith(".kernel")]:
        array = tensors[name]
        # PyTorch keeps matrices as [out, in], the patch projection as [out, in, height, width].
        tensors[name] = array.transpose(2, 3, 1, 0).reshape(-1, width) if array.ndim == 4 else array.T
    positions = tensors["positions"].reshape(-1, width)
    class_token = tensors["class_token"].reshape(1, width)
    grid = math.isqrt(len(positions))
    if len(positions) == grid**2 + 1:
        # The class token has an embedding of its own. In timm's networks with registers it is already added.
        class_token, positions = class_token + positions[:1], positions[1:]
    if len(positions) != grid**2:
        raise ModelError(f"{place}: {len(positions)} position embeddings do not fill a square")
    tensors |= {"class_token": class_token, "positions": positions}
    if "registers" in tensors:
        tensors["registers"] = tensors["registers"].reshape(-1, width)
    return VitConfig(
        patch=patch,
        grid=grid,
        depth=depth,
        width=width,
        heads=heads or width // 64,
        registers=len(tensors.get("registers", ())),
        layer_scale="block1.scale1" in tensors,
        positions="antialias" if "registers" in tensors else "size" if is_hugging_face else "offset",
    )


def _join_heads(tensors: dict[str, np.ndarray], block: str) -> None:
    """Joins query, key and value in one matrix, if the file has them apart."""
    for part in ("kernel", "bias"):
        names = [f"{block}{name}.{part}" for name in ("query", "key", "value")]
        if all(name in tensors for name in names):
            tensors[f"{block}qkv.{part}"] = np.concatenate([tensors.pop(name) for name in names])
