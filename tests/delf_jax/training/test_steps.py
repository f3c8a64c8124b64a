"""What one training step promises: photos count alike, devices add up, gradients stop where they should."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import delf_jax
from delf_jax.extraction.head import Head
from delf_jax.training.backbones import Backbone
from delf_jax.training.loop import network_config
from delf_jax.training.optimizers import optimizer_of
from delf_jax.training.settings import TrainingError, TrainingSettings
from delf_jax.training.steps import State, Steps
from tests.delf_jax.training.planted import Planted, steps_for

JOINT = TrainingSettings(
    recipe="joint",
    train_backbone=True,
    hidden=8,
    autoencoder=4,
    embedding=6,
    batch_norm=True,
    pooling="mean",
    side=64,
    # The norm of all gradients together would couple what must not be.
    clip=1e9,
)
ATTENTION = TrainingSettings(recipe="attention", hidden=8, augmentation="square", resize=64, side=64)

# Both in one process, which imports JAX once.
ON_DEVICES = """
import json
from unittest import mock
import jax
jax.config.update("jax_disable_most_optimizations", True)
from tests.delf_jax.training.planted import Planted, steps_for
from delf_jax.training.settings import TrainingSettings
settings = TrainingSettings(
    recipe="joint", cached=True, hidden=16, pooling="mean", autoencoder=8, batch_norm=True, learning_rate=0.1
)
for count in (1, 8):
    with mock.patch("jax.local_devices", return_value=jax.devices()[:count]):
        problem, steps = Planted(), steps_for(settings, steps=20)
    state = steps.first_state(problem.batch(30, 0)[0])
    for step in range(5):
        state, metrics = steps.train(state, problem.batch(30, step)[0])
    sums = [float(abs(leaf).sum()) for leaf in jax.tree.leaves(state["trained"])]
    metrics = {name: float(value) for name, value in metrics.items()}
    print(json.dumps({"devices": len(steps.devices), "metrics": metrics, "sums": sums}))
