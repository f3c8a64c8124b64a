"""The batch job: it extracts photos into a feature store, and resumes at any point."""

import hashlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import jax

from delf_jax.errors import DelfError, ImageError, StoreError
from delf_jax.features import LocalFeatures
from delf_jax.job.run_recorder import RunRecorder
from delf_jax.photos.find import PhotoFile, find_photos
from delf_jax.photos.load import read_bytes
from delf_jax.photos.meter import Meter
from delf_jax.photos.names import left_out_words
from delf_jax.settings import ExtractionSettings
from delf_jax.store.parts import StoredPhoto
from delf_jax.store.reader import FeatureStore
from delf_jax.store.writer import StoreWriter

PART_BYTES = 64 << 20
_log = logging.getLogger(__name__)


@runtime_checkable
class PhotoExtractor(Protocol):
    """What the job needs from ``delf_jax.Extractor``."""

    settings: ExtractionSettings
    fingerprint: str

    @property
    def dimension(self) -> int:
        """Length of a descriptor."""

    def stream(
        self, items: Iterable[tuple[str, str]], *, workers: int | None = None
    ) -> Iterator[tuple[str, LocalFeatures | ImageError, str | None]]:
        """(key, features or error, content hash) for (key, path) pairs, in any order and bounded memory."""


@runtime_checkable
class Metered(Protocol):
    """An extractor that measures its stages in this process, as ``delf_jax.Extractor`` does."""

    meter: Meter
    devices: tuple[jax.Device, ...]


class Progress(NamedTuple):
    """The progress of a job.

    Attributes:
        done: photos extracted in this run.
        skipped: photos that the store already had.
        failed: photos and names that could not be used.
        total: photos and names in all; None until they are counted.
    """

    done: int
    skipped: int
    failed: int
    total: int | None

    @property
    def finished(self) -> int:
        """Photos and names that are done, skipped or failed."""
        return self.done + self.skipped + self.failed


class JobReport(NamedTuple):
    """The result of a job.

    Attributes:
        done: photos extracted in this run.
        skipped: unchanged photos that the store already had.
        failed: (path, reason) of everything that could not be used.
        stored: photos in the store now.
        left_out: photos of kinds that are not read, by suffix.
    """

    done: int
    skipped: int
    failed: list[tuple[str, str]]
    stored: int
    left_out: dict[str, int]


class JobOptions(NamedTuple):
    """How a job runs.

    Attributes:
        verify: compare the contents of every photo that the store has, even if its size and time are the same.
        part_photos: largest number of photos in a part; a part also ends at 64 MiB of features.
        progress: called after every photo.
        workers: threads that decode; None lets the extractor choose.
        metrics: text file for Prometheus, written while the job runs.
    """

    verify: bool = False
    part_photos: int = 256
    progress: Callable[[Progress], None] | None = None
    workers: int | None = None
    metrics: str | os.PathLike[str] | None = None


DEFAULT_OPTIONS = JobOptions()


def run(
    extractor: PhotoExtractor,
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    options: JobOptions = DEFAULT_OPTIONS,
    head: str | os.PathLike[str] | None = None,
) -> JobReport:
    """Extracts the features of photos into a store. The same call again goes on where this one stopped.

    The job skips a photo that the store has if its size and modification time are the same, or else its contents.
    Photos that cannot be used are listed, in the report and in the store, and do not stop the job. When the job is
    interrupted, it writes the finished features as a last part. The store keeps a report of the run
    (``FeatureStore.runs``).

    Args:
        extractor: computes the features.
        paths: files, folders, globs, fsspec addresses.
        out: the store, a folder or fsspec address.
        options: how the job runs.
        head: a head file of which the store keeps a copy.

    Raises:
        DelfError: there are no photos.
        StoreError: another writer holds the store, other settings made it, or it cannot be written.
    """
    names = [os.fspath(path) for path in paths]
    require_photos(names)
    with StoreWriter(
        out, settings=extractor.settings, fingerprint=extractor.fingerprint, dimension=extractor.dimension, head=head
    ) as writer:
        return run_in(writer, extractor, names, FeatureStore.open(out).failures(), options)


def run_in(
    writer: StoreWriter,
    extractor: PhotoExtractor,
    names: list[str],
    failed_before: Iterable[tuple[str, str]],
    options: JobOptions,
    *,
    is_mine: Callable[[str], bool] = lambda name: True,
) -> JobReport:
    """``run`` into a store that is already open, for one of several processes.

    Args:
        writer: of the store.
        extractor, names: as for ``run``.
        failed_before: (path, reason) of the photos that failed in earlier runs.
        options: how the job runs.
        is_mine: whether this process does a photo, or reports a name for which there is no photo.
    """
    before = {path: reason for path, reason in failed_before if is_mine(path)}
    meter, devices = Meter(), []
    if isinstance(extractor, Metered):
        meter, devices = extractor.meter, [device.device_kind for device in extractor.devices]
    with RunRecorder(
        writer.write_run, lambda: writer.bytes_written, meter=meter, devices=devices, metrics=options.metrics
    ) as recorder:
        return _Job(extractor, names, writer, recorder, before, options, is_mine).run()


