"""Checkpoints with the names and shapes that torchvision, timm, MoCo, DenseCL and DINO publish."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delf_jax.errors import ModelError
from delf_jax.import_weights.public.importing import import_weights
from delf_jax.import_weights.torch_file import read_torch_file
from delf_jax.import_weights.torchvision import import_torchvision
from delf_jax.import_weights.vit import import_vit
from delf_jax.models import resnet, vit
from delf_jax.models.vit import VitConfig
from tests.delf_jax.import_weights.torch_writer import Namespace, View, write_torch_file

_NORM = ("weight", "bias", "running_mean", "running_var")


def resnet_names(blocks: tuple[int, ...], *, classes: bool = True, storage: str = "0") -> dict[str, View]:
    """Every tensor of a bottleneck ResNet of torchvision or timm but ``num_batches_tracked``."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}
    shapes |= {f"bn1.{part}": (64,) for part in _NORM}
    inputs = 64
    for stage, units in enumerate(blocks):
        inner = 64 * 2**stage
        for unit in range(units):
            place = f"layer{stage + 1}.{unit}"
            layers = {"conv1": (inner, inputs, 1, 1), "conv2": (inner, inner, 3, 3), "conv3": (4 * inner, inner, 1, 1)}
            if unit == 0:
                layers["downsample.0"] = (4 * inner, inputs, 1, 1)
            for name, shape in layers.items():
                norm = "downsample.1" if name == "downsample.0" else name.replace("conv", "bn")
                shapes[f"{place}.{name}.weight"] = shape
                shapes |= {f"{place}.{norm}.{part}": (shape[0],) for part in _NORM}
            inputs = 4 * inner
    if classes:
        shapes |= {"fc.weight": (1000, 2048), "fc.bias": (1000,)}
    return {name: View(shape, storage) for name, shape in shapes.items()}


