"""`delf-jax pca`: fits the projection of descriptors."""

import dataclasses
from typing import Annotated, ClassVar

from tyro.conf import arg

from delf_jax.command.options import ExtractionOptions, Photos, UsageError
from delf_jax.command.report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pca:
    """Fit the PCA of descriptors to photos and write it, with the other parts of the head, to a head file.

    Attributes:
        paths: photos, folders, globs or addresses.
        out: the head file to write; give it to other subcommands with --head.
        dimension: dimensions to keep.
        no_whiten: keep the variances of the dimensions instead of making them equal.
        json: print one JSON line with the counts.
    """

    paths: Photos
    out: Annotated[str, arg(metavar="HEAD")]
    dimension: int = 128
    no_whiten: bool = False
    extraction: ExtractionOptions = ExtractionOptions()
    json: bool = False

    example: ClassVar[str] = "delf-jax pca photos/ --out head.safetensors --dimension 128"

    def run(self, report: Report) -> None:
        """Fits and writes the head."""
        if not self.paths:
            raise UsageError("pca needs photos: name files, folders or globs")
