"""What leaves a run computes what training computed; heads of old stay what they were."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delf_jax
from delf_jax.extraction.attention import score
from delf_jax.extraction.descriptors import describe
from delf_jax.extraction.head import Head
from delf_jax.loading import model_paths
from delf_jax.training import exporting, networks
from delf_jax.training.backbones import Backbone
from delf_jax.training.loop import Result, first_attention
from delf_jax.training.networks import NetworkConfig
from delf_jax.training.settings import TrainingError, TrainingSettings
from delf_jax.training.steps import Steps
from tests.delf_jax.training.planted import Planted, steps_for

CONFIG = NetworkConfig(classes=3, channels=12, hidden=7, batch_norm=True, autoencoder=5)


def random_network() -> tuple[dict, dict]:
    generator = np.random.default_rng(0)
    parameters, statistics = networks.initialise(CONFIG, seed=1)

    def moved(leaf: np.ndarray) -> np.ndarray:
        return (leaf + 0.1 * generator.normal(size=leaf.shape)).astype(np.float32)

    return jax.tree.map(moved, parameters), jax.tree.map(lambda leaf: abs(moved(leaf)) + 0.5, statistics)


def test_exported_arrays_score_and_describe_as_the_trained_network_does() -> None:
    parameters, statistics = random_network()
    unit = 0.25
    features = np.abs(np.random.default_rng(1).normal(size=(2, 9, 12))).astype(np.float32) * 4
    heads = networks.merge(CONFIG, parameters, statistics)
    expanded = heads.autoencoder(jnp.asarray(features * unit))
    expected = heads.scores(expanded, jnp.ones((2, 9), bool), training=False)
    attention, autoencoder = networks.export(CONFIG, parameters, statistics, unit=unit)
    head = Head(attention=attention, autoencoder=autoencoder)
    np.testing.assert_allclose(score(features, head.arrays(), "learned"), expected, rtol=2e-4, atol=1e-5)

    encoded = (features * unit) @ parameters["autoencoder"]["encode"]["kernel"]
    encoded += parameters["autoencoder"]["encode"]["bias"]
    unit_length = encoded / np.linalg.norm(encoded, axis=-1, keepdims=True)
    np.testing.assert_allclose(describe(features, head.arrays()), unit_length, rtol=1e-4, atol=1e-5)
    assert head.dimension == 5


def test_a_head_with_an_autoencoder_comes_back_from_its_file(tmp_path: Path) -> None:
    parameters, statistics = random_network()
    attention, autoencoder = networks.export(CONFIG, parameters, statistics, unit=1.0)
    Head(attention=attention, autoencoder=autoencoder).save(tmp_path / "head.safetensors")
    opened = Head.open(tmp_path / "head.safetensors")
    assert opened.autoencoder is not None
    for name, array in (autoencoder or {}).items():
        np.testing.assert_array_equal(opened.autoencoder[name], array)


def test_a_head_without_autoencoder_is_the_same_file_as_ever(tmp_path: Path) -> None:
    _, packaged = model_paths("delf-r50")
    head = Head.open(packaged)
    assert head.autoencoder is None
    assert "autoencoder" not in head.arrays()
    head.save(tmp_path / "head.safetensors")
    assert (tmp_path / "head.safetensors").read_bytes() == packaged.read_bytes()


def test_features_of_an_autoencoder_head_have_its_dimension(tiny_model: Path, demo_photos: Path) -> None:
    config = NetworkConfig(classes=3, channels=128, hidden=7, autoencoder=5)
    attention, autoencoder = networks.export(config, *networks.initialise(config, seed=0), unit=0.1)
    head = Head(attention=attention, autoencoder=autoencoder)
    extractor = delf_jax.load(tiny_model, head=head, scorer="learned", max_side=64, max_features=20, scales=(1.0,))
    (features,) = extractor([demo_photos / "graf1.jpg"])
    assert extractor.dimension == 5
    assert features.descriptors.shape[1] == 5
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, rtol=1e-5)


def test_a_saved_backbone_computes_what_it_did(tiny_model: Path, tmp_path: Path) -> None:
    backbone = Backbone.open(str(tiny_model))
    backbone.save(tmp_path / "backbone.safetensors", backbone.parameters, source={"trained_from": "tiny"})
    saved = Backbone.open(str(tmp_path / "backbone.safetensors"))
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8))
    hw = jnp.array([[64, 64]])
    before, after = (
        jax.jit(network.maps, static_argnames=("last", "precision"))(
            network.parameters, images, hw, last="conv5", precision="float32"
        )[0]
        for network in (backbone, saved)
    )
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=2e-2, atol=2e-2 * float(abs(array).max()), err_msg=name)


def test_what_belongs_to_another_layer_is_not_kept() -> None:
    settings = TrainingSettings(recipe="attention", cached=True, hidden=8, layer="conv3")
    _, packaged = model_paths("delf-r50")
    head = finished(settings, Head.open(packaged))
    assert head.layer == "conv3"
    assert (head.pca, head.foreground, head.log10_nfa_threshold) == (None, None, None)
    same_layer = finished(dataclasses.replace(settings, layer="conv4"), Head.open(packaged))
    assert same_layer.pca is not None
    assert (head.calibrations, same_layer.calibrations) == ((), ())


def test_a_warm_start_begins_with_the_attention_of_the_base_head() -> None:
    settings = TrainingSettings(recipe="attention", cached=True, hidden=8)
    base = finished(dataclasses.replace(settings, seed=1), Head())
    assert base.attention is not None
    begun = finished(dataclasses.replace(settings, warm_start=True), base)
    cold = finished(settings, base)
    assert begun.attention is not None
    assert cold.attention is not None
    for name, array in base.attention.items():
        np.testing.assert_allclose(begun.attention[name], array, rtol=1e-6)
    assert abs(cold.attention["kernel"] - base.attention["kernel"]).max() > 0.1


def test_a_warm_start_needs_an_attention_of_the_same_shape() -> None:
    settings = TrainingSettings(recipe="attention", cached=True, hidden=8, warm_start=True)
    with pytest.raises(TrainingError, match="has no attention to begin with"):
        finished(settings, Head())
    base = finished(dataclasses.replace(settings, warm_start=False, hidden=4), Head())
    with pytest.raises(TrainingError, match="attention is 32x4 on conv4, not 32x8 on conv4"):
        finished(settings, base)


def finished(settings: TrainingSettings, base: Head) -> Head:
    """The head of a run of no steps."""
    plain = steps_for(settings, steps=1)
    attention = first_attention(settings, plain.network, base)
    steps = Steps(settings, plain.network, plain.backbone, plain.optimizer, attention=attention)
    state = steps.first_state(Planted().batch(4, 0)[0])
    return exporting.trained_head(steps, Result(state, 0, 0, {}), base, notes={})