def vit_names(width: int, patch: int, tokens: int) -> dict[str, View]:
    """Every tensor of a vision transformer of DINO."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, tokens, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for block in range(12):
        for name, (outputs, inputs) in {
            "attn.qkv": (3, 1),
            "attn.proj": (1, 1),
            "mlp.fc1": (4, 1),
            "mlp.fc2": (1, 4),
        }.items():
            shapes[f"blocks.{block}.{name}.weight"] = (outputs * width, inputs * width)
            shapes[f"blocks.{block}.{name}.bias"] = (outputs * width,)
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{block}.{name}.{part}": (width,) for part in ("weight", "bias")}
    return {name: View(shape) for name, shape in shapes.items()}


def prefixed(names: Mapping[str, View], prefix: str, storage: str = "0") -> dict[str, View]:
    return {f"{prefix}{name}": View(view.shape, storage) for name, view in names.items()}


R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)
_BODY = resnet_names(R50, classes=False)
_DINO = VitConfig(patch=16, grid=14, depth=12, width=384, heads=6)

# Content of each project's file; storage "0" holds what has to be imported, storage "1" what must not.
RESNETS: dict[str, dict[str, Any]] = {
    "torchvision": resnet_names(R50),
    "torchvision, ResNet-101": resnet_names(R101),
    "timm training": {"epoch": 100, "arch": "resnet50", "state_dict": resnet_names(R50), "args": Namespace({"lr": 1})},
    "MoCo v2": {
        "epoch": 800,
        "arch": "resnet50",
        "state_dict": {
            **prefixed(_BODY, "module.encoder_k.", "1"),
            **prefixed(_BODY, "module.encoder_q."),
            "module.encoder_q.fc.0.weight": View((2048, 2048)),
            "module.encoder_q.fc.2.weight": View((128, 2048)),
            "module.queue": View((128, 65536), "1"),
        },
    },
    "DenseCL": {"state_dict": dict(_BODY), "author": "us"},
    "DenseCL training": {"state_dict": {**prefixed(_BODY, "encoder_q.0."), **prefixed(_BODY, "encoder_k.0.", "1")}},
    "DINO": dict(_BODY),
    "DINO training": {
        "student": prefixed(_BODY, "module.backbone.", "1"),
        "teacher": prefixed(_BODY, "backbone."),
        "epoch": 300,
        "args": Namespace({"arch": "resnet50", "patch_size": 16}),
    },
}


@pytest.fixture(scope="module")
def storages() -> dict[str, np.ndarray]:
    """Random positive values, enough for the largest tensor, and zeros for what must not be imported."""
    return {"0": np.random.default_rng(0).random(2048 * 2048, np.float32) + 0.1, "1": np.zeros(128 * 65536, np.float32)}


@pytest.mark.parametrize("project", RESNETS)
def test_published_resnets_are_imported(project: str, storages: dict[str, np.ndarray], tmp_path: Path) -> None:
    imported = import_torchvision(write_torch_file(tmp_path / "a.pth", RESNETS[project], storages))
    blocks = R101 if "101" in project else R50
    assert (imported.config.layout, imported.config.blocks, imported.config.width) == ("torchvision", blocks, 64)
    names = resnet_names(blocks, classes=False)
    assert len(imported.tensors) == len(names)
    assert sum(array.size for array in imported.tensors.values()) == sum(np.prod(view.shape) for view in names.values())
    assert all(array.min() > 0 for array in imported.tensors.values())
    kernel = imported.tensors["conv4.unit2.spatial.kernel"]
    np.testing.assert_array_equal(kernel[1, 2, :, 5], storages["0"][: kernel.size].reshape(256, 256, 3, 3)[5, :, 1, 2])
    assert imported.preprocess["mean"][0] == pytest.approx(0.485 * 255)
    if blocks == R50 and project == "torchvision":
        params = resnet.fold(imported.tensors, imported.config)
        assert params["conv5"]["unit1"]["shortcut"]["kernel"].shape == (1, 1, 1024, 2048)


@pytest.mark.parametrize("training", [False, True])
def test_published_dino_transformers_are_imported(
    training: bool, storages: dict[str, np.ndarray], tmp_path: Path
) -> None:
    names: dict[str, Any] = vit_names(384, 16, 197)
    if training:
        names = {
            "student": prefixed(names, "module.backbone.", "1"),
            "teacher": prefixed(names, "backbone."),
            "args": Namespace({"arch": "vit_small"}),
        }
    imported = import_vit(write_torch_file(tmp_path / "a.pth", names, storages))
    assert imported.config == _DINO
    assert imported.tensors["block12.qkv.kernel"].min() > 0
    vit.fold(imported.tensors, imported.config)


def test_deep_stems_are_refused(storages: dict[str, np.ndarray], tmp_path: Path) -> None:
    """timm's resnet50d begins with three convolutions."""
    names = {name: view for name, view in _BODY.items() if name != "conv1.weight"}
    names |= {"conv1.0.weight": View((32, 3, 3, 3)), "conv1.3.weight": View((32, 32, 3, 3))}
    with pytest.raises(ModelError, match="no bottleneck units with a plain stem"):
        import_torchvision(write_torch_file(tmp_path / "a.pth", names, storages))


def test_options_of_training_scripts_are_skipped_and_nothing_else(tmp_path: Path) -> None:
    storages = {"0": np.arange(6, dtype=np.float32)}
    content = {"model": {"w": View((2, 3))}, "args": Namespace({"lr": 1, "nested": {"a": "b"}})}
    tensors = read_torch_file(write_torch_file(tmp_path / "a.pth", content, storages))
    assert list(tensors) == ["model.w"]
    np.testing.assert_array_equal(tensors["model.w"], np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(("project", "layer"), [("MoCo v2", "conv4"), ("DINO ViT-S/16", "relu")])
def test_any_known_file_becomes_a_model_folder(
    project: str, layer: str, storages: dict[str, np.ndarray], tmp_path: Path
) -> None:
    content = RESNETS.get(project) or vit_names(384, 16, 197)
    path = write_torch_file(tmp_path / "checkpoint.pth.tar", content, storages)
    imported = import_weights(path, tmp_path / "model", origin={"licence": "MIT"})
    assert imported.head.layer == layer
    assert imported.head.scorers == ("norm",)
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == ["backbone.safetensors", "head.safetensors"]
    with pytest.raises(ModelError, match="not a ResNet, VGG or vision transformer with known names; it holds other"):
        import_weights(write_torch_file(tmp_path / "b.pth", {"other": View((2,))}, storages), tmp_path / "b")
    assert not (tmp_path / "b").exists()