class _Job:
    def __init__(
        self,
        extractor: PhotoExtractor,
        names: list[str],
        writer: StoreWriter,
        recorder: RunRecorder,
        failed_before: dict[str, str],
        options: JobOptions,
        is_mine: Callable[[str], bool],
    ) -> None:
        self._extractor = extractor
        self._names = names
        self._writer = writer
        self._recorder = recorder
        self._failed_before = failed_before
        self._options = options
        self._is_mine = is_mine
        self._requested: dict[str, PhotoFile] = {}
        self._left_out: Counter[str] = Counter()
        self._rows: list[StoredPhoto] = []
        self._row_bytes = 0
        self._total: int | None = None

    def run(self) -> JobReport:
        _log.info("job started", extra={"names": self._names[:10], "stored": len(self._writer)})
        stop = threading.Event()
        counter = threading.Thread(target=self._count, args=(stop,), name="photo counter", daemon=True)
        if self._options.progress:
            counter.start()
        results = self._extractor.stream(self._wanted(), workers=self._options.workers)
        try:
            for path, features, content_hash in results:
                self._take(path, features, content_hash)
            self._flush()
        except StoreError:
            raise
        except BaseException:
            self._flush()
            self._writer.write_failures((self._failed_before | self._recorder.failures).items())
            raise
        finally:
            stop.set()
            close = getattr(results, "close", None)
            if close:
                close()
        recorder = self._recorder
        self._writer.write_failures((self._failed_before | recorder.failures).items())
        failed, left_out = list(recorder.failures.items()), dict(self._left_out)
        result = JobReport(recorder.done, recorder.skipped, failed, len(self._writer), left_out)
        _log.info("job finished", extra=result._asdict() | {"failed": len(result.failed)})
        return result

    def _wanted(self) -> Iterator[tuple[str, str]]:
        """The photos to extract. It runs in the thread in which the extractor takes them."""
        for photo in self._find(self._left_out):
            if isinstance(photo, ImageError):
                self._fail(photo)
            elif self._is_stored(photo):
                self._failed_before.pop(photo.path, None)
                self._recorder.skipped += 1
                self._report()
            else:
                self._requested[photo.path] = photo
                yield photo.path, photo.path

    def _find(self, left_out: Counter[str] | None = None) -> Iterator[PhotoFile | ImageError]:
        for photo in find_photos(self._names, left_out=left_out):
            if self._is_mine(photo.source if isinstance(photo, ImageError) else photo.path):
                yield photo

    def _is_stored(self, photo: PhotoFile) -> bool:
        known = self._writer.known(photo.path)
        if known is None:
            return False
        if (known.size, known.mtime_ns) == (photo.size, photo.mtime_ns) and not self._options.verify:
            return True
        if known.size != photo.size:
            return False
        try:
            return known.has_content(hashlib.sha256(read_bytes(photo.path)).hexdigest())
        except ImageError:
            return False  # the extractor reports why

    def _take(self, path: str, features: LocalFeatures | ImageError, content_hash: str | None) -> None:
        photo = self._requested.pop(path)
        self._recorder.bytes_read += photo.size
        if isinstance(features, ImageError):
            self._fail(features)
            return
        if content_hash is None:
            raise ValueError(f"{path}: the extractor gave no content hash")
        self._failed_before.pop(path, None)
        self._rows.append(StoredPhoto(path, photo.size, photo.mtime_ns, content_hash, features))
        self._row_bytes += len(features) * (2 * self._extractor.dimension + 16)
        self._recorder.done += 1
        if len(self._rows) >= self._options.part_photos or self._row_bytes >= PART_BYTES:
            self._flush()
        self._report()

    def _fail(self, error: ImageError) -> None:
        self._recorder.failures[error.source] = error.reason
        _log.info("photo failed", extra={"photo": error.source, "reason": error.reason})
        self._report()

    def _flush(self) -> None:
        # They are taken out first: an interruption in the middle must not write them twice.
        rows, self._rows, self._row_bytes = self._rows, [], 0
        if rows:
            with self._recorder.meter.stage("write"):
                self._writer.append(rows)
            self._recorder.parts += 1
            self._recorder.save()

    def _count(self, stop: threading.Event) -> None:
        total = 0
        for _ in self._find():
            total += 1
            if stop.is_set():
                return
        self._total = total

    def _report(self) -> None:
        recorder = self._recorder
        recorder.tick()
        if self._options.progress:
            self._options.progress(Progress(recorder.done, recorder.skipped, len(recorder.failures), self._total))


def require_photos(names: list[str]) -> None:
    """Raises DelfError if the names give no photo, before a store is made in vain."""
    reasons = []
    left_out: Counter[str] = Counter()
    for photo in find_photos(names, left_out=left_out):
        if isinstance(photo, PhotoFile):
            return
        reasons.append(str(photo))
    if left_out:
        reasons.append(left_out_words(left_out))
    if reasons:
        raise DelfError("no photos: " + "; ".join(reasons[:3]))
    raise DelfError(f"{', '.join(names) or 'nothing given'}: no photos there; give photos, or folders that hold photos")
