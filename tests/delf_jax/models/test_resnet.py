"""The encoder against PyTorch's numbers, and the promise that padding never changes a cell."""

import dataclasses
import functools
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
from delf_jax.import_weights.keras import import_keras
from delf_jax.import_weights.torchvision import import_torchvision
from delf_jax.models import resnet
from delf_jax.models.resnet import MAP_NAMES, ResNetConfig
from tests.golden.compare import golden_error, relative_error
from tests.golden.random_resnet import TINY_SIZES, keras_arrays, random_photo, torchvision_arrays

LAYOUTS = ("keras_v1", "torchvision", "tf_slim")
# Its golden values are whole checkpoints: test_import_delf.
ALL_LAYOUTS = (*LAYOUTS, "keras_delf")
WEIGHTS = Path(resnet.__file__).parent.parent / "weights" / "resnet50_imagenet.safetensors"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ResNetConfig, Any]]:
    """Config and parameters of the golden script's tiny network of each layout."""
    networks = {}
    for layout in LAYOUTS:
        if layout == "keras_v1":
            config, tensors, _ = import_keras(keras_arrays(1))
        else:
            path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
            save_file(torchvision_arrays(2 if layout == "torchvision" else 3), path)
            config, tensors, _ = import_torchvision(path)
            config = dataclasses.replace(config, layout=layout, conv5_stride=1)
        networks[layout] = config, resnet.fold(tensors, config)
    config, params = networks["keras_v1"]
    networks["keras_delf"] = dataclasses.replace(config, layout="keras_delf"), params
    return networks


@functools.partial(jax.jit, static_argnames=("config", "last", "dtype"))
def encode(
    params: Any, images: Any, valid_hw: Any, config: ResNetConfig, last: str = "conv5", dtype: Any = jnp.float32
):
    return resnet.forward(params, images, valid_hw, config=config, last=last, dtype=dtype)


def encode_one(network: tuple[ResNetConfig, Any], photo: np.ndarray) -> Mapping[str, np.ndarray]:
    """The maps of one photo in a canvas of its own size."""
    config, params = network
    maps = encode(params, jnp.asarray(photo)[None], jnp.array([photo.shape[:2]]), config)
    return {name: np.asarray(value[0]) for name, value in maps.items()}


@pytest.mark.usefixtures("full_compilation")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", TINY_SIZES)
def test_every_layout_gives_the_numbers_of_pytorch(tiny: Any, layout: str, size: tuple[int, int]) -> None:
    maps = encode_one(tiny[layout], random_photo(*size))
    assert tuple(maps) == MAP_NAMES
    for name, values in maps.items():
        assert golden_error(values, f"tiny/{layout}/{size[0]}x{size[1]}/{name}") <= 1e-4, name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_agrees_with_pytorch_where_it_is_installed(tiny: Any, layout: str) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed; the committed golden values were checked")
    from tests.golden.make_resnet_golden import tiny_maps

    for size in ((1, 1), (38, 59)):
        photo = random_photo(*size)
        ours = encode_one(tiny[layout], photo)
        for name, values in tiny_maps(layout, photo).items():
            assert relative_error(ours[name], values) <= 1e-4, (size, name)


@pytest.mark.parametrize("layout", ALL_LAYOUTS)
def test_padding_never_changes_a_valid_cell(tiny: Any, layout: str) -> None:
    config, params = tiny[layout]
    # The pool that is not padded needs three cells of conv1.
    sizes = [(33, 46), (48, 33), (5, 6) if layout == "keras_delf" else (1, 2)]
    canvases = np.full((len(sizes), 64, 80, 3), np.nan, np.float32)
    canvases[::2] = 1e6
    for canvas, size in zip(canvases, sizes, strict=True):
        canvas[: size[0], : size[1]] = random_photo(*size)
    together = encode(params, jnp.asarray(canvases), jnp.array(sizes), config)
    for row, size in enumerate(sizes):
        alone = encode_one(tiny[layout], random_photo(*size))
        for name, expected in alone.items():
            height, width = resnet.map_size(np.array(size), name, config)
            assert expected.shape[:2] == (height, width)
            inside = np.asarray(together[name][row, :height, :width])
            assert relative_error(inside, expected) <= 1e-5, (size, name)
            outside = np.asarray(together[name][row]).copy()
            outside[:height, :width] = 0
            assert not outside.any(), (size, name)


@pytest.mark.parametrize("layout", ALL_LAYOUTS)
def test_gradients_reach_the_photo_and_stop_at_its_padding(tiny: Any, layout: str) -> None:
    config, params = tiny[layout]
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 40, 40, 3)), jnp.float32)
    valid_hw = jnp.array([[31, 24]])
    gradient = jax.grad(lambda x: encode(params, x, valid_hw, config, last="conv3")["conv3"].sum())(images)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[0, :31, :24]).sum() > 0
    assert np.abs(gradient[0, 31:]).sum() == 0
    assert np.abs(gradient[0, :, 24:]).sum() == 0


