"""`delf-jax prepare`: training photos as a few large files."""

import dataclasses
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from delf_cli.options import UsageError
from delf_cli.report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare:
    """Copy labelled photos into ArrayRecord shards, which `delf-jax train` reads as it reads the photos themselves.

    Worth it for millions of photos, on object stores and on spinning disks. TensorFlow is not needed.

    Attributes:
        photos: folder of the photos.
        out: folder to write the shards to.
        labels: folders (CLASS/photo.jpg), or a CSV list of Google Landmarks v1, v2 or v2-clean.
        positives: photos of a list that are one class: landmark, or radius:METRES around a landmark's centre.
        validation: share of the photos, chosen by their names, that is kept aside for validation.
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
            raise UsageError(f"--validation is {self.validation}; it is a share, from 0 to below 1")
        if self.labels == "none":
            raise UsageError("--labels none: photos without labels need no shards; train on them as they are")

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
        absent = f"; {len(photos.absent)} listed but not there" if photos.absent else ""
        report.result(record, f"{folder}: {len(photos)} photos of {len(photos.classes)} classes{absent}")
