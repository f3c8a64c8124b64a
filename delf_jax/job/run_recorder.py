"""Records one run: counts photos, parts and failures, and writes the report while the job goes on."""

import collections
import datetime
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from types import TracebackType

from delf_jax.errors import StoreError, reason_of
from delf_jax.files import atomic
from delf_jax.photos.meter import CompilationCount, Meter
from delf_jax.store import run_report
from delf_jax.store.run_report import RunReport

_SECONDS_BETWEEN_METRICS = 10.0
_log = logging.getLogger(__name__)


class RunRecorder:
    """Makes the report of a run. It is a context manager, and how the block ends is the outcome of the run.

    The report is written when the run begins, after every part and at the end, so that even a killed run leaves one.

    Attributes:
        meter: measures the seconds of the stages.
        failures: reason by photo or name; the job adds to it.
        done, skipped, parts, bytes_read: the job counts with them.
    """

    def __init__(
        self,
        write: Callable[[str, bytes], None],
        bytes_written: Callable[[], int],
        *,
        meter: Meter,
        devices: Sequence[str] = (),
        metrics: str | os.PathLike[str] | None = None,
    ) -> None:
        """Begins a run.

        Args:
            write: writes a report into the store, under a name.
            bytes_written: returns how many bytes this run has written to the store.
            meter: of the extractor; what it has counted before does not belong to this run.
            devices: kinds of the devices.
            metrics: file for Prometheus, written every ten seconds and after every part.
        """
        self.meter = meter
        self.done = self.skipped = self.parts = self.bytes_read = 0
        self.failures: dict[str, str] = {}
        self._write = write
        self._bytes_written = bytes_written
        self._devices = tuple(devices)
        self._metrics = metrics
        self._metrics_at = 0.0
        self._started = time.time()
        self._begin = time.monotonic()
        self._before = meter.seconds()
        self._compilations = CompilationCount()
        stamp = datetime.datetime.fromtimestamp(self._started, datetime.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._name = f"run-{stamp}-{uuid.uuid4().hex[:8]}.json"

    def __enter__(self) -> "RunRecorder":
        report = self.report()
        self._write(self._name, report.to_bytes())
        if self._metrics is not None:
            self._write_metrics(self._metrics, report)
        self._compilations.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._compilations.__exit__()
        if error is None:
            self.save(run_report.FINISHED)
            return
        try:
            if isinstance(error, Exception):
                self.save(run_report.FAILED, f"{type(error).__name__}: {error}")
            else:
                self.save(run_report.INTERRUPTED)
        except (StoreError, OSError):
            pass  # what stopped the run often stops its report too; the caller gets the first error

    def report(self, outcome: str = run_report.RUNNING, error: str | None = None) -> RunReport:
        """The report of the run up to now."""
        stages = {name: seconds - self._before.get(name, 0.0) for name, seconds in self.meter.seconds().items()}
        programs = self._compilations.total()
        return RunReport(
            outcome=outcome,
            error=error,
            started=self._started,
            seconds=time.monotonic() - self._begin,
            host=socket.gethostname(),
            process=os.getpid(),
            devices=self._devices,
            done=self.done,
            skipped=self.skipped,
            failed=len(self.failures),
            failures=dict(collections.Counter(map(run_report.failure_kind, list(self.failures.values())))),
            bytes_read=self.bytes_read,
            bytes_written=self._bytes_written(),
            parts=self.parts,
            stages={name: stages.get(name, 0.0) for name in ("decode", "compute", "write")},
            compiled=programs.compiled,
            cached=programs.cached,
            compile_seconds=programs.seconds,
        )

    def save(self, outcome: str = run_report.RUNNING, error: str | None = None) -> None:
        """Writes the report and the metrics."""
        report = self.report(outcome, error)
        self._write(self._name, report.to_bytes())
        self._save_metrics(report)

    def tick(self) -> None:
        """Called after every photo; writes the metrics if they are older than ten seconds."""
        if self._metrics is not None and time.monotonic() - self._metrics_at >= _SECONDS_BETWEEN_METRICS:
            self._save_metrics(self.report())

    def _save_metrics(self, report: RunReport) -> None:
        if self._metrics is None:
            return
        try:
            self._write_metrics(self._metrics, report)
        except StoreError as error:  # a job goes on without metrics
            _log.warning("metrics not written", extra={"reason": str(error)})

    def _write_metrics(self, file: str | os.PathLike[str], report: RunReport) -> None:
        self._metrics_at = time.monotonic()
        try:
            atomic.write_bytes(file, report.to_prometheus())
        except OSError as error:
            raise StoreError(
                f"{os.fspath(file)}: the metrics cannot be written ({reason_of(error)}); choose another file for them"
            ) from None
