"""Encoders from model files (VGG and vision transformers of a few kilobytes, ResNet-50) and from saved descriptions."""

from pathlib import Path

import numpy as np
import pytest

import delf_jax
import localization
from delf_jax.errors import ModelError, PredictorError
from delf_jax.extraction.head import Head
from delf_jax.import_weights.imported_backbone import ImportedBackbone, pack_backbone
from delf_jax.import_weights.torchvision import IMAGENET_PREPROCESS
from delf_jax.models import vgg, vit
from delf_jax.models.vgg import VggConfig
from delf_jax.models.vit import VitConfig
from delf_jax.photos.load import load_photo
from localization.encoders.choosing import open_encoder
from localization.encoders.extractor_encoder import ExtractorEncoder
from tests.golden.random_vgg import TINY_BLOCKS, TINY_WIDTH

VIT = VitConfig(patch=8, grid=4, depth=1, width=16, heads=2, registers=1)
VGG = VggConfig(norm_epsilon=None, blocks=TINY_BLOCKS, width=TINY_WIDTH)


def random_tensors(shapes: dict, prefix: str = "") -> dict[str, np.ndarray]:
    """Tensors of a model file for parameters of these shapes, nowhere neutral."""
    tensors: dict[str, np.ndarray] = {}
    for name, child in shapes.items():
        if isinstance(child, dict):
            tensors |= random_tensors(child, f"{prefix}{name}.")
        else:
            generator = np.random.default_rng(len(prefix) + len(name) + child.size)
            tensors[prefix + name] = 0.3 * generator.standard_normal(child.shape).astype(np.float32)
    return tensors


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vit") / "tiny_vit.safetensors"
    imported = ImportedBackbone(VIT, random_tensors(vit.initialise(VIT, seed=0)), IMAGENET_PREPROCESS)
    pack_backbone(imported, path, source={})
    return path


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "tiny_vgg.safetensors"
    imported = ImportedBackbone(VGG, random_tensors(vgg.initialise(VGG, seed=0)), IMAGENET_PREPROCESS)
    pack_backbone(imported, path, source={})
    return path


@pytest.fixture(scope="module")
def photos(demo_photos: Path) -> list[Path]:
    return [demo_photos / name for name in ("flower.jpg", "chelsea.jpg")]


def test_vision_transformer_fits_localizes_and_opens_again(vit_file: Path, photos: list[Path], tmp_path: Path) -> None:
    encoder = localization.backbone_encoder(vit_file, max_side=64)
    assert encoder.layer == "relu"
    predictor = localization.fit(photos, encoder=encoder)
    cells = [np.prod(np.array(load_photo(photo, max_side=64).pixels.shape[:2]) // 8) for photo in photos]
    assert predictor.statistics.total.count == sum(cells)
    predictor.save(tmp_path / "p")
    opened = localization.Predictor.open(tmp_path / "p")
    (given,), (found,) = predictor.localize(photos[:1]), opened.localize(photos[:1])
    np.testing.assert_allclose(found.activation, given.activation, atol=1e-5)
    assert found.activation.shape == load_photo(photos[0], max_side=64).pixels.shape[:2]


def test_vgg_keeps_stride_eight_for_localization(vgg_file: Path, photos: list[Path]) -> None:
    coarse = localization.backbone_encoder(vgg_file, max_side=64)
    fine = localization.backbone_encoder(vgg_file, max_side=64, conv5_stride=1)
    assert coarse.layer == "pool5"
    size = np.array([64, 48])
    np.testing.assert_array_equal(coarse.extractor.map_size(size, "pool5"), [2, 1])
    np.testing.assert_array_equal(fine.extractor.map_size(size, "pool5"), [8, 6])
    height, width = load_photo(photos[0], max_side=64).pixels.shape[:2]
    assert localization.fit(photos[:1], encoder=fine).statistics.total.count == (height // 8) * (width // 8)
    assert dict(fine.description) == dict(coarse.description) | {"conv5_stride": 1}
    again = open_encoder(fine.description)
    assert isinstance(again, ExtractorEncoder)
    np.testing.assert_array_equal(again.extractor.map_size(size, "pool5"), [8, 6])


def test_resnet_at_either_stride() -> None:
    size = np.array([224, 224])
    for stride, cells in ((None, 7), (1, 14)):
        extractor = localization.backbone_encoder("delf-r50", conv5_stride=stride).extractor
        np.testing.assert_array_equal(extractor.map_size(size, "conv5"), [cells, cells])


def test_what_a_file_cannot_do_is_refused(vit_file: Path, vgg_file: Path) -> None:
    with pytest.raises(PredictorError, match=r"tiny_vit\.safetensors: no map named conv5; it has tokens, relu"):
        localization.backbone_encoder(vit_file, layer="conv5")
    with pytest.raises(ModelError, match="a vision transformer has no conv5_stride"):
        localization.backbone_encoder(vit_file, conv5_stride=1)
    with pytest.raises(ModelError, match="no such model"):
        localization.backbone_encoder("nowhere.safetensors")
    with pytest.raises(ModelError, match=r"head\.safetensors"):
        delf_jax.load(vgg_file)


def test_local_features_of_another_backbone(vgg_file: Path, photos: list[Path]) -> None:
    extractor = delf_jax.load(vgg_file, head=Head(), scorer="norm", max_side=64, max_features=20, scales=(1.0,))
    (features,) = extractor(photos[:1])
    assert features.descriptors.shape[1] == extractor.dimension == 8 * TINY_WIDTH
    assert len(features.keypoints) > 0


def test_packaged_network_localizes_and_opens_again(demo_photos: Path, tmp_path: Path) -> None:
    photos = [demo_photos / name for name in ("flower.jpg", "china.jpg", "coffee.jpg", "chelsea.jpg")]
    predictor = localization.fit(photos, encoder=localization.default_encoder(max_side=128))
    predictor.save(tmp_path / "p")
    opened = localization.Predictor.open(tmp_path / "p")
    (given,), (found,) = predictor.localize(photos[:1]), opened.localize(photos[:1])
    np.testing.assert_allclose(found.activation, given.activation, atol=1e-5)
    pixels = load_photo(photos[0], max_side=128).pixels
    assert found.activation.shape == pixels.shape[:2]
    assert found.found
    height, width = found.image_size
    x0, y0, x1, y1, _ = found.boxes[0]
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    explanation = opened.explain(photos[0], (width / 2, height / 2), top=3)
    assert explanation.excitatory[0].image == str(photos[0])  # its own position is among the training points
    assert explanation.excitatory[0].thumbnail[:2] == b"\xff\xd8"


def test_another_backbone_is_refused(vit_file: Path) -> None:
    encoder = localization.backbone_encoder(vit_file, max_side=64)
    with pytest.raises(PredictorError, match="not the one that the predictor was fitted on"):
        open_encoder(dict(encoder.description) | {"backbone": "0" * 64})
    with pytest.raises(PredictorError, match="give it again with encoder="):
        open_encoder({"kind": "callable", "name": "mine"})


def test_reopened_encoder_takes_batches_as_asked(vit_file: Path) -> None:
    encoder = localization.backbone_encoder(vit_file, max_side=64)
    opened = open_encoder(encoder.description, batch_size=3)
    assert isinstance(opened, ExtractorEncoder)
    assert opened.extractor.batch_size == 3
    assert opened.description == encoder.description
