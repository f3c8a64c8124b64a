"""`delf-jax pca`: fits the PCA and the foreground vector of a head to photos."""

import dataclasses
from typing import Annotated, ClassVar

from tyro.conf import arg

from delf_cli import head_fitting, input_photos
from delf_cli.options import ExtractionOptions, Photos, UsageError
from delf_cli.report import Report
from delf_jax.errors import ModelError
from delf_jax.files.changer import only_changer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pca:
    """Fit the PCA of descriptors and the foreground vector w* to photos without labels, and write a head file.

    The other parts of the head, such as a trained attention, stay as they are, but no calibration does.

    Attributes:
        paths: photos, folders, globs or addresses.
        out: the head file to write. Other subcommands take it with --head.
        dimension: number of dimensions that descriptors keep.
        no_whiten: do not scale the dimensions to equal variance.
        json: print one JSON line with the counts.
    """

    paths: Photos
    out: Annotated[str, arg(metavar="HEAD")]
    dimension: int = head_fitting.DEFAULT_DIMENSION
    no_whiten: bool = False
    extraction: ExtractionOptions
    json: bool = False

    example: ClassVar[str] = "delf-jax pca photos/ --out head.safetensors --dimension 128"

    def run(self, report: Report) -> None:
        """Fits and writes the head."""
        if self.dimension < 1:
            raise UsageError(f"--dimension is {self.dimension}; it must be at least 1")
        paths = input_photos.find_paths(self.paths, report)
        if not paths:
            return
        with only_changer(self.out, ModelError):  # it may also be the head that is read
            self._fit(paths, report)

    def _fit(self, paths: list[str], report: Report) -> None:
        # Fitting needs no scorer, and this head may lack one.
        extractor = dataclasses.replace(self.extraction, scorer="norm").load()
        if extractor.head.autoencoder is not None:
            report.note("this head uses an autoencoder in place of PCA, so its descriptors will not change")
        fitted = head_fitting.gather_statistics(extractor, paths, report)
        projection = head_fitting.solve_pca(fitted, self.dimension)
        fitted_on = {"command": "delf-jax pca", "photos": fitted.photos, "features": fitted.pca.count}
        head = dataclasses.replace(
            extractor.head,
            pca=projection,
            whiten=not self.no_whiten,
            foreground=fitted.direction(),
            calibrations=(),
            notes=extractor.head.notes | {"fitted_on": fitted_on},
        )
        head.save(self.out)
        report.succeeded += fitted.photos
        for error in fitted.failed:
            report.failure("image", error.source, error.reason)
        share = head_fitting.variance_kept(fitted, projection)
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
