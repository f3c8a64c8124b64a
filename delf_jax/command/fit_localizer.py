"""`delf-jax fit-localizer`: photos of a kind of object to a predictor that finds it."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import arg

from delf_jax.command import photos
from delf_jax.command.options import Photos, UsageError
from delf_jax.command.report import Advance, Report
from delf_jax.errors import ImageError, PredictorError

if TYPE_CHECKING:
    import localization


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitLocalizer:
    """Learn, without labels, to find the objects that photos have in common.

    Attributes:
        paths: photos, folders, globs or addresses.
        out: the predictor, a folder.
        merge: predictors to add to what these photos give; without photos, to each other.
        layer: conv5 is better at whole objects, conv4 finer.
        max_side: photos are reduced to this longest side, in pixels.
        model: name of a packaged model, or a model folder.
        no_points: keep no training positions; `delf-jax explain` needs them.
        max_points: training positions kept at most.
        json: print JSON lines: every photo that failed, then the counts.
    """

    paths: Photos
    out: Annotated[str, arg(metavar="PREDICTOR")]
    merge: Annotated[tuple[str, ...], arg(metavar="PREDICTOR...", help_behavior_hint="(default: none)")] = ()
    layer: Literal["conv4", "conv5"] = "conv5"
    max_side: int = 448
    model: str = "delf-r50"
    no_points: bool = False
    max_points: int = 100_000
    json: bool = False

    example: ClassVar[str] = "delf-jax fit-localizer birds/ --out bird-predictor"

    def run(self, report: Report) -> None:
        """Fits, merges and saves the predictor."""
        if self.max_points < 1:
            raise UsageError(f"--max-points is {self.max_points}; it must be at least 1, or say --no-points")
        if self.max_side < 16:
            raise UsageError(f"--max-side is {self.max_side}; it must be at least 16 pixels")
        _refuse_other_things(Path(self.out))
        paths = [] if self.merge and not self.paths else photos.find(self.paths, report)
        if not paths and not self.merge:
            return
        from delf_jax.command import environment

        environment.start_jax()
        import localization

        fitted = [self._fit(paths, report)] if paths else []
        predictor, *others = [*fitted, *map(localization.Predictor.open, self.merge)]
        for other in others:
            predictor = predictor + other
        diagnostics = predictor.statistics.diagnostics()
        predictor.save(self.out)
        report.succeeded += 1
        record = {
            "predictor": self.out,
            "photos": predictor.statistics.photos,
            "failed": report.failed,
            "positions": predictor.statistics.total.count,
            "points": len(predictor.points) if predictor.points else 0,
            "tau": predictor.solution.tau,
            **dataclasses.asdict(diagnostics),
        }
        report.result(
            record,
            f"{self.out}: fitted on {record['positions']} positions of {record['photos']} photos; "
            f"{diagnostics.positive_share:.0%} speak for the object, {record['points']} kept for explanations",
        )

    def _fit(self, paths: list[str], report: Report) -> "localization.Predictor":
        import delf_jax
        import localization

        extractor = delf_jax.load(self.model, head=delf_jax.Head(), scorer="norm", max_side=self.max_side)

        def counted(advance: Advance) -> Iterator[str]:
            for done, path in enumerate(paths):
                advance(done, len(paths))
                yield path

        def failed(error: ImageError) -> None:
            report.failure("image", error.source, error.reason)

        with report.progress("fitting") as advance:
            return localization.fit(
                counted(advance),
                encoder=localization.ExtractorEncoder(extractor, layer=self.layer),
                max_points=0 if self.no_points else self.max_points,
                on_error=failed,
            )


def _refuse_other_things(folder: Path) -> None:
    """Raises PredictorError rather than let a predictor take the place of photos or a store."""
    from localization.predictor import read_manifest

    if folder.exists() and (not folder.is_dir() or os.listdir(folder)):
        try:
            read_manifest(folder)
        except PredictorError:
            raise PredictorError(f"{folder}: there is something else than a predictor; choose another name") from None
