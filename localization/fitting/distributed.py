"""The sums that fitting needs, by workers on a Ray cluster or by several processes, merged into those of one pass."""

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
from delf_jax.files.lease import FILE as LEASE
from delf_jax.files.lease import Lease
from delf_jax.job import ray_pool
from delf_jax.job.processes import Group, Heartbeat
from delf_jax.job.ray_pool import Result
from delf_jax.job.ray_session import Workers
from localization.encoders.encoders import Encoder
from localization.fitting.fit import Gathered, gather_here
from localization.foreground.statistics import Statistics
from localization.representers.points import PointCollector, Points

_TASK_PHOTOS = 32
_SILENT_SECONDS = 90.0
_STATISTICS = "statistics.safetensors"


def gather_on_ray(
    paths: Iterable[str],
    *,
    load: Callable[[], Encoder],
    workers: Workers,
    encoder: Any = None,
    on_error: Callable[[ImageError], None] | None = None,
    **options: Any,
) -> Gathered | None:
    """``gather_here`` on the workers of a Ray cluster.

    Args:
        paths: names of photos or feature maps that mean the same on every node.
        load: makes the encoder; called once in each worker.
        workers: from ``ray_session.connected``.
        encoder: the same encoder, for the predictor that is made of the sums.
        on_error, **options: as for ``gather_here``.
    """
    make = functools.partial(_Sums, load, options)
    total = _Total(encoder)
    for result in ray_pool.map_photos(make, paths, workers, task_photos=_TASK_PHOTOS):
        for error in result.failed.values():
            if on_error is None:
                raise error
            on_error(error)
        total.add(result.data)
    return total.gathered()


class _Sums:
    """The work of a worker: the sums of some photos."""

    def __init__(self, load: Callable[[], Encoder], options: dict[str, Any], workers: Workers) -> None:
        self._encoder = load()
        self._options = options

    def __call__(self, paths: list[str]) -> Result:
        failed: dict[str, ImageError] = {}
        gathered = gather_here(
            paths,
            encoder=self._encoder,
            on_error=lambda error: failed.update({error.source: error}),
            **self._options,
        )
        return Result(b"" if gathered is None else _to_bytes(gathered), failed)


@contextlib.contextmanager
def sharing(group: Group, folder: str | os.PathLike[str]) -> Iterator[Callable[..., Gathered | None]]:
    """``gather_here`` in every process of a group: each goes through its share, and all get the sums of all.

    Args:
        group: from ``processes.join``.
        folder: where they leave their sums for each other; the same for all, and gone afterwards.

    Yields:
        The function; it is called alike in all processes.

    Raises:
        ClusterError: another process died.
    """
    own = Path(folder) / f"{group.share.process:05d}"
    own.mkdir(parents=True, exist_ok=True)
    rounds = iter(range(10))
    lease = Lease(Folder(own))

    def gather(paths: Iterable[str], **options: Any) -> Gathered | None:
        number = next(rounds)
        mine = gather_here([path for path in paths if group.share.has(path)], **options)
        Folder(own).write(f"{number}.zip", b"" if mine is None else _to_bytes(mine))
        group.tell(f"sums/{number}/{group.share.process}")
        total = _Total(options.get("encoder"))
        for process in range(group.share.processes):
            other = Folder(Path(folder) / f"{process:05d}")
            beat = Heartbeat(functools.partial(_beat, other), seconds=_SILENT_SECONDS)
            if group.hear(f"sums/{number}/{process}", is_alive=beat.is_alive) is None:
                raise ClusterError(f"process {process} died; give the same command again in all processes")
            total.add(other.read(f"{number}.zip"))
        return total.gathered()

    try:
        yield gather
    finally:
        lease.release()
    group.leave()
    if group.share.process == 0:
        Folder(folder).remove_all()


def _beat(folder: Folder) -> bytes:
    try:
        return folder.read(LEASE)
    except OSError:
        return b""


def _to_bytes(gathered: Gathered) -> bytes:
    """The files of the statistics and points in one archive, for ``_Total``."""
    sink = io.BytesIO()
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(sink, "w") as archive:
        gathered.statistics.save(Path(name) / _STATISTICS)
        if gathered.points is not None:
            gathered.points.save(Path(name))
        for file in sorted(Path(name).iterdir()):
            archive.write(file, file.name)
    return sink.getvalue()


class _Total:
    """Adds up what several gathered, each of photos that no other had."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._statistics: Statistics | None = None
        self._points: PointCollector | None = None

    def add(self, data: bytes) -> None:
        """Adds what ``_to_bytes`` made; nothing where there were no photos."""
        if not data:
            return
        with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.namelist():
                (Path(name) / os.path.basename(entry)).write_bytes(archive.read(entry))
            statistics = Statistics.open(Path(name) / _STATISTICS)
            self._statistics = statistics if self._statistics is None else self._statistics + statistics
            if len(archive.namelist()) > 1:
                points = Points.open(Path(name))
                self._points = self._points or PointCollector(points.max_points)
                self._points.extend(points)

    def gathered(self) -> Gathered | None:
        """All of it; None where there were no photos."""
        if self._statistics is None:
            return None
        return Gathered(self._statistics, self._points.finish() if self._points else None, self._encoder)
