"""Attention finds the places that carry the class, from labels of whole photos alone, under every recipe."""

import jax
import numpy as np
import pytest

from delf_jax.extraction import attention
from delf_jax.extraction.head import Head
from delf_jax.training import exporting
from delf_jax.training.loop import Result
from delf_jax.training.settings import TrainingSettings
from tests.delf_jax.training.planted import Planted, area_under_curve, steps_for

pytestmark = pytest.mark.usefixtures("full_compilation")

STEPS = 300

PAPER = TrainingSettings(
    recipe="attention", cached=True, hidden=64, pooling="sum", schedule="halving", halve_every=3, learning_rate=0.1
)
OFFICIAL = TrainingSettings(
    recipe="joint", cached=True, hidden=64, pooling="mean", autoencoder=16, batch_norm=True, learning_rate=0.1
)
PACKAGED = TrainingSettings(
    recipe="attention",
    cached=True,
    hidden=64,
    pooling="unit",
    temperature=10.0,
    optimizer="adamw",
    learning_rate=0.003,
    schedule="cosine",
    label_smoothing=0.1,
)


@pytest.mark.parametrize("settings", [PAPER, OFFICIAL, PACKAGED], ids=["paper", "official", "packaged"])
def test_attention_finds_the_cells_that_carry_the_class(settings: TrainingSettings) -> None:
    problem = Planted()
    steps = steps_for(settings, steps=STEPS)
    state = steps.first_state(problem.batch(settings.batch_size, 0)[0])
    unseen, signal = problem.batch(64, STEPS)

    def quality(state: object) -> float:
        head = exporting.trained_head(steps, Result(state, 0, 0, {}), Head(), notes={})  # type: ignore[arg-type]
        scores = attention.score(unseen["features"].astype(np.float32), head.arrays(), "learned")
        return area_under_curve(np.asarray(scores), signal)

    assert quality(state) < 0.8
    for step in range(STEPS):
        state, metrics = steps.train(state, problem.batch(settings.batch_size, step)[0])
    # The paper's author: the attention's loss has to fall under 1.
    assert float(metrics["attention_loss"]) < 1
    assert quality(state) >= 0.95
    sums = jax.device_get(steps.evaluate(state, unseen))
    assert sums["photos"] == 64
    assert sums["accuracy"] / sums["photos"] > 0.9
