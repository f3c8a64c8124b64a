"""`delf-jax fit-localizer`: photos of a kind of object to a predictor that finds it."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import arg

from delf_cli import labels, photos
from delf_cli.options import Photos, UsageError
from delf_cli.report import Advance, Report
from delf_cli.spreading import SpreadingOptions
from delf_jax.errors import ImageError
from delf_jax.settings import Precision

if TYPE_CHECKING:
    import localization
    import localization.encoders.base
    import localization.fitting.fit
    from delf_jax.job.processes import Group

_PREDICTORS = arg(metavar="PREDICTOR...", help_behavior_hint="(default: none)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitLocalizer:
    """Learn, without labels, to find the objects that photos have in common.

    Attributes:
        paths: photos, folders, globs or addresses; or .npy files of feature maps, float [h, w, channels].
        out: the predictor, a folder.
        labels: fit one predictor a class too: folders (a photo's class is its folder), a CSV file with columns
            file,label, or cluster:NUMBER (so many groups of alike photos; reads the photos once more).
        merge: predictors to add to what these photos give; without photos, to each other.
        forget: predictors whose photos are taken out again.
        layer: a named map of the network; the deepest is best at whole objects, earlier ones are finer.
        conv5_stride: 1 keeps conv5 as fine as conv4; 2 is what the packaged weights were trained with.
        max_side: photos are reduced to this longest side, in pixels.
        model: name of a packaged model, or the path of a model folder or backbone file.
        precision: float32 is exact everywhere; bfloat16 is the fast one on accelerators.
        batch_size: photos computed at once on each device.
        loss: closed-form has no setting; bce and ridge refine it on the kept positions.
        weight: of the regularisation in bce and ridge; they tend to the closed form as it grows.
        norm_cap: shorten features longer than this.
        norm_quantile: shorten features longer than this share of them (0 to 1); reads the photos once more.
        empty: photos without an object, such as localize is going to meet: the score that at most 5 % of them exceed
            becomes the predictor's threshold for "found". Without any it is 0, the level between object and
            background, which finds nearly every object and something in many empty photos too; --merge keeps the
            highest threshold of its predictors.
        calibrate: the same without empty photos, on the largest strip of each photo beside what is found there; reads
            the photos twice more.
        no_points: keep no training positions; `delf-jax explain` needs them.
        max_points: training positions kept at most.
        json: print JSON lines: every photo that failed, then the counts.
    """

    paths: Photos
    out: Annotated[str, arg(metavar="PREDICTOR")]
    labels: Annotated[str, arg(metavar="none|folders|CSV|cluster:NUMBER")] = "none"
    merge: Annotated[tuple[str, ...], _PREDICTORS] = ()
    forget: Annotated[tuple[str, ...], _PREDICTORS] = ()
    layer: Annotated[str | None, arg(help_behavior_hint="(default: the deepest, conv5 of a ResNet)")] = None
    conv5_stride: Annotated[Literal[1, 2] | None, arg(help_behavior_hint="(default: the model's own)")] = None
    max_side: int = 448
    model: str = "delf-r50"
    precision: Precision = "float32"
    batch_size: Annotated[int | None, arg(help_behavior_hint="(default: by device)")] = None
    loss: Literal["closed-form", "bce", "ridge"] = "closed-form"
    weight: Annotated[float | None, arg(help_behavior_hint="(needed by bce and ridge)")] = None
    norm_cap: Annotated[float | None, arg(help_behavior_hint="(default: leave them)")] = None
    norm_quantile: Annotated[float | None, arg(help_behavior_hint="(default: leave them)")] = None
    empty: Annotated[tuple[str, ...], arg(metavar="PHOTOS...", help_behavior_hint="(default: none)")] = ()
    calibrate: bool = False
    no_points: bool = False
    max_points: int = 100_000
    spreading: SpreadingOptions
    json: bool = False

    example: ClassVar[str] = "delf-jax fit-localizer birds/ --out bird-predictor"

    def run(self, report: Report) -> None:
        """Fits, merges, forgets, refines, calibrates and saves the predictor."""
        self._check()
        paths = [] if self.merge and not self.paths else photos.find(self.paths, report)
        if not paths and not self.merge:
            return
        from delf_cli import environment

        environment.keep_memory()
        environment.start_jax()
        self.spreading.leave_accelerators()
        group = self.spreading.join()
        import localization
        from localization.foreground import closed_form
        from localization.predictor_files import check_free

        check_free(self.out)
        parent = os.path.dirname(os.path.abspath(self.out))
        os.makedirs(parent, exist_ok=True)
        if not os.access(parent, os.W_OK):
            raise UsageError(f"{parent}: nothing can be written there; choose another place for --out")
        given = [*map(localization.Predictor.open, self.merge)]
        forgotten = [*map(localization.Predictor.open, self.forget)]
        fitted = [self._fit(paths, report, group)] if paths else []
        if group is not None and group.share.process:
            report.succeeded += 1  # the rest is done by process 0 alone
            return
        predictor, *others = [*fitted, *given]
        for other in others:
            predictor = predictor + other
        for other in forgotten:
            predictor = predictor - other
        if self.loss != "closed-form":
            assert self.weight is not None
            predictor = predictor.refitted(self.loss, weight=self.weight)
        if self.empty or self.calibrate:
            predictor = self._calibrated(predictor, paths, report)
        diagnostics = closed_form.diagnostics(predictor.statistics)
        predictor.save(self.out)
        report.succeeded += 1
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
            f"{self.out}: fitted on {record['positions']} positions of {record['photos']} photos; "
            f"{diagnostics.positive_share:.0%} speak for the object, {record['points']} kept for explanations"
        )
        if classes:
            sentence += f"; {len(classes)} classes: {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}"
        report.result(record, f"{sentence}; found above score {predictor.found_threshold:.3f}")

    def _check(self) -> None:
        if self.max_points < 1:
            raise UsageError(f"--max-points is {self.max_points}; it must be at least 1, or say --no-points")
        if self.max_side < 16:
            raise UsageError(f"--max-side is {self.max_side}; it must be at least 16 pixels")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"--batch-size is {self.batch_size}; it must be at least 1")
        if self.norm_cap is not None and self.norm_quantile is not None:
            raise UsageError("give either --norm-cap or --norm-quantile")
        if self.norm_cap is not None and not self.norm_cap > 0:
            raise UsageError(f"--norm-cap is {self.norm_cap}; it must be above 0")
        if self.norm_quantile is not None and not 0 < self.norm_quantile < 1:
            raise UsageError(f"--norm-quantile is {self.norm_quantile}; it must be above 0 and below 1")
        if self.loss == "closed-form" and self.weight is not None:
            raise UsageError("--weight belongs to --loss bce or --loss ridge; the closed form has none")
        if self.loss != "closed-form" and not (self.weight and self.weight > 0):
            raise UsageError(f"--loss {self.loss} needs a --weight above 0, for example 0.1")
        if self.loss != "closed-form" and self.no_points:
            raise UsageError(f"--loss {self.loss} is computed from the kept positions; leave out --no-points")
        if self.calibrate and (self.empty or not self.paths):
            raise UsageError("--calibrate looks at the photos that are fitted; give PHOTOS, and no --empty")
        labels.check(self.labels)
        self.spreading.check()
        if self.spreading.is_spread and self.labels.startswith("cluster:"):
            raise UsageError("--labels cluster:NUMBER groups photos in one process; leave out --ray or --coordinator")

    def _fit(self, paths: list[str], report: Report, group: "Group | None") -> "localization.Predictor":
        from localization.fitting.fit import FitSettings, fit_with

        encoder = self._encoder(paths)

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
        """Goes through the photos: in this process, in a group of processes, or on a Ray cluster."""
        from localization.fitting import distributed, fit

        if group is not None:
            with distributed.accumulate_in_group(group, f"{self.out}.processes") as accumulate:
                yield accumulate
            return
        if self.spreading.ray is None:
            yield fit.accumulate
            return
        from delf_jax.job import ray_session

        model = os.path.abspath(self.model) if os.path.exists(self.model) else self.model
        load = functools.partial(dataclasses.replace(self, model=model, paths=())._encoder, paths[:1])
        with ray_session.connected(self.spreading.ray, workers=self.spreading.ray_workers) as workers:
            yield functools.partial(distributed.accumulate_on_ray, load=load, workers=workers)

    def _encoder(self, paths: list[str]) -> "localization.encoders.base.Encoder":
        from delf_cli import environment

        environment.keep_memory()
        environment.start_jax()
        import delf_jax
        import localization
        from delf_jax.loading import PACKAGED

        maps = sum(path.endswith(".npy") for path in paths)
        if maps == len(paths):
            return localization.MapEncoder()
        if maps:
            raise UsageError("photos and .npy feature maps do not mix; fit them apart")
        extractor = delf_jax.load(
            # The predictor names its model, and may be opened from another folder.
            os.path.abspath(self.model) if self.model not in PACKAGED and os.path.exists(self.model) else self.model,
            head=delf_jax.Head(),
            scorer="norm",
            max_side=self.max_side,
            precision=self.precision,
            conv5_stride=self.conv5_stride,
            batch_size=self.batch_size,
        )
        return localization.ExtractorEncoder(extractor, layer=self.layer)

    def _calibrated(
        self, predictor: "localization.Predictor", fitted: list[str], report: Report
    ) -> "localization.Predictor":
        from localization.fitting import calibration

        paths = photos.find(self.empty, report) if self.empty else fitted
        with report.progress("calibrating") as advance:
            if self.empty:
                return calibration.calibrate_on_empty(predictor, _Counted(paths, advance), on_error=_reporter(report))
            # Photos that cannot be read were told when they were fitted.
            return calibration.calibrate_beside_objects(
                predictor, _Counted(paths, advance), on_error=lambda error: None
            )


def _reporter(report: Report) -> Callable[[ImageError], None]:
    return lambda error: report.failure("image", error.source, error.reason)


@dataclasses.dataclass(frozen=True)
class _Counted:
    """Paths that move a progress bar each time they are gone through."""

    paths: Sequence[str]
    advance: Advance

    def __iter__(self) -> Iterator[str]:
        for done, path in enumerate(self.paths):
            self.advance(done, len(self.paths))
            yield path
