"""A run killed at any instant goes on to the same losses, bit for bit; an interrupted one leaves a checkpoint."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from delf_jax.training import loop, metrics_log
from delf_jax.training.checkpoints import Checkpoints
from delf_jax.training.feeds import Feeds
from delf_jax.training.run_folder import prepare_run_folder
from delf_jax.training.settings import TrainingError, TrainingSettings
from delf_jax.training.steps import Steps
from tests.conftest import ROOT
from tests.delf_jax.training.class_folders import write_class_folders
from tests.delf_jax.training.planted import Planted, steps_for

# One process for each line of standard input, forked before JAX starts, so that the imports are paid for once. It kills
# itself, as the kernel would: after a step was logged, or while a checkpoint is being written.
DYING = """
import json, os, signal, sys
import delf_cli.train
from delf_cli.main import main
from delf_jax.training import dataset_builder, exporting, feeds, loop, sources
from delf_jax.training.checkpoints import Checkpoints
from delf_jax.training.metrics_log import MetricsLog

def run(place, at, arguments):
    home = {"log": (MetricsLog, "write"), "save": (Checkpoints, "save"), "never": None}[place]
    if home:
        whole = getattr(*home)
        def dying(self, step, *rest, **options):
            whole(self, step, *rest, **options)
            if step == at:
                os.kill(os.getpid(), signal.SIGKILL)
        setattr(*home, dying)
    return main(arguments)

for line in sys.stdin:
    child = os.fork()
    if not child:
        os._exit(run(*json.loads(line)))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class PlantedFeed:
    """Endless planted batches."""

    steps_per_epoch = 4
    failures: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, interrupted_at: int = -1) -> None:
        self.problem, self.step, self.interrupted_at = Planted(), 0, interrupted_at

    def __next__(self) -> Any:
        if self.step == self.interrupted_at:
            raise KeyboardInterrupt
        self.step += 1
        return self.problem.batch(8, self.step)[0]

    def get_state(self) -> dict[str, Any]:
        return {"step": self.step}

    def set_state(self, state: dict[str, Any]) -> None:
        self.step = state["step"]

    def close(self) -> None:
        """Nothing to end."""


SETTINGS = TrainingSettings(
    recipe="joint", cached=True, hidden=8, autoencoder=4, batch_norm=True, pooling="mean", checkpoint_every=3, steps=10
)


@pytest.fixture(scope="module")
def steps() -> Steps:
    return steps_for(SETTINGS, steps=10)


def logged(run: Path) -> list[dict[str, Any]]:
    """The lines of the log without their times."""
    times = ("seconds", "photos_per_second")
    return [{k: v for k, v in line.items() if k not in times} for line in metrics_log.read(run / "metrics.jsonl")]


