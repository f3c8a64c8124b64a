"""The batch job in several processes: each extracts its share into its own store, and process 0 merges the stores."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

from delf_jax.errors import ClusterError, StoreError
from delf_jax.files import lease as leases
from delf_jax.files.folder import Folder
from delf_jax.job import extraction_job
from delf_jax.job.extraction_job import JobOptions, JobReport, PhotoExtractor
from delf_jax.job.processes import Group, Heartbeat
from delf_jax.store import manifest as manifests
from delf_jax.store.commit_log import CommitLog
from delf_jax.store.photo_table import KnownPhoto
from delf_jax.store.reader import FeatureStore
from delf_jax.store.writer import PROCESSES, StoreWriter, known_photos

_SILENT_SECONDS = 90.0


def run(
    extractor: PhotoExtractor,
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    group: Group,
    *,
    head: str | os.PathLike[str] | None = None,
    **options: Any,
) -> JobReport:
    """``job.run`` in every process of a group, into one store.

    What a dead process has finished is kept: the next writer of the store merges it.

    Args:
        extractor, paths, out, head: the same in all processes.
        group: from ``processes.join``.
        **options: verify, part_photos, progress, workers, metrics, as for ``job.run``.

    Returns:
        What this process did; ``stored`` counts the photos of the whole store.

    Raises:
        ClusterError: another process died, or could not open its store.
        DelfError: as for ``job.run``.
    """
    names = [os.fspath(path) for path in paths]
    extraction_job.require_photos(names)
    described = {
        "settings": extractor.settings,
        "fingerprint": extractor.fingerprint,
        "dimension": extractor.dimension,
        "head": head,
    }
    if group.share.process == 0:
        return _lead(extractor, names, out, group, described, JobOptions(**options))
    return _follow(extractor, names, out, group, described, JobOptions(**options))


def _lead(
    extractor: PhotoExtractor,
    names: list[str],
    out: str | os.PathLike[str],
    group: Group,
    described: dict[str, Any],
    options: JobOptions,
) -> JobReport:
    lost: dict[int, str] = {}
    with _publishing(group, "opened"):
        writer = StoreWriter(out, **described)
    with writer, _publishing(group, "merged"):
        before = FeatureStore.open(out).failures()
        result = extraction_job.run_in(writer, extractor, names, before, options, is_mine=group.share.owns)
        left = FeatureStore.open(out).failures()
        for process in range(1, group.share.processes):
            folder = _folder_of(out, process)
            ended = _wait_for(group, f"finished/{process}", folder)
            if ended == "":
                left += FeatureStore.open(folder.address).failures()
            else:
                lost[process] = ended or "it died"
                left += [failure for failure in before if group.share._replace(process=process).owns(failure[0])]
        writer.merge_processes()
        writer.write_failures(left)
        stored = len(writer)
    group.leave(lost)
    if lost:
        reasons = "; ".join(f"process {process} of {group.share.processes}: {lost[process]}" for process in lost)
        raise ClusterError(
            f"{reasons}; what is finished is in the store, run the same command again in all processes for the rest"
        )
    return result._replace(stored=stored)


def _follow(
    extractor: PhotoExtractor,
    names: list[str],
    out: str | os.PathLike[str],
    group: Group,
    described: dict[str, Any],
    options: JobOptions,
) -> JobReport:
    process = group.share.process
    _require(_wait_for(group, "opened", Folder(out)))
    with _publishing(group, f"finished/{process}"):
        before = [failure for failure in FeatureStore.open(out).failures() if group.share.owns(failure[0])]
        with _ShareWriter(out, process, **described) as writer:
            result = extraction_job.run_in(writer, extractor, names, before, options, is_mine=group.share.owns)
    _require(_wait_for(group, "merged", Folder(out)))
    group.leave()
    return result._replace(stored=len(FeatureStore.open(out)))


class _ShareWriter(StoreWriter):
    """Writes the store of one process, and also knows the photos of the whole store."""

    def __init__(self, out: str | os.PathLike[str], process: int, **described: Any) -> None:
        folder = Folder(out)
        manifest = CommitLog(folder).read()
        assert manifest is not None
        different = manifests.difference(manifest, **described | {"head": None})
        if different:
            raise StoreError(f"{folder.address}: process 0 has other settings ({different}); start all processes alike")
        self._whole = known_photos(folder, manifest)
        super().__init__(_folder_of(out, process).address, **described)

    def known(self, path: str) -> KnownPhoto | None:
        return super().known(path) or self._whole.get(path)


def _folder_of(out: str | os.PathLike[str], process: int) -> Folder:
    return Folder(Folder(out).join(PROCESSES, f"{process:05d}"))


@contextlib.contextmanager
def _publishing(group: Group, what: str) -> Iterator[None]:
    """Sends the other processes how the block ended: an empty text, or the reason of a failure."""
    try:
        yield
    except BaseException as error:
        group.publish(what, str(error) or "it was interrupted")
        raise
    group.publish(what)


def _wait_for(group: Group, what: str, folder: Folder) -> str | None:
    """Waits for a message of the process that writes in ``folder``; returns None if it has died."""

    def read() -> bytes:
        try:
            return folder.read(leases.FILE)
        except OSError:
            return b""

    return group.wait_for(what, is_alive=Heartbeat(read, seconds=_SILENT_SECONDS).is_alive)


def _require(text: str | None) -> None:
    if text != "":
        raise ClusterError(
            f"process 0: {text or 'it died'}; what is finished is kept, run the same command again in all processes"
        )
