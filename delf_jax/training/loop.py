"""The training loop: steps, metrics, checkpoints, and the result of a run."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from delf_jax.extraction.head import Head
from delf_jax.training.backbones import Backbone
from delf_jax.training.checkpoints import Checkpoints
from delf_jax.training.feeds import Feed, Feeds
from delf_jax.training.metrics_log import Board, MetricsLog
from delf_jax.training.networks import NetworkConfig
from delf_jax.training.run_folder import CHECKPOINTS
from delf_jax.training.settings import TrainingError, TrainingSettings
from delf_jax.training.steps import State, Steps


class Progress(NamedTuple):
    """State of a run.

    Attributes:
        step: steps done, out of ``steps``.
        metrics: of the last step.
        photos_per_second: since the run was started or resumed.
        seconds_left: at that rate.
    """

    step: int
    steps: int
    metrics: Mapping[str, float]
    photos_per_second: float
    seconds_left: float


class Result(NamedTuple):
    """Result of a finished run.

    Attributes:
        state: of the best checkpoint if photos were kept aside, otherwise of the last one.
        step: the step of that state.
        steps: number of all steps.
        metrics: of the last step.
    """

    state: State
    step: int
    steps: int
    metrics: Mapping[str, float]


def network_config(settings: TrainingSettings, backbone: Backbone, *, classes: int) -> NetworkConfig:
    """The heads that the settings ask for on this backbone."""
    if classes < 2:
        raise TrainingError(f"{classes} class is not enough; give photos of at least two classes")
    if settings.changes_backbone:
        backbone.require_trainable()
    return NetworkConfig(
        classes=classes,
        channels=backbone.channels(settings.layer),
        hidden=settings.hidden if settings.has_attention else 0,
        batch_norm=settings.batch_norm,
        autoencoder=settings.autoencoder if settings.has_attention else 0,
        photo_channels=backbone.channels(settings.photo_layer) if settings.changes_backbone else 0,
        embedding=settings.embedding,
    )


def first_attention(settings: TrainingSettings, network: NetworkConfig, base: Head) -> Mapping[str, np.ndarray] | None:
    """The attention at the start: with ``warm_start`` that of the base head; None for random parameters."""
    if not settings.warm_start:
        return None
    if base.attention is None or base.autoencoder is not None:
        raise TrainingError(
            "warm_start: the base head has no attention to begin with; name another head with --head, or "
            "start at random with --set warm_start=false"
        )
    wanted = (settings.layer, (network.channels, network.hidden))
    if wanted != (base.layer, base.attention["hidden_kernel"].shape):
        size = "x".join(map(str, base.attention["hidden_kernel"].shape))
        raise TrainingError(
            f"warm_start: the base head's attention is {size} on {base.layer}, not {network.channels}x{network.hidden} "
            f"on {settings.layer}; give that layer and hidden, or name another head with --head"
        )
    return base.attention


def total_steps(settings: TrainingSettings, steps_per_epoch: int) -> int:
    """Steps of the whole run."""
    return settings.steps or settings.epochs * steps_per_epoch


def train(
    steps: Steps,
    feeds: Feeds,
    folder: Path,
    *,
    board: Board | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Trains to the end, from the last checkpoint in ``folder`` if there is one.

    Interrupted by KeyboardInterrupt it leaves a checkpoint. A process that is killed goes on from the last finished
    checkpoint and repeats, bit for bit on a CPU, what came after it.

    Args:
        steps: the compiled steps.
        feeds: the batches.
        folder: gets ``checkpoints/`` and ``metrics.jsonl``.
        board: also gets the metrics.
        progress: called after every step.

    Raises:
        TrainingError: the loss or its gradient is no longer a number.
    """
    settings, feed = steps.settings, feeds.training
    end = total_steps(settings, feed.steps_per_epoch)
    with contextlib.closing(Checkpoints(folder / CHECKPOINTS)) as checkpoints:
        state, first = _begin(steps, feed, checkpoints)
        with MetricsLog(folder / "metrics.jsonl", step=first, board=board) as log:
            run = _Run(steps, feeds, state, checkpoints, log)
            try:
                for step in range(first + 1, end + 1):
                    seconds_per_step = run.advance(step, folder)
                    if progress is not None:
                        rate, left = settings.batch_size / seconds_per_step, (end - step) * seconds_per_step
                        progress(Progress(step, end, run.metrics, rate, left))
                    if step % settings.checkpoint_every == 0 or step == end:
                        run.save(step)
            except KeyboardInterrupt:
                run.save_interrupted(first)
                raise
        checkpoints.wait()
        state = run.state
        best = checkpoints.best if feeds.validation is not None else None
        if best is not None and best != end:
            state, _ = checkpoints.restore(best, state)
    return Result(state, int(state["step"]), end, run.metrics)


