"""`delf-jax extract`: computes the local features of photos and writes a feature store."""

import dataclasses
import functools
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import arg

from delf_cli import head_fitting, input_photos
from delf_cli.distributed_options import DistributedOptions
from delf_cli.options import ExtractionOptions, Photos, UsageError
from delf_cli.report import Report
from delf_jax.errors import StoreError
from delf_jax.photos.names import left_out_words

if TYPE_CHECKING:
    import delf_jax.extraction.head
    import delf_jax.job.extraction_job
    from delf_jax.job.processes import Group


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extract:
    """Compute the local features of photos and write them to a feature store.

    If it was stopped, run the same command again and it continues. Photos in the store are skipped, changed photos are
    computed again, and photos that cannot be read are listed with the reason.

    Attributes:
        paths: photos, folders (with all their subfolders), globs, or addresses such as s3://bucket/photos.
        out: the feature store, a folder or an address; made if it does not exist.
        adapt: first fit PCA and foreground vector to these photos (no labels needed), and keep them in the store.
        verify: also compare the contents of photos that are in the store, not only their size and time.
        workers: number of threads that decode photos.
        metrics: text file with metrics for Prometheus, updated while the job runs.
        json: print JSON lines: one for every photo that failed, then one with the counts.
    """

    paths: Photos
    out: Annotated[str, arg(metavar="STORE")]
    adapt: bool = False
    verify: bool = False
    workers: Annotated[int | None, arg(help_behavior_hint="(default: depends on the CPU)")] = None
    metrics: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    extraction: ExtractionOptions
    distributed: DistributedOptions
    json: bool = False

    example: ClassVar[str] = "delf-jax extract photos/ 'more/*.jpg' --out features --max-features 1000"

    def run(self, report: Report) -> None:
        """Runs the batch job."""
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers is {self.workers}; it must be at least 1")
        if self.adapt and self.distributed.coordinator is not None:
            raise UsageError(
                "--adapt works in one process only; run `delf-jax pca` first, and give --head to all processes"
            )
        if self.adapt and self.extraction.head is not None:
            raise UsageError("give either --adapt or --head, not both: --adapt fits a new head")
        self.extraction.check()
        self.distributed.check()
        if not input_photos.any_exist(self.paths, report):
            return
        self.distributed.leave_accelerators()
        group = self.distributed.join()
        stored = _head_of_store(self.out) if self.extraction.head is None else None
        if stored is not None:
            report.note(f"{self.out}: using the head that is kept in this store")
            self._extract(report, group, head=stored)
        elif self.adapt:
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "head.safetensors")
                self._adapted(report).save(path)
                self._extract(report, group, head=path)
        else:
            self._extract(report, group, head=self.extraction.head)

    def _extract(self, report: Report, group: "Group | None", *, head: str | os.PathLike[str] | None) -> None:
        if self.distributed.ray is None:
            self._run_job(self.extraction.load(head=head), report, group, head=head)
        else:
            with self.distributed.on_ray(self.extraction, head=head) as extractor:
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
                advance(progress.finished, progress.total)

            options = extraction_job.JobOptions(
                verify=self.verify,
                progress=show if report.shows_progress else None,
                workers=self.workers,
                metrics=self.metrics,
            )
            result = run(extractor, self.paths, self.out, options=options, head=head)
        self._summarise(result, time.monotonic() - begin, report)

    def _summarise(self, result: "delf_jax.job.extraction_job.JobReport", seconds: float, report: Report) -> None:
        report.succeeded += result.done + result.skipped
        for path, reason in result.failed:
            report.failure("image", path, reason)
        if result.left_out:
            report.note(left_out_words(result.left_out))
        rate = result.done / seconds if seconds else 0.0
        record = {
            "store": self.out,
            "done": result.done,
            "skipped": result.skipped,
            "failed": len(result.failed),
            "stored": result.stored,
            "left_out": result.left_out,
            "seconds": round(seconds, 3),
            "photos_per_second": round(rate, 3),
        }
        counts = [f"{result.done} photos done, {rate:.1f} per second"]
        if result.skipped:
            counts.append(f"{result.skipped} skipped (already done)")
        if result.failed:
            counts.append(f"{len(result.failed)} failed")
        report.result(record, f"{self.out}: {', '.join(counts)}; {result.stored} photos in the store")

    def _adapted(self, report: Report) -> "delf_jax.extraction.head.Head":
        """The model's head, with PCA and foreground vector fitted to an even sample of the photos."""
        found, _ = input_photos.find_with_errors(self.paths)
        sample = [photo.path for photo in head_fitting.evenly_spaced(found)]
        # Fitting needs no scorer, and this head may lack the foreground vector until it is fitted.
        extractor = dataclasses.replace(self.extraction, scorer="norm").load()
        return head_fitting.fit_head(extractor, sample, report, workers=self.workers)


def _head_of_store(out: str) -> Path | None:
    """The head that the store keeps; None if there is no store yet, or if it keeps none."""
    from delf_jax.store.reader import FeatureStore

    try:
        return FeatureStore.open(out).head_path
    except StoreError:
        return None