@pytest.mark.slow
def test_killed_runs_go_on_bit_for_bit(tmp_path: Path, tiny_model: Path, demo_photos: Path) -> None:
    photos = write_class_folders(tmp_path / "photos", demo_photos)
    options = ["cached=false", "side=64", "resize=80", "augmentation=square", "smallest_gamma=0.75"]
    command = ["train", str(photos), "--model", str(tiny_model), "--steps", "8", "--preset", "tiny"]
    command += ["--set", *options, "checkpoint_every=3"]
    # Before any checkpoint, between two, and twice while one is being written.
    deaths = [("log", 2), ("save", 3), ("log", 5), ("save", 6)]
    runs = [("whole", "never", 0), *(("killed", *death) for death in deaths), ("killed", "never", 0)]
    finished = subprocess.run(
        [sys.executable, "-c", DYING],
        input="".join(f"{json.dumps([*end, [*command, '--out', str(tmp_path / out)]])}\n" for out, *end in runs),
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    codes = [int(line) for line in finished.stdout.splitlines() if line.lstrip("-").isdigit()]
    assert codes == [0, *[-signal.SIGKILL] * len(deaths), 0], finished.stderr
    whole, killed = logged(tmp_path / "whole"), logged(tmp_path / "killed")
    assert [line["step"] for line in whole] == list(range(1, 9))
    assert killed == whole
    heads = [(tmp_path / out / "head.safetensors").read_bytes() for out in ("whole", "killed")]
    assert heads[0] == heads[1]


def test_an_interrupted_run_leaves_a_checkpoint_and_goes_on(tmp_path: Path, steps: Steps) -> None:
    whole = loop.train(steps, Feeds(PlantedFeed(), None), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        loop.train(steps, Feeds(PlantedFeed(interrupted_at=5), None), tmp_path / "stopped")
    assert [line["step"] for line in logged(tmp_path / "stopped")] == [1, 2, 3, 4, 5]
    resumed = loop.train(steps, Feeds(PlantedFeed(), None), tmp_path / "stopped")
    assert logged(tmp_path / "stopped") == logged(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)


def test_the_best_and_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 5.0), (5, 4.0)):
        checkpoints.save(step, {"a": np.full(3, step)}, {"step": step}, loss=loss)
    checkpoints.wait()
    assert (checkpoints.best, checkpoints.last) == (2, 5)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [2, 4, 5]
    state, feed = checkpoints.restore(2, {"a": jax.numpy.zeros(3, int)})
    assert state["a"].tolist() == [2, 2, 2]
    assert feed == {"step": 2}
    checkpoints.close()


def test_a_full_disk_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)

    def full(manager: object) -> None:
        # What TensorStore said in a folder of 320 kB.
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write 5547 bytes to file 7: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "wait_until_finished", full)
        with pytest.raises(OSError, match="No space left on device") as caught:
            checkpoints.wait()
    assert caught.value.filename == str(tmp_path)
    checkpoints.close()


def test_with_photos_kept_aside_the_best_state_is_the_result(tmp_path: Path, steps: Steps) -> None:
    validation = [Planted().batch(8, 99)[0]]
    result = loop.train(steps, Feeds(PlantedFeed(), lambda: validation), tmp_path)
    lines = [line for line in logged(tmp_path) if "validation_loss" in line]
    assert [line["step"] for line in lines] == [3, 6, 9, 10]
    assert result.step == min(lines, key=lambda line: line["validation_loss"])["step"]


def test_a_loss_that_is_no_number_stops_the_run_and_says_what_to_do(tmp_path: Path, steps: Steps) -> None:
    feed = PlantedFeed()
    whole = feed.problem.batch

    def broken(rows: int, seed: int) -> Any:
        batch, signal = whole(rows, seed)
        if seed == 5:
            batch["features"][0, 0, 0] = np.inf
        return batch, signal

    feed.problem.batch = broken  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"not a number at step 5; .* step 3\. .* lower learning_rate"):
        loop.train(steps, Feeds(feed, None), tmp_path)


def test_a_folder_with_another_run_is_refused(tmp_path: Path) -> None:
    # Mistyped at first: nothing has been trained, so nothing stands in the way.
    prepare_run_folder(tmp_path / "run", {"settings": {"learning_rate": 10, "views": (1, 2)}, "photos": "abc"})
    prepare_run_folder(tmp_path / "run", {"settings": {"learning_rate": 0.1, "views": (1, 2)}, "photos": "abc"})
    (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True)
    prepare_run_folder(tmp_path / "run", {"settings": {"learning_rate": 0.1, "views": (1, 2)}, "photos": "abc"})
    with pytest.raises(TrainingError, match=r"settings\.learning_rate: 0\.1 there, 0\.2 asked for"):
        prepare_run_folder(tmp_path / "run", {"settings": {"learning_rate": 0.2, "views": (1, 2)}, "photos": "abc"})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("not to be overwritten")
    with pytest.raises(TrainingError, match="holds files but no training run"):
        prepare_run_folder(tmp_path / "other", {})


def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo')
    with metrics_log.MetricsLog(path, step=1) as log:
        log.write(2, {"loss": 1.25})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.25}]
