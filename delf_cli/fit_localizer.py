"""`delf-jax fit-localizer`: fits a predictor that finds the object which photos have in common."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import arg

from delf_cli import input_photos, labels
from delf_cli.distributed_options import DistributedOptions
from delf_cli.encoder_options import EncoderOptions
from delf_cli.options import Photos, UsageError
from delf_cli.report import Advance, Report
from delf_jax.errors import ImageError, PredictorError
from delf_jax.files.changer import only_changer

if TYPE_CHECKING:
    import localization
    import localization.fitting.fit
    from delf_jax.job.processes import Group

_PREDICTORS = arg(metavar="PREDICTOR...", help_behavior_hint="(default: none)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitLocalizer:
    """Fit a predictor that finds the objects which photos have in common. It needs no labels.

    Attributes:
        paths: photos, folders, globs or addresses; or .npy files with feature maps, float [h, w, channels].
        out: folder of the predictor.
        labels: also fit one predictor per class. folders: the class is the name of the photo's folder. CSV: a file with
            the columns file,label. cluster:NUMBER: groups of similar photos; this reads the photos once more.
        merge: predictors to add to the new one. Without photos, they are added to each other.
        forget: predictors whose photos are removed from the new one.
        loss: closed-form needs no weight. bce and ridge refine it on the kept training points.
        weight: weight of the regularisation in bce and ridge. A large weight gives the closed form.
        norm_cap: shorten features that are longer than this.
        norm_quantile: shorten features that are longer than this quantile of their lengths (0 to 1). This reads the
            photos once more.
        empty: photos without the object. The score above which an object counts as found becomes one that at most 5 %
            of them exceed. Without them it is a score that nearly all fitted photos exceed. Give them again after
            --merge and --forget, which choose the score again.
        no_points: keep no training points. `delf-jax explain` then does not work, and an object counts as found at the
            level between foreground and background, which many photos without one exceed.
        max_points: most training points that are kept.
        json: print JSON lines: one for every photo that failed, then one with the counts.
    """

    paths: Photos
    out: Annotated[str, arg(metavar="PREDICTOR")]
    labels: Annotated[str, arg(metavar="none|folders|CSV|cluster:NUMBER")] = "none"
    merge: Annotated[tuple[str, ...], _PREDICTORS] = ()
    forget: Annotated[tuple[str, ...], _PREDICTORS] = ()
    loss: Literal["closed-form", "bce", "ridge"] = "closed-form"
    weight: Annotated[float | None, arg(help_behavior_hint="(needed by bce and ridge)")] = None
    norm_cap: Annotated[float | None, arg(help_behavior_hint="(default: keep all lengths)")] = None
    norm_quantile: Annotated[float | None, arg(help_behavior_hint="(default: keep all lengths)")] = None
    empty: Annotated[tuple[str, ...], arg(metavar="PHOTOS...", help_behavior_hint="(default: none)")] = ()
    no_points: bool = False
    max_points: int = 100_000
    encoder: EncoderOptions
    distributed: DistributedOptions
    json: bool = False

    example: ClassVar[str] = "delf-jax fit-localizer birds/ --out bird-predictor"

    def run(self, report: Report) -> None:
        """Fits the predictor and saves it."""
        self._check()
        paths = [] if self.merge and not self.paths else input_photos.find_paths(self.paths, report)
        if not paths and not self.merge:
            return
        empty = input_photos.find_paths(self.empty, report) if self.empty else []
        if self.empty and not empty:
            return
        from delf_cli import environment

        environment.keep_memory()
        environment.start_jax()
        self.distributed.leave_accelerators()
        group = self.distributed.join()
        from localization.predictor_files import check_free

        check_free(self.out)
        parent = os.path.dirname(os.path.abspath(self.out))
        os.makedirs(parent, exist_ok=True)
        if not os.access(parent, os.W_OK):
            raise UsageError(f"{parent}: this folder cannot be written; choose another --out")
        if group is not None and group.share.process:
            self._predictor(paths, empty, report, group)
            report.succeeded += 1  # process 0 does the rest
            return
        with only_changer(self.out, PredictorError):  # it may also be one of those that are merged
            predictor = self._predictor(paths, empty, report, group)
            record, sentence = self._described(predictor, report)
            predictor.save(self.out)
        report.succeeded += 1
        report.result(record, sentence)

    def _predictor(
        self, paths: list[str], empty: list[str], report: Report, group: "Group | None"
    ) -> "localization.Predictor":
        """Fits the photos, then merges, forgets, refines and calibrates as the options say."""
        import localization

        merged = [*map(localization.Predictor.open, self.merge)]
        forgotten = [*map(localization.Predictor.open, self.forget)]
        fitted = [self._fit(paths, report, group)] if paths else []
        predictor, *others = [*fitted, *merged]
        if group is not None and group.share.process:
            return predictor
        for other in others:
            predictor = predictor + other
        for other in forgotten:
            predictor = predictor - other
        if self.loss != "closed-form":
            assert self.weight is not None
            predictor = predictor.refitted(self.loss, weight=self.weight)
        return self._calibrated(predictor, empty, report) if empty else predictor

    def _described(self, predictor: "localization.Predictor", report: Report) -> tuple[dict[str, Any], str]:
        """The record and the sentence of the result; PredictorError if the photos that are left have no foreground."""
        from localization.foreground import closed_form

        diagnostics = closed_form.diagnostics(predictor.statistics)
        classes = sorted(predictor.statistics.classes)
        record = {
            "predictor": self.out,
            "photos": predictor.statistics.photos,
            "failed": report.failed,
            "positions": predictor.statistics.total.count,
            "points": len(predictor.points) if predictor.points else 0,
            "classes": classes,
            "tau": predictor.solution.tau,
            "found_threshold": predictor.found_threshold,
            **dataclasses.asdict(diagnostics),
        }
        sentence = (
            f"{self.out}: fitted on {record['positions']} cells of {record['photos']} photos; "
            f"{diagnostics.positive_share:.0%} are foreground, {record['points']} are kept for explanations"
        )
        if classes:
            sentence += f"; {len(classes)} classes: {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}"
        return record, f"{sentence}; an object is found above score {predictor.found_threshold:.3f}"

    def _check(self) -> None:
        if self.max_points < 1:
            raise UsageError(
                f"--max-points is {self.max_points}; it must be at least 1; for no points give --no-points"
            )
        if self.norm_cap is not None and self.norm_quantile is not None:
            raise UsageError("give either --norm-cap or --norm-quantile, not both")
        if self.norm_cap is not None and not self.norm_cap > 0:
            raise UsageError(f"--norm-cap is {self.norm_cap}; it must be above 0")
        if self.norm_quantile is not None and not 0 < self.norm_quantile < 1:
            raise UsageError(f"--norm-quantile is {self.norm_quantile}; it must be above 0 and below 1")
        if self.loss == "closed-form" and self.weight is not None:
            raise UsageError("--weight is for --loss bce or --loss ridge; leave it out with the closed form")
        if self.loss != "closed-form" and not (self.weight and self.weight > 0):
            raise UsageError(f"--loss {self.loss} needs a --weight above 0, for example 0.1")
        if self.loss != "closed-form" and self.no_points:
            raise UsageError(f"--loss {self.loss} is computed from the training points; leave out --no-points")
        self.encoder.check()
        labels.check(self.labels)
        self.distributed.check()
        if self.distributed.is_distributed and self.labels.startswith("cluster:"):
            raise UsageError("--labels cluster:NUMBER works in one process only; leave out --ray and --coordinator")

    def _fit(self, paths: list[str], report: Report, group: "Group | None") -> "localization.Predictor":
        from localization.fitting.fit import FitSettings, fit_with

        encoder = self.encoder.load(paths)
        with report.progress("fitting") as advance, self._accumulate(paths, group) as accumulate:
            counted = _Counted(paths, advance)
            settings = FitSettings(
                labels=labels.of_photos(self.labels, paths, counted, encoder),
                norm_cap=self.norm_cap,
                max_points=0 if self.no_points else self.max_points,
            )
            return fit_with(
                accumulate,
                counted,
                settings,
                norm_quantile=self.norm_quantile,
                encoder=encoder,
                on_error=_reporter(report),
            )

    @contextlib.contextmanager
    def _accumulate(self, paths: list[str], group: "Group | None") -> "Iterator[localization.fitting.fit.Accumulate]":
        """The function that sums up the photos: in this process, in a group of processes, or on a Ray cluster."""
        from localization.fitting import distributed, fit

        if group is not None:
            with distributed.accumulate_in_group(group, f"{self.out}.processes") as accumulate:
                yield accumulate
            return
        if self.distributed.ray is None:
            yield fit.accumulate
            return
        from delf_jax.job import ray_session

        load = functools.partial(self.encoder.with_absolute_model().load, paths[:1])
        with ray_session.connected(self.distributed.ray, workers=self.distributed.ray_workers) as workers:
            yield functools.partial(distributed.accumulate_on_ray, load=load, workers=workers)

    def _calibrated(
        self, predictor: "localization.Predictor", empty: list[str], report: Report
    ) -> "localization.Predictor":
        from localization.fitting.found_threshold import calibrate_on_empty

        with report.progress("calibrating") as advance:
            return calibrate_on_empty(predictor, _Counted(empty, advance), on_error=_reporter(report))


def _reporter(report: Report) -> Callable[[ImageError], None]:
    return lambda error: report.failure("image", error.source, error.reason)


@dataclasses.dataclass(frozen=True)
class _Counted:
    """Paths that move a progress bar each time they are iterated over."""

    paths: Sequence[str]
    advance: Advance

    def __iter__(self) -> Iterator[str]:
        for done, path in enumerate(self.paths):
            self.advance(done, len(self.paths))
            yield path
