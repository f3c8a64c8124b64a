"""A model folder of a few kilobytes with the real structure: random weights, so that tests are quick and offline."""

from pathlib import Path

import jax
import numpy as np

from delf_jax.extraction.head import Head
from delf_jax.extraction.pca import Pca
from delf_jax.files import model_file
from delf_jax.models import resnet
from delf_jax.models.resnet import ResNetConfig

CONFIG = ResNetConfig(layout="keras_v1", norm_epsilon=1e-3, blocks=(1, 1, 1, 1), width=8)
DIMENSION = 16
HIDDEN = 8


def write_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    """Writes ``backbone.safetensors`` and ``head.safetensors`` into a folder that ``delf_jax.load`` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for path, value in jax.tree_util.tree_leaves_with_path(resnet.initialise(CONFIG, seed=seed)):
        name = ".".join(entry.key for entry in path)
        tensors[name] = np.asarray(value)
        if name.endswith(".kernel"):
            layer, channels = name.removesuffix(".kernel"), value.shape[-1]
            for part, number in (("scale", 1.0), ("shift", 0.0), ("mean", 0.0), ("variance", 1.0)):
                tensors[f"{layer}.norm.{part}"] = np.full(channels, number, np.float32)
    preprocess = {"mean": [123.68, 116.779, 103.939], "std": [58.0, 58.0, 58.0]}
    description = {"kind": "backbone", "config": CONFIG.to_json(), "preprocess": preprocess}
    model_file.write(folder / "backbone.safetensors", tensors, description)

    channels = resnet.channels("conv4", CONFIG)
    basis, _ = np.linalg.qr(generator.normal(size=(channels, DIMENSION)))
    foreground = np.abs(generator.normal(size=channels))
    attention = {
        "hidden_kernel": generator.normal(size=(channels, HIDDEN)) / channels**0.5,
        "hidden_bias": np.zeros(HIDDEN),
        "kernel": generator.normal(size=HIDDEN) / HIDDEN**0.5,
        "bias": np.zeros(()),
    }
    Head(
        pca=Pca(np.zeros(channels, np.float32), basis.T.astype(np.float32), np.ones(DIMENSION, np.float32)),
        foreground=(foreground / np.linalg.norm(foreground)).astype(np.float32),
        attention={name: array.astype(np.float32) for name, array in attention.items()},
        log10_nfa_threshold=-2.0,
    ).save(folder / "head.safetensors")
    return folder
