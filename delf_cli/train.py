"""`delf-jax train`: labelled photos, or photos without labels, to an attention of their own."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import arg

from delf_cli import fitting, photos
from delf_cli.options import Photos, UsageError
from delf_cli.report import Report
from delf_jax.settings import Precision

if TYPE_CHECKING:
    import delf_jax.extraction.head
    import delf_jax.training.loop
    from delf_jax.training.samples import Samples
    from delf_jax.training.settings import TrainingSettings

_WITH_LABELS, _WITHOUT_LABELS = "packaged-head", "self-labelled"
_SECONDS_BETWEEN_LINES = 30
# Enough for 128 dimensions many times over.
_FITTED_PHOTOS = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Learn which places of photos matter, from what the photos show, not where.

    The same command again goes on where it stopped; RUN then holds head.safetensors, to be given with --head. Where the
    backbone was trained too, RUN is a model, to be given with --model.

    Attributes:
        paths: a folder of class folders, or one that delf-jax prepare or TFDS wrote; with --labels CSV the folder of
            the listed photos; with --labels none photos, folders, globs or addresses.
        out: the folder of the run: head.safetensors, metrics.jsonl, preset.toml, checkpoints/.
        preset: packaged settings by name (delg-joint, packaged-head, paper-attention, paper-descriptors,
            self-labelled, tiny), or a .toml file.
        set: settings to change, as name=value.
        labels: folders (CLASS/photo.jpg), none (each photo with its warps is its own class), a CSV list of Google
            Landmarks, or the feature of a TFDS set that is the label.
        positives: photos of a CSV list that are one class: landmark, or radius:METRES.
        validation: share of the photos kept aside to choose the best checkpoint.
        steps: steps to make, in place of the preset's epochs.
        seed: of first parameters, order and crops.
        precision: compute type.
        model: name of a packaged model, or the path of a model folder or backbone file.
        head: head file whose PCA, foreground vector and threshold are kept (with warm_start, its attention, too).
        workers: processes that decode photos; 0 for threads.
        tensorboard: write the metrics for TensorBoard, too (needs the extra [tensorboard]).
        json: print one JSON line with the outcome.
    """

    paths: Photos
    out: Annotated[str, arg(metavar="RUN")]
    preset: Annotated[
        str | None, arg(help_behavior_hint=f"(default: {_WITH_LABELS}; with --labels none {_WITHOUT_LABELS})")
    ] = None
    set: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE...", help_behavior_hint="(default: as preset)")] = ()
    labels: str = "folders"
    positives: str = "landmark"
    validation: Annotated[float | None, arg(help_behavior_hint="(default: as preset)")] = None
    steps: Annotated[int | None, arg(help_behavior_hint="(default: as preset)")] = None
    seed: Annotated[int | None, arg(help_behavior_hint="(default: as preset)")] = None
    precision: Annotated[Precision | None, arg(help_behavior_hint="(default: as preset)")] = None
    model: str = "delf-r50"
    head: Annotated[str | None, arg(help_behavior_hint="(default: the model's own)")] = None
    workers: int = 0
    tensorboard: bool = False
    json: bool = False

    example: ClassVar[str] = "delf-jax train landmarks/ --preset packaged-head --out run"

    def run(self, report: Report) -> None:
        """Trains and writes the files."""
        settings = self._settings()
        photos.require_names(self.paths)
        if self.workers < 0:
            raise UsageError(f"--workers is {self.workers}; it must be 0 or more")

        from delf_cli import environment

        environment.start_jax()
        environment.quiet_absl()
        from delf_jax.training import exporting, feeds, loop, optimizers
        from delf_jax.training.backbones import Backbone
        from delf_jax.training.sources import open_sets
        from delf_jax.training.steps import Steps

        training, validation = open_sets(
            self.paths, labels=self.labels, positives=self.positives, validation=settings.validation
        )
        absent = getattr(training, "absent", ())
        if absent:
            report.note(f"{self.labels}: {len(absent)} of its photos are not on the disk, the first {absent[0]}")
        base = self._base_head()
        backbone = Backbone.open(self.model)
        network = loop.network_config(settings, backbone, classes=len(training.classes))
        attention = loop.first_attention(settings, network, base)
        folder = Path(self.out)
        identity = {
            "settings": dataclasses.asdict(settings),
            "photos": training.digest,
            "backbone": backbone.fingerprint,
        }
        loop.claim(folder, identity)
        (folder / "preset.toml").write_text(settings.to_toml())
        if settings.cached:
            place = folder / "features"
            with report.progress("dense features", unit="views") as advance:
                fed = feeds.cached_feeds(training, validation, settings, place, model=self.model, progress=advance)
        else:
            fed = feeds.photo_feeds(training, validation, settings, workers=self.workers)
        with contextlib.closing(fed.training):
            total = loop.total_steps(settings, fed.training.steps_per_epoch)
            optimizer = optimizers.optimizer_of(settings, steps=total, steps_per_epoch=fed.training.steps_per_epoch)
            steps = Steps(settings, network, backbone, optimizer, attention=attention)
            with self._board(folder) as board, _shown(report) as show:
                result = loop.train(steps, fed, folder, board=board, progress=show)
        for name, reason in [*fed.training.failures.items(), *fed.failures_aside.items()]:
            report.failure("image", name, reason)
        photos_used = len(training) - len(fed.training.failures)
        report.succeeded += photos_used
        notes = {
            "command": f"delf-jax train --preset {self._preset}",
            "settings": dataclasses.asdict(settings),
            "photos": photos_used,
            "classes": len(training.classes),
            "step": result.step,
            "steps": result.steps,
        }
        head = exporting.trained_head(steps, result, base, notes=notes)
        if settings.changes_backbone:
            exporting.save_backbone(steps, result, folder / "backbone.safetensors", model=self.model)
            head = self._fitted(head, training, report)
        head.save(folder / "head.safetensors")
        self._say(report, folder, settings, result, photos_used)

    @property
    def _preset(self) -> str:
        return self.preset or (_WITHOUT_LABELS if self.labels == "none" else _WITH_LABELS)

    def _settings(self) -> "TrainingSettings":
        from delf_jax.training.settings import open_preset, parse_changes

        named = {"steps": self.steps, "seed": self.seed, "validation": self.validation, "precision": self.precision}
        changes = parse_changes(self.set) | {name: value for name, value in named.items() if value is not None}
        settings = open_preset(self._preset, changes)
        if self.labels == "none" and settings.validation:
            raise UsageError("--labels none has no photo of a known class to keep aside; leave --validation at 0")
        return settings

    def _base_head(self) -> "delf_jax.extraction.head.Head":
        """The head whose untrained parts are kept; an empty one for a backbone that has none."""
        from delf_jax.extraction.head import Head
        from delf_jax.loading import model_paths

        path = Path(self.head) if self.head else model_paths(self.model)[1]
        return Head() if self.head is None and not path.is_file() else Head.open(path)

    def _fitted(
        self, head: "delf_jax.extraction.head.Head", samples: "Samples", report: Report
    ) -> "delf_jax.extraction.head.Head":
        """The head of a new backbone with PCA and foreground vector fitted to the photos trained on."""
        import delf_jax
        from delf_jax.training.samples import PhotoList

        if not isinstance(samples, PhotoList):
            report.note(
                f"{self.out}: its head has no PCA yet; fit one to photo files with delf-jax pca --model {self.out}"
            )
            return head

        extractor = delf_jax.load(self.out, head=head, scorer="norm")
        chosen = [samples.path(i) for i in range(0, len(samples), -(-len(samples) // _FITTED_PHOTOS))]
        fitted = fitting.fit(extractor, chosen, report)
        if head.autoencoder is None:
            most = min(fitting.DIMENSION, len(fitted.pca.total), fitted.pca.count - 1)
            head = dataclasses.replace(head, pca=fitting.projection(fitted, most))
        return dataclasses.replace(head, foreground=fitted.direction())

    @contextlib.contextmanager
    def _board(self, folder: Path) -> Iterator[Any]:
        if not self.tensorboard:
            yield None
            return
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UsageError("--tensorboard needs a package: pip install 'delf-jax[tensorboard]'") from None
        with SummaryWriter(str(folder / "tensorboard")) as board:
            yield board

    def _say(
        self,
        report: Report,
        folder: Path,
        settings: "TrainingSettings",
        result: "delf_jax.training.loop.Result",
        trained_on: int,
    ) -> None:
        use = f"--model {folder}" if settings.changes_backbone else f"--head {folder / 'head.safetensors'}"
        use += " --scorer learned" if settings.has_attention else ""
        record = {"run": str(folder), "photos": trained_on, "step": result.step, "steps": result.steps}
        record |= {"metrics": dict(result.metrics)}
        numbers = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in result.metrics.items())
        report.result(
            record,
            f"{folder}: {result.steps} steps on {trained_on} photos; {numbers or 'finished before'}; use it with {use}",
        )


@contextlib.contextmanager
def _shown(report: Report) -> Iterator[Callable[["delf_jax.training.loop.Progress"], None]]:
    """Draws a line that stands still where someone watches, and writes one now and then where nobody does."""
    if report.watched:
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), transient=True, refresh_per_second=4) as live:
            yield lambda progress: live.update(_line(progress))
        return
    last = time.monotonic()

    def write(progress: "delf_jax.training.loop.Progress") -> None:
        nonlocal last
        if progress.step == progress.steps or time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            report.note(_line(progress))

    yield write


def _line(progress: "delf_jax.training.loop.Progress") -> str:
    shown = ("loss", "attention_loss", "descriptor_loss", "accuracy")
    numbers = [f"{name.replace('_', ' ')} {progress.metrics[name]:.3f}" for name in shown if name in progress.metrics]
    minutes, seconds = divmod(round(progress.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    left = f"{hours}:{minutes:02}:{seconds:02}"
    rate = f"{progress.photos_per_second:.1f} photos/s"
    return f"step {progress.step} of {progress.steps}  {'  '.join(numbers)}  {rate}  {left} left"
