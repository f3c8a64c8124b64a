"""`delf-jax extract`: photos to a feature store."""

import dataclasses
import time
from typing import Annotated, ClassVar

from tyro.conf import arg

from delf_jax.command.options import ExtractionOptions, Photos, UsageError
from delf_jax.command.report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extract:
    """Compute the local features of photos and keep them in a store.

    The same command again goes on where it stopped: photos that are in the store are left alone, changed ones are done
    anew, and photos that could not be read are listed with the reason.

    Attributes:
        paths: photos, folders (searched in depth), globs or addresses such as s3://bucket/photos.
        out: the feature store, a folder; made if it is not there.
        adapt: fit PCA and foreground vector to these photos first (no labels needed) and keep them in the store.
        verify: compare the contents of photos already done with what was done, not only their size and time.
        workers: threads that decode photos.
        json: print JSON lines: every photo that failed, then the counts.
    """

    paths: Photos
    out: str
    adapt: bool = False
    verify: bool = False
    workers: Annotated[int | None, arg(help_behavior_hint="(default: by processor)")] = None
    extraction: ExtractionOptions = ExtractionOptions()
    json: bool = False

    example: ClassVar[str] = "delf-jax extract photos/ 'more/*.jpg' --out features --max-features 1000"

    def run(self, report: Report) -> None:
        """Runs the batch job."""
        if not self.paths:
            raise UsageError("extract needs photos: name files, folders or globs")
