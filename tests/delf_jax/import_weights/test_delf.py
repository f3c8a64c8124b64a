"""Checkpoints in the official names and shapes: parity with PyTorch's forward passes, and the head that comes along."""

import functools
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delf_jax.errors import FileFormatError, ModelError
from delf_jax.extraction import attention
from delf_jax.extraction.descriptors import describe
from delf_jax.extraction.head import Head
from delf_jax.import_weights.delf import ImportedDelf, find_checkpoint, import_delf
from delf_jax.import_weights.delf_config import DelfConfig, read_config
from delf_jax.interchange.datum import read_datum
from delf_jax.models import resnet
from delf_jax.models.receptive_field import ReceptiveField, receptive_field
from tests.delf_jax.import_weights.bundle_writer import write_bundle
from tests.golden.compare import golden_error
from tests.golden.random_delf import SIZES, keras_arrays, slim_arrays
from tests.golden.random_resnet import random_photo

# Of the official example for delf_v1_20171026.
CONFIG = """
model_path: "parameters/delf_v1_20171026/model/"
image_scales: .25
image_scales: .3536
image_scales: 1.0
delf_local_config {
  use_pca: true
  # hard-coded in the checkpoint
  layer_name: "resnet_v1_50/block3"
  iou_threshold: 1.0
  max_feature_num: 1000
  score_threshold: 100.0
  pca_parameters {
    mean_path: "parameters/delf_v1_20171026/pca/mean.datum"
    projection_matrix_path: "parameters/delf_v1_20171026/pca/pca_proj_mat.datum"
    pca_dim: 40
    use_whitening: false
  }
}
"""


def write_datum(path: Path, array: np.ndarray) -> None:
    """A DatumProto of floats."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2]) + varint(len(content)) + content

    def varint(number: int) -> bytes:
        return varint_tail(number) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)

    def varint_tail(number: int) -> bytes:
        return bytes([number])

    shape = field(1, field(1, b"".join(varint(size) for size in array.shape)))
    values = struct.pack(f"<{array.size}f", *array.ravel())
    path.write_bytes(shape + field(2, field(1, values)))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as that of delf_v1_20171026: a SavedModel in ``model``, the PCA in ``pca``."""
    folder = tmp_path_factory.mktemp("releases") / "delf_v1_20171026"
    write_bundle(folder / "model" / "variables" / "variables", slim_arrays())
    (folder / "pca").mkdir()
    draw = np.random.default_rng(5)
    write_datum(folder / "pca" / "mean.datum", draw.normal(size=1024).astype(np.float32) / 100)
    basis, _ = np.linalg.qr(draw.normal(size=(1024, 64)))
    write_datum(folder / "pca" / "pca_proj_mat.datum", basis.T.astype(np.float32))
    (folder / "delf_config.pbtxt").write_text(CONFIG)
    return folder


def check_parity(imported: ImportedDelf, source: str) -> None:
    """Maps, attention and reduced features against PyTorch's of the same checkpoint, on canvases with padding."""
    config = imported.backbone.config
    params = resnet.fold(imported.backbone.tensors, config)
    forward = jax.jit(functools.partial(resnet.forward, config=config, last=resnet.map_names(config)[-1]))
    canvases = np.full((len(SIZES), 112, 144, 3), np.nan, np.float32)
    for canvas, (height, width) in zip(canvases, SIZES, strict=True):
        canvas[:height, :width] = random_photo(height, width)
    maps = forward(params, jnp.asarray(canvases), jnp.array(SIZES))
    arrays = imported.head.arrays()
    for row, (height, width) in enumerate(SIZES):
        own = {}
        for name in ("conv4", "conv5"):
            if name in maps:
                cells = resnet.map_size(np.array([height, width]), name, config)
                own[name] = np.asarray(maps[name][row, : cells[0], : cells[1]])
        own["attention"] = np.asarray(attention.score(own["conv4"], arrays, "learned"))[..., None]
        if "autoencoder" in arrays:
            own["reduced"] = np.asarray(attention.encoded(own["conv4"], arrays["autoencoder"]))
            unit = own["reduced"] / np.linalg.norm(own["reduced"], axis=-1, keepdims=True)
            np.testing.assert_allclose(describe(own["conv4"], arrays), unit, atol=1e-5)
        for name, values in own.items():
            assert golden_error(values, f"{source}/{height}x{width}/{name}", file="delf.npz") <= 1e-4, name


def test_names_and_shapes_are_those_of_the_release(shared_data: Path) -> None:
    lines = (shared_data / "delf_format" / "variables.txt").read_text().splitlines()
    listed = dict(line.rsplit(" ", 1)[0].split(" ", 1) for line in lines if "[" in line)
    assert {name: str(list(array.shape)) for name, array in slim_arrays().items()} == listed


def test_delf_release_gives_the_numbers_of_pytorch(release: Path) -> None:
    imported = import_delf(release)
    config = imported.backbone.config
    assert (config.layout, config.blocks, config.norm_epsilon) == ("tf_slim", (3, 4, 6, 0), 1e-5)
    assert resnet.map_names(config) == ("conv1", "conv2", "conv3", "conv4")
    assert receptive_field(config, "conv4") == ReceptiveField(size=291, stride=32)
    assert imported.backbone.preprocess == {"mean": [128.0] * 3, "std": [128.0] * 3}
    assert imported.head.pca is None
    check_parity(imported, "slim50")