class _Run:
    """Where a run stands.

    Attributes:
        metrics: of the last step.
    """

    def __init__(self, steps: Steps, feeds: Feeds, state: State, checkpoints: Checkpoints, log: MetricsLog) -> None:
        self.metrics: dict[str, float] = {}
        self._steps = steps
        self._feeds = feeds
        self._checkpoints = checkpoints
        self._log = log
        self._pace = _Pace()
        self._recent_losses: list[float] = []
        self._standing = state, feeds.training.get_state()

    @property
    def state(self) -> State:
        """The state after the last step."""
        return self._standing[0]

    def advance(self, step: int, folder: Path) -> float:
        """Does a step and logs it; returns the mean seconds of a step.

        Raises:
            TrainingError: the loss or its gradient is no longer a number.
        """
        batch = next(self._feeds.training)
        state, measured = self._steps.train(self.state, batch)
        self.metrics = {name: float(value) for name, value in measured.items()}
        # A gradient that is not finite makes the state useless before the loss shows it.
        if not all(map(math.isfinite, self.metrics.values())):
            raise TrainingError(_diverged(folder, step, self._checkpoints.last))
        self._recent_losses.append(self.metrics["loss"])
        seconds, seconds_per_step = self._pace.count_step()
        rate = self._steps.settings.batch_size / seconds_per_step
        self._log.write(step, self.metrics | {"seconds": round(seconds, 3), "photos_per_second": round(rate, 3)})
        # One assignment: an interruption comes before or after it.
        self._standing = state, self._feeds.training.get_state()
        return seconds_per_step

    def save(self, step: int) -> None:
        """Writes a checkpoint, after a validation if photos were kept aside."""
        loss = float(np.mean(self._recent_losses))
        self._recent_losses.clear()
        if self._feeds.validation is not None:
            validated = validate(self._steps, self.state, self._feeds)
            self._log.write(step, {f"validation_{name}": value for name, value in validated.items()})
            loss = validated["loss"]
        self._checkpoints.save(step, *self._standing, loss=loss)

    def save_interrupted(self, first: int) -> None:
        """Writes a checkpoint of the last whole step, if there was one since ``first`` and the last checkpoint."""
        step = int(self.state["step"])
        if self._recent_losses and step > first:
            self._checkpoints.save(step, *self._standing, loss=float(np.mean(self._recent_losses)))


class _Pace:
    """The time that steps take. It leaves out the first one, which compiles the program."""

    def __init__(self) -> None:
        self._begin = self._started = time.monotonic()
        self._steps = 0

    def count_step(self) -> tuple[float, float]:
        """Counts a step that is done; returns the seconds since the start, and the mean seconds of a step."""
        now = time.monotonic()
        seconds_per_step = (now - self._begin) / max(self._steps, 1)
        if not self._steps:
            self._begin = now
        self._steps += 1
        return now - self._started, seconds_per_step


def validate(steps: Steps, state: State, feeds: Feeds) -> dict[str, float]:
    """Mean losses and accuracies over the photos kept aside."""
    assert feeds.validation is not None
    sums: dict[str, float] = {}
    for batch in feeds.validation():
        for name, value in steps.evaluate(state, batch).items():
            sums[name] = sums.get(name, 0.0) + float(value)
    photos = sums.pop("photos", 0.0)
    if not photos:
        raise TrainingError("none of the photos kept aside for validation could be read; set validation = 0")
    return {name: value / photos for name, value in sums.items()}


def _begin(steps: Steps, feed: Feed, checkpoints: Checkpoints) -> tuple[State, int]:
    start = feed.get_state()
    # The first batch gives the features' scale; training uses it again.
    state = steps.first_state(next(feed))
    feed.set_state(start)
    last = checkpoints.last
    if last is None:
        return state, 0
    state, standing = checkpoints.restore(last, state)
    feed.set_state(standing)
    return state, last


def _diverged(folder: Path, step: int, last: int | None) -> str:
    back = f"the last good checkpoint is that of step {last}" if last is not None else "there is no checkpoint yet"
    return (
        f"{os.fspath(folder)}: loss or gradient is not a number at step {step}; {back}. "
        "Start again with a lower learning_rate or clip (--set learning_rate=...), or with --precision float32"
    )
