"""`delf-jax extract`: photos to a feature store."""

import dataclasses
import functools
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import arg

from delf_cli import fitting, photos
from delf_cli.options import ExtractionOptions, Photos, UsageError
from delf_cli.report import Report
from delf_cli.spreading import SpreadingOptions
from delf_jax.errors import StoreError

if TYPE_CHECKING:
    import delf_jax.extraction.head
    import delf_jax.job.extraction_job
    from delf_jax.job.processes import Group

# Enough for 128 dimensions many times over; a million photos need not be read twice.
_ADAPT_PHOTOS = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extract:
    """Compute the local features of photos and keep them in a store.

    The same command again goes on where it stopped: photos that are in the store are left alone, changed ones are done
    anew, and photos that could not be read are listed with the reason.

    Attributes:
        paths: photos, folders (searched in depth), globs or addresses such as s3://bucket/photos.
        out: the feature store, a folder or an address; made if it is not there.
        adapt: fit PCA and foreground vector to these photos first (no labels needed) and keep them in the store.
        verify: compare the contents of photos already done with what was done, not only their size and time.
        workers: threads that decode photos.
        metrics: text file for Prometheus, kept up to date while the job runs; the store keeps a report of the run too.
        json: print JSON lines: every photo that failed, then the counts.
    """

    paths: Photos
    out: Annotated[str, arg(metavar="STORE")]
    adapt: bool = False
    verify: bool = False
    workers: Annotated[int | None, arg(help_behavior_hint="(default: by processor)")] = None
    metrics: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    extraction: ExtractionOptions
    spreading: SpreadingOptions
    json: bool = False

    example: ClassVar[str] = "delf-jax extract photos/ 'more/*.jpg' --out features --max-features 1000"

    def run(self, report: Report) -> None:
        """Runs the batch job."""
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers is {self.workers}; it must be at least 1")
        if self.adapt and self.spreading.coordinator is not None:
            raise UsageError("--adapt fits in one process; run `delf-jax pca` first and give --head to all")
        if self.adapt and self.extraction.head is not None:
            raise UsageError("--adapt fits a head of its own; give either --adapt or --head")
        self.extraction.check()
        self.spreading.check()
        if not photos.exist(self.paths, report):
            return
        self.spreading.leave_accelerators()
        group = self.spreading.join()
        kept = _kept_head(self.out) if self.extraction.head is None else None
        if kept is not None:
            report.note(f"{self.out}: going on with the head that this store carries")
            self._extract(report, group, head=kept)
        elif self.adapt:
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "head.safetensors")
                self._adapted(report).save(path)
                self._extract(report, group, head=path)
        else:
            self._extract(report, group, head=self.extraction.head)

    def _extract(self, report: Report, group: "Group | None", *, head: str | os.PathLike[str] | None) -> None:
        if self.spreading.ray is None:
            self._run_job(self.extraction.load(head=head), report, group, head=head)
        else:
            with self.spreading.on_ray(self.extraction, head=head) as extractor:
                self._run_job(extractor, report, None, head=head)

    def _run_job(
        self,
        extractor: "delf_jax.job.extraction_job.PhotoExtractor",
        report: Report,
        group: "Group | None",
        *,
        head: str | os.PathLike[str] | None,
    ) -> None:
        from delf_jax.job import extraction_job, shared_job

        run = extraction_job.run if group is None else functools.partial(shared_job.run, group=group)
        begin = time.monotonic()
        with report.progress("extracting") as advance:

            def show(progress: extraction_job.Progress) -> None:
                advance(progress.done + progress.skipped + progress.failed, progress.total)

            result = run(
                extractor,
                self.paths,
                self.out,
                verify=self.verify,
                progress=show if report.watched else None,
                workers=self.workers,
                head=head,
                metrics=self.metrics,
            )
        self._summarise(result, time.monotonic() - begin, report)

    def _summarise(self, result: "delf_jax.job.extraction_job.JobReport", seconds: float, report: Report) -> None:
        report.succeeded += result.done + result.skipped
        for path, reason in result.failed:
            report.failure("image", path, reason)
        rate = result.done / seconds if seconds else 0.0
        record = {
            "store": self.out,
            "done": result.done,
            "skipped": result.skipped,
            "failed": len(result.failed),
            "stored": result.stored,
            "seconds": round(seconds, 3),
            "photos_per_second": round(rate, 3),
        }
        counts = [f"{result.done} photos done at {rate:.1f} a second"]
        if result.skipped:
            counts.append(f"{result.skipped} were there already")
        if result.failed:
            counts.append(f"{len(result.failed)} failed")
        report.result(record, f"{self.out}: {', '.join(counts)}; it holds {result.stored} photos")

    def _adapted(self, report: Report) -> "delf_jax.extraction.head.Head":
        """The model's head, with PCA and foreground vector fitted to a sample spread evenly over the photos."""
        found, _ = photos.look(self.paths)
        sample = [photo.path for photo in found[:: -(-len(found) // _ADAPT_PHOTOS)]]
        # Fitting needs no scorer, and the head may lack the one that it is about to get.
        extractor = dataclasses.replace(self.extraction, scorer="norm").load()
        return fitting.adapted_head(extractor, sample, report, workers=self.workers)


def _kept_head(out: str) -> Path | None:
    """The head of the store to go on with; None where there is no store yet, or it has none."""
    from delf_jax.store.reader import FeatureStore

    try:
        return FeatureStore.open(out).head_path
    except StoreError:
        return None
