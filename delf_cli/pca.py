"""`delf-jax pca`: fits what a head learns from photos without labels."""

import dataclasses
from typing import Annotated, ClassVar

from tyro.conf import arg

from delf_cli import fitting, photos
from delf_cli.options import ExtractionOptions, Photos, UsageError
from delf_cli.report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pca:
    """Fit the PCA of descriptors and the foreground vector w* to photos, without labels, and write a head file.

    Other parts of the head (a trained attention) are kept.

    Attributes:
        paths: photos, folders, globs or addresses.
        out: the head file to write; give it to other subcommands with --head.
        dimension: dimensions to keep.
        no_whiten: keep the variances of the dimensions instead of making them equal.
        json: print one JSON line with the counts.
    """

    paths: Photos
    out: Annotated[str, arg(metavar="HEAD")]
    dimension: int = fitting.DIMENSION
    no_whiten: bool = False
    extraction: ExtractionOptions
    json: bool = False

    example: ClassVar[str] = "delf-jax pca photos/ --out head.safetensors --dimension 128"

    def run(self, report: Report) -> None:
        """Fits and writes the head."""
        if self.dimension < 1:
            raise UsageError(f"--dimension is {self.dimension}; it must be at least 1")
        paths = photos.find(self.paths, report)
        if not paths:
            return
        # The scorer plays no part in fitting, and a head that is still being made may lack it.
        extractor = dataclasses.replace(self.extraction, scorer="norm").load()
        if extractor.head.autoencoder is not None:
            report.note("this head describes places by its autoencoder, so the PCA will change nothing")
        fitted = fitting.fit(extractor, paths, report)
        projection = fitting.projection(fitted, self.dimension)
        fitted_on = {"command": "delf-jax pca", "photos": fitted.photos, "features": fitted.pca.count}
        head = dataclasses.replace(
            extractor.head,
            pca=projection,
            whiten=not self.no_whiten,
            foreground=fitted.direction(),
            notes=extractor.head.notes | {"fitted_on": fitted_on},
        )
        head.save(self.out)
        report.succeeded += fitted.photos
        for error in fitted.failed:
            report.failure("image", error.source, error.reason)
        share = fitting.variance_kept(fitted, projection)
        record = {
            "head": self.out,
            "photos": fitted.photos,
            "features": fitted.pca.count,
            "dimension": self.dimension,
            "variance_kept": share,
        }
        report.result(
            record,
            f"{self.out}: {self.dimension} dimensions keep {share:.0%} of the variance of {fitted.pca.count} features "
            f"from {fitted.photos} photos",
        )
