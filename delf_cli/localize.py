"""`delf-jax localize`: finds the object in photos."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from delf_cli import input_photos
from delf_cli.options import Photos, UsageError
from delf_cli.report import Report
from delf_jax.errors import ImageError, reason_of
from delf_jax.files.changer import only_changer
from delf_jax.files.file_names import is_refused

if TYPE_CHECKING:
    import localization
    from delf_cli.localization_results import LocalizationResults
    from delf_jax.photos.find import PhotoFile


@dataclasses.dataclass(frozen=True, kw_only=True)
class Localize:
    """Find the object in photos: boxes [x0, y0, x1, y1, score] in pixels of the upright photo, best first.

    If it was stopped, run the same command with the same --out again and it continues. Photos that are done are
    skipped, changed photos are done again.

    Attributes:
        predictor: as written by `delf-jax fit-localizer`.
        photos: photos, folders, globs or addresses; or .npy files if the predictor was fitted on feature maps.
        out: folder for a heat-map and a mask of every photo, and coco.json with all boxes.
        label: find objects of this class. The predictor must have it (fit-localizer --labels).
        classify: predict the class of each photo, and find objects of this class.
        threshold: a pixel belongs to an object if the map is above this fraction of its maximum.
        edges: move the outlines of objects to edges in the photo.
        map_scales: average the maps of the photo at these scales. Scales above 1 find small objects better. The default
            threshold was chosen for scale 1 only; with several scales a lower one is better.
        batch_size: number of photos that each device computes at once.
        json: print one JSON line per photo.
    """

    predictor: Annotated[Positional[str], arg(metavar="PREDICTOR")]
    photos: Photos
    out: Annotated[str | None, arg(metavar="DIR", help_behavior_hint="(default: no pictures)")] = None
    label: Annotated[str | None, arg(help_behavior_hint="(default: objects of all classes)")] = None
    classify: Annotated[Literal["nearest-mean"] | None, arg(help_behavior_hint="(default: no classes)")] = None
    threshold: Annotated[float | None, arg(help_behavior_hint="(default: the predictor's own)")] = None
    edges: bool = False
    map_scales: tuple[float, ...] = (1.0,)
    batch_size: Annotated[int | None, arg(help_behavior_hint="(default: depends on the device)")] = None
    json: bool = False

    example: ClassVar[str] = "delf-jax localize bird-predictor photos/ --out found"

    def run(self, report: Report) -> None:
        """Finds the objects of every photo, in the given order. "Nothing found" is an answer, not a failure."""
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise UsageError(f"--threshold is {self.threshold}; it must be at least 0 and below 1")
        if self.label is not None and self.classify is not None:
            raise UsageError("give either --label or --classify, not both")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"--batch-size is {self.batch_size}; it must be at least 1")
        input_photos.require_names(self.photos)
        from delf_cli import environment

        environment.keep_memory()
        environment.start_jax()
        from delf_cli.localization_results import LocalizationResults

        predictor = self._predictor()
        files = input_photos.find_files(self.photos, report)
        if not files:
            return
        if self.out is None:
            self._localize(predictor, files, None, report)
            return
        with only_changer(self.out, UsageError):
            results = LocalizationResults(self.out, recipe=self._recipe(predictor))
            self._localize(predictor, files, results, report)
            if report.succeeded:
                results.finish()

    def _localize(
        self,
        predictor: "localization.Predictor",
        files: "list[PhotoFile]",
        results: "LocalizationResults | None",
        report: Report,
    ) -> None:
        answers: dict[int, dict[str, Any] | ImageError] = {}
        next_position = 0
        with report.progress("localizing") as advance:
            for position, answer in self._answers(predictor, files, results):
                answers[position] = answer
                while next_position in answers:
                    _report_answer(files[next_position].path, answers.pop(next_position), report)
                    next_position += 1
                    advance(next_position, len(files))

    def _answers(
        self, predictor: "localization.Predictor", files: "list[PhotoFile]", results: "LocalizationResults | None"
    ) -> Iterator[tuple[int, dict[str, Any] | ImageError]]:
        """The record of each photo, in any order. Photos that were done before come first."""
        todo = []
        for position, photo in enumerate(files):
            record = results.known(photo) if results is not None else None
            if record is None:
                todo.append(position)
            else:
                yield position, record
        if not todo:
            return
        from localization.foreground import classes

        stream = predictor.localize_stream(
            ((position, files[position].path) for position in todo),
            label=self.label,
            classifier=None if self.classify is None else classes.nearest_mean(predictor.statistics),
            threshold=self.threshold,
            edges=self.edges,
            scales=self.map_scales,
        )
        for position, found in stream:
            if isinstance(found, ImageError):
                yield position, found
                continue
            record = _record(files[position].path, found)
            try:
                if results is not None:
                    results.add(files[position], found, record)
            except ImageError as error:
                yield position, error
                continue
            except OSError as error:
                if not is_refused(error):
                    raise
                reason = f"no file here can have its name ({reason_of(error)}); rename it"
                yield position, ImageError(files[position].path, reason)
                continue
            yield position, record

    def _predictor(self) -> "localization.Predictor":
        """Opens the predictor and checks that it has the classes that the options need."""
        from localization import Predictor
        from localization.encoders.choosing import open_encoder
        from localization.foreground import classes

        predictor = Predictor.open(self.predictor)
        if self.label is not None:
            predictor.direction(self.label)
        if self.classify is not None:
            classes.nearest_mean(predictor.statistics)
        encoder = open_encoder(predictor.statistics.encoder, batch_size=self.batch_size)
        return dataclasses.replace(predictor, encoder=encoder)

    def _recipe(self, predictor: "localization.Predictor") -> str:
        """Everything on which the boxes depend besides the photo."""
        threshold = predictor.map_threshold if self.threshold is None else self.threshold
        manifest = (Path(self.predictor) / "manifest.json").read_text()
        return f"{manifest} {threshold} {self.edges} {self.label} {self.classify} {self.map_scales}"


def _record(path: str, found: "localization.Localization") -> dict[str, Any]:
    boxes = [[*(round(float(edge), 2) for edge in box[:4]), round(float(box.score), 4)] for box in found.boxes]
    record = {"image": path, "found": found.found, "score": round(float(found.score), 4), "boxes": boxes}
    return record if found.label is None else record | {"label": found.label}


def _report_answer(path: str, answer: dict[str, Any] | ImageError, report: Report) -> None:
    if isinstance(answer, ImageError):
        report.failure("image", path, answer.reason)
        return
    report.succeeded += 1
    label = f"{answer['label']}, " if "label" in answer else ""
    lines = [f"{path}: {'found' if answer['found'] else 'nothing found'}, {label}score {answer['score']:.3f}"]
    lines += ["  " + "  ".join(f"{edge:8.1f}" for edge in box[:4]) + f"  score {box[4]:.3f}" for box in answer["boxes"]]
    report.result(answer, lines)