def test_bfloat16_stays_near_float32(tiny: Any) -> None:
    config, params = tiny["keras_v1"]
    photo = jnp.asarray(random_photo(64, 48))[None]
    valid_hw = jnp.array([[64, 48]])
    exact = encode(params, photo, valid_hw, config, last="conv4")["conv4"]
    fast = encode(params, photo, valid_hw, config, last="conv4", dtype=jnp.bfloat16)["conv4"]
    assert fast.dtype == jnp.bfloat16
    difference = np.linalg.norm(np.asarray(fast, np.float32) - np.asarray(exact)) / np.linalg.norm(exact)
    assert 0 < difference < 0.03


@pytest.mark.parametrize("layout", LAYOUTS)
def test_conv5_stride_only_changes_conv5(layout: str) -> None:
    strided = ResNetConfig(layout=layout, norm_epsilon=1e-5, blocks=(2, 2, 2, 2), width=4)
    dense = dataclasses.replace(strided, conv5_stride=1)
    size = np.array([200, 333])
    np.testing.assert_array_equal(resnet.map_size(size, "conv4", strided), [13, 21] if layout != "tf_slim" else [7, 11])
    np.testing.assert_array_equal(resnet.map_size(size, "conv5", dense), resnet.map_size(size, "conv4", dense))
    np.testing.assert_array_equal(
        resnet.map_size(size, "conv5", strided), -(-resnet.map_size(size, "conv4", strided) // 2)
    )


@pytest.mark.parametrize("layout", ALL_LAYOUTS)
def test_conv4_at_32_is_every_second_cell_of_conv4_at_16(tiny: Any, layout: str) -> None:
    config, params = tiny[layout]
    photo = random_photo(75, 98)
    fine, coarse = (
        encode_one((dataclasses.replace(config, conv4_pitch=pitch, conv5_stride=1), params), photo)
        for pitch in (16, 32)
    )
    assert relative_error(coarse["conv4"], fine["conv4"][::2, ::2]) <= 1e-5
    for pitch, maps in ((16, fine), (32, coarse)):
        size = resnet.map_size(np.array([75, 98]), "conv4", dataclasses.replace(config, conv4_pitch=pitch))
        assert maps["conv4"].shape[:2] == tuple(size)
    # TF-slim's conv5 starts from every second cell either way.
    assert (fine["conv5"].shape == coarse["conv5"].shape) == (layout == "tf_slim")


def test_weights_that_end_at_conv4(tiny: Any) -> None:
    config, params = tiny["tf_slim"]
    short = dataclasses.replace(config, blocks=(2, 2, 2, 0))
    kept = {name: params[name] for name in ("conv1", "conv2", "conv3", "conv4")}
    photo = random_photo(52, 71)
    images, valid_hw = jnp.asarray(photo)[None], jnp.array([photo.shape[:2]])
    maps = encode(kept, images, valid_hw, short, last="conv4")
    assert tuple(maps) == resnet.map_names(short) == ("conv1", "conv2", "conv3", "conv4")
    np.testing.assert_array_equal(maps["conv4"], encode(params, images, valid_hw, config, last="conv4")["conv4"])
    with pytest.raises(ModelError, match="conv5: these weights have no such map; they have conv1, conv2, conv3, conv4"):
        encode(kept, images, valid_hw, short)


def test_channels_and_parameters_follow_the_config() -> None:
    config = ResNetConfig(layout="keras_v1", norm_epsilon=1e-3)
    assert [resnet.channels(name, config) for name in MAP_NAMES] == [64, 256, 512, 1024, 2048]
    small = dataclasses.replace(config, width=4, blocks=(1, 1, 1, 1))
    params = resnet.initialise(small, seed=0)
    assert params["conv3"]["unit1"]["shortcut"]["kernel"].shape == (1, 1, 16, 32)
    assert ResNetConfig.from_json(small.to_json()) == small


def test_fold_names_what_is_missing_or_misshapen() -> None:
    config, tensors, _ = import_keras(keras_arrays(1))
    with pytest.raises(ModelError, match=r"conv4\.unit2\.spatial\.norm\.mean: missing"):
        resnet.fold({k: v for k, v in tensors.items() if k != "conv4.unit2.spatial.norm.mean"}, config)
    with pytest.raises(ModelError, match=r"conv1\.bias: its shape is \(5,\)"):
        resnet.fold(tensors | {"conv1.bias": np.zeros(5, np.float32)}, config)


def test_packaged_float16_weights_stay_near_the_float32_source() -> None:
    """The relative errors of the float16 file on a real photo; float32 parity is test_importers' matter."""
    description, tensors = model_file.read(WEIGHTS)
    config = ResNetConfig.from_json(description["config"])
    assert {str(v.dtype) for k, v in tensors.items() if k.endswith(".kernel")} == {"float16"}
    assert {str(v.dtype) for k, v in tensors.items() if not k.endswith(".kernel")} == {"float32"}
    with np.load(Path(__file__).parents[2] / "golden" / "resnet.npz") as golden:
        photo = golden["pixels"].astype(np.float32) - np.array(description["preprocess"]["mean"], np.float32)
    maps = encode_one((config, resnet.fold(tensors, config)), photo)
    for name, values in maps.items():
        assert golden_error(values, f"keras/{name}") <= 3e-3, name