@pytest.mark.slow
def test_delg_in_the_names_of_tf_slim(tmp_path: Path) -> None:
    arrays = slim_arrays(101, attention="attention_block", autoencoder="local/autoencoder")
    others = {"global/fc/weights": np.zeros((1, 1, 2048, 2048), np.float32), "global_step": np.array(3, np.int64)}
    imported = import_delf(write_bundle(tmp_path / "variables" / "variables", arrays | others).parent.parent)
    config = imported.backbone.config
    assert (config.layout, config.blocks) == ("tf_slim", (3, 4, 23, 0))
    assert receptive_field(config, "conv4") == ReceptiveField(size=835, stride=16)
    assert imported.head.dimension == 128
    check_parity(imported, "slim101")


@pytest.mark.parametrize("stride", [16, 32])
def test_delg_of_the_keras_training_code(tmp_path: Path, stride: int) -> None:
    objects = ["_model/backbone/max_pool", *(["_model/backbone/subsampling_layer"] if stride == 32 else [])]
    arrays = {f"_model/{name}": array for name, array in keras_arrays().items()}
    write_bundle(tmp_path / "variables" / "variables", arrays, objects=objects, numbered=True)
    imported = import_delf(tmp_path)
    config = imported.backbone.config
    assert (config.layout, config.blocks, config.norm_epsilon) == ("keras_delf", (3, 4, 6, 3), 1e-3)
    assert receptive_field(config, "conv4") == ReceptiveField(size=291, stride=stride)
    check_parity(imported, f"keras{stride}")


def test_pca_threshold_and_scales_come_from_the_config(release: Path, tmp_path: Path) -> None:
    config = read_config(release / "delf_config.pbtxt")
    assert config.settings == {
        "scales": [0.25, 0.3536, 1.0],
        "threshold": 100.0,
        "max_features": 1000,
        "detection": "cells",
    }
    head = import_delf(release, config=config).head
    head.save(tmp_path / "head.safetensors")
    head = Head.open(tmp_path / "head.safetensors")
    assert (head.dimension, head.whiten, head.layer) == (40, False, "conv4")
    assert head.released_settings == config.settings
    mean = read_datum(release / "pca" / "mean.datum")
    matrix = read_datum(release / "pca" / "pca_proj_mat.datum")
    assert (mean.shape, matrix.shape) == ((1024,), (64, 1024))
    features = np.random.default_rng(1).random((5, 1024)).astype(np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    projected = (unit - mean) @ matrix[:40].T
    expected = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    np.testing.assert_allclose(describe(features, head.arrays()), expected, atol=1e-5)


def test_configs_of_delg(tmp_path: Path) -> None:
    path = tmp_path / "r50delg_gldv2clean_config.pbtxt"
    path.write_text(
        "use_local_features: true\nuse_global_features: true\nimage_scales: 0.25\nimage_scales: 0.35355338\n"
        "delf_local_config {\n  use_pca: false\n  max_feature_num: 1000\n  score_threshold: 454.6\n}\n"
        "delf_global_config {\n  use_pca: false\n  image_scales_ind: 3\n}\nmax_image_size: 1024\n",
        encoding="utf-8-sig",
    )
    config = read_config(path)
    assert config == DelfConfig(scales=(0.25, 0.353553), score_threshold=454.6, max_side=1024)
    assert config.settings["max_side"] == 1024
    path.write_text("image_scales: many")
    with pytest.raises(ModelError, match="not a DelfConfig in text form"):
        read_config(path)
    path.write_text("max_image_size: 3")
    with pytest.raises(ModelError, match="names no image_scales"):
        read_config(path)


def test_pca_that_does_not_fit_is_refused(release: Path) -> None:
    with pytest.raises(ModelError, match=r"matrix of shape \(64, 1024\) for a mean of 1024 and 128 dimensions"):
        import_delf(release, config=DelfConfig((1.0,), 100.0, pca_dimension=128))
    with pytest.raises(ModelError, match=r"has no pca_variances\.datum"):
        import_delf(release, config=DelfConfig((1.0,), 100.0, pca_dimension=40, whiten=True))
    (release / "pca" / "broken.datum").write_bytes(b"\x0a\x7f")
    with pytest.raises(FileFormatError, match=r"broken\.datum: damaged or not a \.datum file"):
        read_datum(release / "pca" / "broken.datum")


def test_real_datum_files_are_read(shared_data: Path) -> None:
    mean = read_datum(shared_data / "delf_format" / "mean.datum")
    variances = read_datum(shared_data / "delf_format" / "pca_variances.datum")
    assert mean.size == variances.size == 1024
    assert (np.diff(variances.ravel()) <= 0).all()


def test_checkpoints_are_found_in_folders(tmp_path: Path) -> None:
    prefix = write_bundle(tmp_path / "run" / "model.ckpt-7", {"a": np.zeros(1, np.float32)})
    assert find_checkpoint(tmp_path / "run") == find_checkpoint(f"{prefix}.index") == find_checkpoint(prefix)
    write_bundle(tmp_path / "run" / "model.ckpt-9", {"a": np.zeros(1, np.float32)})
    with pytest.raises(ModelError, match="holds 2 checkpoints"):
        find_checkpoint(tmp_path / "run")
    (tmp_path / "run" / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-9"\n')
    assert find_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "model.ckpt-9")
    with pytest.raises(ModelError, match="holds no TensorFlow checkpoint"):
        find_checkpoint(tmp_path)
    with pytest.raises(ModelError, match=r"names of DELF in TF-slim or Keras; it holds a, \.\.\."):
        import_delf(prefix)


def test_a_network_without_attention_is_refused(tmp_path: Path) -> None:
    arrays = {name: array for name, array in slim_arrays().items() if "attention" not in name}
    with pytest.raises(ModelError, match="has no attention"):
        import_delf(write_bundle(tmp_path / "variables", arrays))
