"""`delf-jax train`: trains attention (and optionally the backbone) on photos with or without labels."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import arg

from delf_cli import head_fitting, input_photos
from delf_cli.options import Photos, UsageError
from delf_cli.report import Report
from delf_cli.training_progress import show_progress
from delf_jax.files.changer import only_changer
from delf_jax.settings import Precision

if TYPE_CHECKING:
    import optax

    from delf_jax.extraction.head import Head
    from delf_jax.training.backbones import Backbone
    from delf_jax.training.feeds import Feeds
    from delf_jax.training.loop import Result
    from delf_jax.training.samples import Samples
    from delf_jax.training.settings import TrainingSettings
    from delf_jax.training.steps import Steps

_WITH_LABELS, _WITHOUT_LABELS = "packaged-head", "self-labelled"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train the attention score from class labels of photos, or without labels.

    If it was stopped, run the same command again and it continues. The result is RUN/head.safetensors; give it to other
    subcommands with --head. If the backbone was trained too, RUN is a model; give it with --model.

    Attributes:
        paths: a folder of class folders, or a folder written by delf-jax prepare or by TFDS. With --labels CSV the
            folder of the listed photos. With --labels none photos, folders, globs or addresses.
        out: folder of the run, with head.safetensors, metrics.jsonl, preset.toml and checkpoints/.
        preset: name of packaged settings (delg-joint, packaged-head, paper-attention, paper-descriptors,
            self-labelled, tiny), or a .toml file.
        set: settings to change, as NAME=VALUE.
        labels: folders (CLASS/photo.jpg), none (each photo and its warped copies are a class), a CSV list of Google
            Landmarks, or the name of the label feature of a TFDS data set.
        positives: which photos of a CSV list are one class: landmark, or radius:METRES.
        validation: fraction of the photos that is held out to choose the best checkpoint.
        steps: number of training steps, in place of the preset's epochs.
        seed: random seed of first parameters, order and crops.
        precision: number type of the computation.
        model: name of a packaged model, or path of a model folder or backbone file.
        head: head file whose PCA, foreground vector and threshold are kept (and its attention, with warm_start).
        workers: number of processes that decode photos; 0 uses threads.
        tensorboard: also write the metrics for TensorBoard. It needs `pip install 'delf-jax[tensorboard]'`.
        json: print one JSON line with the result.
    """

    paths: Photos
    out: Annotated[str, arg(metavar="RUN")]
    preset: Annotated[
        str | None, arg(help_behavior_hint=f"(default: {_WITH_LABELS}; with --labels none {_WITHOUT_LABELS})")
    ] = None
    set: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE...", help_behavior_hint="(default: from the preset)")] = ()
    labels: str = "folders"
    positives: str = "landmark"
    validation: Annotated[float | None, arg(help_behavior_hint="(default: from the preset)")] = None
    steps: Annotated[int | None, arg(help_behavior_hint="(default: from the preset)")] = None
    seed: Annotated[int | None, arg(help_behavior_hint="(default: from the preset)")] = None
    precision: Annotated[Precision | None, arg(help_behavior_hint="(default: from the preset)")] = None
    model: str = "delf-r50"
    head: Annotated[str | None, arg(help_behavior_hint="(default: the model's own)")] = None
    workers: int = 0
    tensorboard: bool = False
    json: bool = False

    example: ClassVar[str] = "delf-jax train landmarks/ --preset packaged-head --out run"

    def run(self, report: Report) -> None:
        """Trains and writes the files of the run."""
        settings = self._settings()
        input_photos.require_names(self.paths)
        if self.workers < 0:
            raise UsageError(f"--workers is {self.workers}; it must be 0 or more")

        from delf_cli import environment

        environment.start_jax()
        environment.quiet_absl()
        from delf_jax.training import loop
        from delf_jax.training.backbones import Backbone
        from delf_jax.training.steps import Steps

        training, validation = self._open_sets(settings, report)
        base = self._base_head()
        backbone = Backbone.open(self.model)
        network = loop.network_config(settings, backbone, classes=len(training.classes))
        attention = loop.first_attention(settings, network, base)
        folder = Path(self.out)
        with only_changer(folder, UsageError):
            self._prepare_folder(folder, settings, training, backbone)
            feeds = self._feeds(training, validation, settings, report)
            with contextlib.closing(feeds.training):
                steps = Steps(settings, network, backbone, _optimizer(settings, feeds), attention=attention)
                with self._summary_writer(folder) as board, show_progress(report) as show:
                    result = loop.train(steps, feeds, folder, board=board, progress=show)
            photos_used = self._count_photos(training, feeds, report)
            self._save(steps, result, base, training, photos_used, report)
        self._report_result(report, folder, settings, result, photos_used)

    @property
    def _preset(self) -> str:
        return self.preset or (_WITHOUT_LABELS if self.labels == "none" else _WITH_LABELS)

    def _settings(self) -> "TrainingSettings":
        from delf_jax.training.settings import open_preset, parse_changes

        named = {"steps": self.steps, "seed": self.seed, "validation": self.validation, "precision": self.precision}
        changes = parse_changes(self.set) | {name: value for name, value in named.items() if value is not None}
        settings = open_preset(self._preset, changes)
        if self.labels == "none" and settings.validation:
            raise UsageError("--labels none has no classes to validate with; leave --validation at 0")
        return settings

    def _open_sets(self, settings: "TrainingSettings", report: Report) -> "tuple[Samples, Samples | None]":
        """The photos to train on, and those that are held out. Says if listed photos are missing."""
        from delf_jax.training.sources import open_sets

        training, validation = open_sets(
            self.paths, labels=self.labels, positives=self.positives, validation=settings.validation
        )
        absent = getattr(training, "absent", ())
        if absent:
            report.note(f"{self.labels}: {len(absent)} of its photos are missing, for example {absent[0]}")
        return training, validation

    def _base_head(self) -> "Head":
        """The head whose other parts are kept; an empty head if the backbone has none."""
        from delf_jax.extraction.head import Head
        from delf_jax.loading import model_paths

        path = Path(self.head) if self.head else model_paths(self.model)[1]
        return Head() if self.head is None and not path.is_file() else Head.open(path)

    def _prepare_folder(
        self, folder: Path, settings: "TrainingSettings", training: "Samples", backbone: "Backbone"
    ) -> None:
        """Makes the folder of the run, or checks that the run in it is this one."""
        from delf_jax.training.run_folder import prepare_run_folder

        identity = {
            "settings": dataclasses.asdict(settings),
            "photos": training.digest,
            "backbone": backbone.fingerprint,
        }
        prepare_run_folder(folder, identity)
        (folder / "preset.toml").write_text(settings.to_toml())

    def _feeds(
        self, training: "Samples", validation: "Samples | None", settings: "TrainingSettings", report: Report
    ) -> "Feeds":
        """The batches: of dense features, which are computed first, or of crops of the photos."""
        from delf_jax.training import feeds

        if not settings.cached:
            return feeds.photo_feeds(training, validation, settings, workers=self.workers)
        place = Path(self.out) / "features"
        with report.progress("dense features", unit="views") as advance:
            return feeds.cached_feeds(training, validation, settings, place, model=self.model, progress=advance)

    def _count_photos(self, training: "Samples", feeds: "Feeds", report: Report) -> int:
        """Reports the photos that could not be read, and returns the number of those trained on."""
        for name, reason in [*feeds.training.failures.items(), *feeds.failures_aside.items()]:
            report.failure("image", name, reason)
        count = len(training) - len(feeds.training.failures)
        report.succeeded += count
        return count

    def _save(
        self, steps: "Steps", result: "Result", base: "Head", training: "Samples", photos_used: int, report: Report
    ) -> None:
        """Writes the head of the run, and the backbone if it was trained."""
        from delf_jax.training import exporting

        settings, folder = steps.settings, Path(self.out)
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
            head = self._fit_head(head, training, report)
        head.save(folder / "head.safetensors")

    def _fit_head(self, head: "Head", samples: "Samples", report: Report) -> "Head":
        """The head for a new backbone, with PCA and foreground vector fitted to the training photos."""
        import delf_jax
        from delf_jax.training.samples import LabelledPhotos

        if not isinstance(samples, LabelledPhotos):
            report.note(
                f"{self.out}: its head has no PCA yet; fit one to photos with `delf-jax pca --model {self.out}`"
            )
            return head

        extractor = delf_jax.load(self.out, head=head, scorer="norm")
        chosen = [samples.path(i) for i in head_fitting.evenly_spaced(range(len(samples)))]
        fitted = head_fitting.gather_statistics(extractor, chosen, report)
        if head.autoencoder is None:
            most = min(head_fitting.DEFAULT_DIMENSION, len(fitted.pca.total), fitted.pca.count - 1)
            head = dataclasses.replace(head, pca=head_fitting.solve_pca(fitted, most))
        return dataclasses.replace(head, foreground=fitted.direction())

    @contextlib.contextmanager
    def _summary_writer(self, folder: Path) -> Iterator[Any]:
        if not self.tensorboard:
            yield None
            return
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UsageError("--tensorboard needs another package: pip install 'delf-jax[tensorboard]'") from None
        with SummaryWriter(str(folder / "tensorboard")) as board:
            yield board

    def _report_result(
        self,
        report: Report,
        folder: Path,
        settings: "TrainingSettings",
        result: "Result",
        trained_on: int,
    ) -> None:
        use = f"--model {folder}" if settings.changes_backbone else f"--head {folder / 'head.safetensors'}"
        use += " --scorer learned" if settings.has_attention else ""
        record = {"run": str(folder), "photos": trained_on, "step": result.step, "steps": result.steps}
        record |= {"metrics": dict(result.metrics)}
        numbers = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in result.metrics.items())
        report.result(
            record,
            f"{folder}: {result.steps} steps on {trained_on} photos; {numbers or 'was finished'}; use it with {use}",
        )


def _optimizer(settings: "TrainingSettings", feeds: "Feeds") -> "optax.GradientTransformation":
    from delf_jax.training import loop, optimizers

    epoch = feeds.training.steps_per_epoch
    return optimizers.optimizer_of(settings, steps=loop.total_steps(settings, epoch), steps_per_epoch=epoch)
