"""Fitting by workers on a Ray cluster or by several processes. Their sums are merged into those of a single pass.

The functions here take the place of ``fit.accumulate`` in ``fit.fit_with``.
"""

import contextlib
import functools
import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from delf_jax.errors import ClusterError, ImageError
from delf_jax.files.folder import Folder
from delf_jax.files.lease import Lease
from delf_jax.job import ray_pool
from delf_jax.job.processes import Group
from delf_jax.job.ray_pool import Result
from delf_jax.job.ray_session import Workers
from localization.encoders.base import Encoder
from localization.fitting.fit import Accumulate, FitSettings, FitSums, OnError, accumulate
from localization.foreground import statistics_file
from localization.foreground.statistics import Statistics
from localization.representers.points import PointCollector, Points

_TASK_PHOTOS = 32
_STATISTICS = "statistics.safetensors"


def accumulate_on_ray(
    photos: Iterable[str],
    settings: FitSettings,
    *,
    load: Callable[[], Encoder],
    workers: Workers,
    encoder: Any = None,
    on_error: OnError | None = None,
) -> FitSums | None:
    """``fit.accumulate`` on the workers of a Ray cluster.

    Args:
        photos: names of photos or feature maps that mean the same on every node.
        settings: as in ``fit.accumulate``.
        load: makes the encoder; called once in each worker.
        workers: from ``ray_session.connected``.
        encoder: the same encoder in this process, for the predictor.
        on_error: as in ``fit.accumulate``.
    """
    make = functools.partial(_AccumulateTask, load, settings)
    total = _Total()
    for result in ray_pool.map_photos(make, photos, workers, task_photos=_TASK_PHOTOS):
        for error in result.failed.values():
            if on_error is None:
                raise error
            on_error(error)
        total.add(result.data)
    return total.finish(encoder)


class _AccumulateTask:
    """What a worker does: the sums of some photos."""

    def __init__(self, load: Callable[[], Encoder], settings: FitSettings, workers: Workers) -> None:
        self._encoder = load()
        self._settings = settings

    def __call__(self, paths: list[str]) -> Result:
        failed: dict[str, ImageError] = {}
        sums = accumulate(
            paths,
            self._settings,
            encoder=self._encoder,
            on_error=lambda error: failed.update({error.source: error}),
        )
        return Result(_to_bytes(sums), failed)


@contextlib.contextmanager
def accumulate_in_group(group: Group, folder: str | os.PathLike[str]) -> Iterator[Accumulate]:
    """``fit.accumulate`` in all processes of a group: each goes through its share, and all get the sums of all.

    Args:
        group: from ``processes.join``.
        folder: where the processes leave their sums for each other; the same for all, and removed afterwards.

    Yields:
        The function. All processes have to make the same calls, with names of photos.

    Raises:
        ClusterError: another process died.
    """
    own = Path(folder) / f"{group.share.process:05d}"
    own.mkdir(parents=True, exist_ok=True)
    rounds = iter(range(10))
    lease = Lease(Folder(own))

    def accumulate_together(
        photos: Iterable[str], settings: FitSettings, *, encoder: Any = None, on_error: OnError | None = None
    ) -> FitSums | None:
        number = next(rounds)
        share = [path for path in photos if group.share.owns(path)]
        sums = accumulate(share, settings, encoder=encoder, on_error=on_error)
        Folder(own).write(f"{number}.zip", _to_bytes(sums))
        group.publish(f"sums/{number}/{group.share.process}")
        total = _Total()
        for process in range(group.share.processes):
            other = Folder(Path(folder) / f"{process:05d}")
            if group.wait_for_writer(f"sums/{number}/{process}", other) is None:
                raise ClusterError(f"process {process} died; give the same command again in all processes")
            total.add(other.read(f"{number}.zip"))
        return total.finish(encoder)

    try:
        yield accumulate_together
    finally:
        lease.release()
    group.leave()
    if group.share.process == 0:
        Folder(folder).remove_all()


def _to_bytes(sums: FitSums | None) -> bytes:
    """The files of statistics and points in one archive; nothing if there were no photos."""
    if sums is None:
        return b""
    sink = io.BytesIO()
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(sink, "w") as archive:
        statistics_file.write(Path(name) / _STATISTICS, sums.statistics)
        if sums.points is not None:
            sums.points.save(Path(name))
        for file in sorted(Path(name).iterdir()):
            archive.write(file, file.name)
    return sink.getvalue()


class _Total:
    """Adds up the sums of different photos."""

    def __init__(self) -> None:
        self._statistics: Statistics | None = None
        self._points: PointCollector | None = None

    def add(self, data: bytes) -> None:
        """Adds what ``_to_bytes`` made."""
        if not data:
            return
        with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.namelist():
                (Path(name) / os.path.basename(entry)).write_bytes(archive.read(entry))
            statistics = statistics_file.read(Path(name) / _STATISTICS)
            self._statistics = statistics if self._statistics is None else self._statistics + statistics
            if len(archive.namelist()) > 1:
                points = Points.open(Path(name))
                self._points = self._points or PointCollector(points.max_points)
                self._points.extend(points)

    def finish(self, encoder: Any) -> FitSums | None:
        """The sums of all; None if there were no photos."""
        if self._statistics is None:
            return None
        return FitSums(self._statistics, self._points.finish() if self._points else None, encoder)
