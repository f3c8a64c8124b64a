"""`delf-jax prepare`: copies training photos into a few large files."""

import dataclasses
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from delf_cli.options import UsageError
from delf_cli.report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare:
    """Copy labelled photos into a few large files (ArrayRecord shards) for `delf-jax train`.

    This makes training faster with millions of photos, on object stores and on slow disks. It needs no TensorFlow.

    Attributes:
        photos: folder of the photos.
        out: folder for the shards.
        labels: folders (CLASS/photo.jpg), or a CSV list of Google Landmarks v1, v2 or v2-clean.
        positives: which photos of a CSV list are one class: landmark, or radius:METRES around the landmark's centre.
        validation: fraction of the photos, chosen by their names, that is kept for validation.
        json: print one JSON line with the counts.
    """

    photos: Annotated[Positional[str], arg(metavar="PHOTOS")]
    out: Annotated[str, arg(metavar="DIR")]
    labels: str = "folders"
    positives: str = "landmark"
    validation: float = 0.0
    json: bool = False

    example: ClassVar[str] = "delf-jax prepare photos/ --out shards/ --validation 0.2"

    def run(self, report: Report) -> None:
        """Writes the shards."""
        if not 0 <= self.validation < 1:
            raise UsageError(f"--validation is {self.validation}; it must be a fraction, at least 0 and below 1")
        if self.labels == "none":
            raise UsageError("--labels none: prepare needs labels; train on photos without labels directly")

        from delf_cli import environment

        environment.quiet_absl()
        from delf_jax.training.dataset_builder import LandmarksConfig, prepare

        config = LandmarksConfig(
            name="photos",
            photos=self.photos,
            labels=self.labels,
            positives=self.positives,
            validation=self.validation,
        )
        photos = config.photo_list
        folder, unreadable = prepare(config, self.out)
        report.succeeded += len(photos) - len(unreadable)
        for error in unreadable:
            report.failure("image", error.source, error.reason)
        record = {
            "shards": str(folder),
            "photos": len(photos),
            "classes": len(photos.classes),
            "absent": len(photos.absent),
        }
        absent = f"; not found: {len(photos.absent)} of the listed photos" if photos.absent else ""
        report.result(record, f"{folder}: {len(photos)} photos of {len(photos.classes)} classes{absent}")