"""


def steps_on(tiny_model: Path, settings: TrainingSettings) -> Steps:
    backbone = Backbone.open(str(tiny_model))
    network = network_config(settings, backbone, classes=3)
    return Steps(settings, network, backbone, optimizer_of(settings, steps=10, steps_per_epoch=5))


def photos(rows: int = 4, side: int = 64) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (rows, side, side, 3), np.uint8)
    hw = np.tile(np.int32([[side, side - 14]]), (rows, 1))
    return {"images": images, "valid_hw": hw, "labels": np.arange(rows, dtype=np.int32) % 3, "gamma": np.float32(1)}


def test_eight_devices_give_what_one_gives(on_devices: Callable[[int, str], str]) -> None:
    # 30 photos do not divide by eight devices.
    one, eight = map(json.loads, on_devices(8, ON_DEVICES).splitlines())
    assert (one["devices"], eight["devices"]) == (1, 8)
    for name, value in one["metrics"].items():
        assert eight["metrics"][name] == pytest.approx(value, rel=2e-3, abs=1e-5), name
    np.testing.assert_allclose(eight["sums"], one["sums"], rtol=1e-3, atol=1e-4)


def test_a_row_without_photo_changes_nothing() -> None:
    steps = steps_for(TrainingSettings(recipe="attention", cached=True, hidden=8), steps=10)
    batch, _ = Planted().batch(6, 0)
    # Means over three photos, each of them twice, are means over the three.
    twice = {name: np.concatenate([array[:3], array[:3]]) for name, array in batch.items()}
    padded = batch | {"labels": np.where(np.arange(6) < 3, batch["labels"], -1)}
    state = steps.first_state(twice)
    for name in ("units", "cells"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state[name], steps.first_state(padded)[name]
        )
    alone, with_padding = steps.train(state, twice), steps.train(state, padded)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), alone, with_padding)
    assert float(steps.evaluate(state, padded)["photos"]) == 3


class Step(NamedTuple):
    """One step of training on ``photos()``: the states before and after it, and its metrics."""

    steps: Steps
    before: State
    after: State
    metrics: dict[str, Any]


def one_step(tiny_model: Path, settings: TrainingSettings) -> Step:
    steps = steps_on(tiny_model, settings)
    before = steps.first_state(photos())
    return Step(steps, before, *steps.train(before, photos()))


@pytest.fixture(scope="module")
def attention_step(tiny_model: Path) -> Step:
    return one_step(tiny_model, ATTENTION)


@pytest.fixture(scope="module")
def joint_step(tiny_model: Path) -> Step:
    return one_step(tiny_model, JOINT)


def test_photos_and_their_cached_features_have_one_loss(tiny_model: Path, attention_step: Step) -> None:
    from_features = steps_on(tiny_model, dataclasses.replace(ATTENTION, cached=True))
    batch = photos()
    extractor = delf_jax.load(tiny_model, head=Head(), scorer="norm")
    dense = jax.jit(functools.partial(extractor.dense, last="conv4"))
    maps = dense(extractor.params, batch["images"], batch["valid_hw"])["conv4"]
    height, width = extractor.map_size(batch["valid_hw"][0], "conv4")
    where = np.zeros(maps.shape[:3], bool)
    where[:, :height, :width] = True
    cells = {
        "features": np.asarray(maps).reshape(4, -1, maps.shape[-1]),
        "where": where.reshape(4, -1),
        "labels": batch["labels"],
    }
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        attention_step.metrics,
        from_features.train(attention_step.before, cells)[1],
    )


def test_gamma_rescales_the_photos_as_the_pyramid_does(tiny_model: Path) -> None:
    backbone = Backbone.open(str(tiny_model))
    maps_of = jax.jit(backbone.maps, static_argnames=("last", "precision", "canvas"))
    batch = photos()
    canvases = []
    for canvas in (48, 64):
        maps, reduced = maps_of(
            backbone.parameters,
            batch["images"],
            batch["valid_hw"],
            last="conv3",
            precision="float32",
            gamma=np.float32(0.7),
            canvas=canvas,
        )
        assert reduced.tolist() == [[45, 35]] * 4
        canvases.append(np.asarray(maps["conv3"])[:, :5, :4])
    np.testing.assert_allclose(canvases[0], canvases[1], rtol=1e-4, atol=1e-4)


def test_the_attention_recipe_leaves_the_backbone_alone_and_the_joint_one_changes_it(
    attention_step: Step, joint_step: Step
) -> None:
    assert attention_step.after["trained"]["backbone"] == {}
    before, after = jax.device_get((joint_step.before["trained"], joint_step.after["trained"]))
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert changed["backbone"]["conv4"]["unit1"]["reduce"]["kernel"]
    assert changed["heads"]["autoencoder"]["encode"]["kernel"]
    metrics = joint_step.metrics
    total = metrics["descriptor_loss"] + metrics["attention_loss"] + 10 * metrics["reconstruction_loss"]
    assert float(metrics["loss"]) == pytest.approx(float(total), rel=1e-5)


def test_neither_attention_nor_reconstruction_reaches_the_backbone(joint_step: Step) -> None:
    before, generator = jax.device_get(joint_step.before), np.random.default_rng(0)
    heads = before["trained"]["heads"]
    for name in ("attention", "classifier", "autoencoder"):
        heads[name] = jax.tree.map(
            lambda leaf: leaf + generator.normal(size=leaf.shape).astype(leaf.dtype), heads[name]
        )
    after, metrics = joint_step.steps.train(jax.device_put(before, joint_step.steps.replicated), photos())
    for name in ("attention_loss", "reconstruction_loss"):
        assert abs(float(metrics[name]) / float(joint_step.metrics[name]) - 1) > 0.1
    assert float(metrics["descriptor_loss"]) == pytest.approx(float(joint_step.metrics["descriptor_loss"]), rel=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
        after["trained"]["backbone"],
        joint_step.after["trained"]["backbone"],
    )


def test_a_map_that_the_backbone_lacks_is_named(tiny_model: Path) -> None:
    with pytest.raises(TrainingError, match="conv9: this backbone has no such map; its maps: conv1"):
        steps_on(tiny_model, dataclasses.replace(ATTENTION, layer="conv9"))
