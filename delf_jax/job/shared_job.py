"""The batch job in several processes: each extracts its share into its own store, and process 0 merges the stores."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from delf_jax.errors import ClusterError, StoreError
from delf_jax.files.folder import Folder
from delf_jax.job import extraction_job
from delf_jax.job.extraction_job import DEFAULT_OPTIONS, JobOptions, JobReport, PhotoExtractor
from delf_jax.job.processes import Group
from delf_jax.store import manifest as manifests
from delf_jax.store.commit_log import CommitLog
from delf_jax.store.photo_table import KnownPhoto
from delf_jax.store.reader import FeatureStore
from delf_jax.store.writer import PROCESSES, StoreWriter, known_photos


def run(
    extractor: PhotoExtractor,
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    group: Group,
    options: JobOptions = DEFAULT_OPTIONS,
    head: str | os.PathLike[str] | None = None,
) -> JobReport:
    """``job.run`` in every process of a group, into one store.

    What a dead process has finished is kept: the next writer of the store merges it.

    Args:
        extractor, paths, out, options, head: as for ``job.run``; paths, out and head are the same in all processes.
        group: from ``processes.join``.

    Returns:
        What this process did; ``stored`` counts the photos of the whole store.

    Raises:
        ClusterError: another process died, or could not open its store.
        DelfError: as for ``job.run``.
    """
    names = [os.fspath(path) for path in paths]
    extraction_job.require_photos(names)
    job = _SharedJob(extractor, names, out, options, group, head)
    return job.lead() if group.share.process == 0 else job.follow()


class _SharedJob(NamedTuple):
    """The arguments of ``run``, and what process 0 and the other processes do with them."""

    extractor: PhotoExtractor
    names: list[str]
    out: str | os.PathLike[str]
    options: JobOptions
    group: Group
    head: str | os.PathLike[str] | None

    def lead(self) -> JobReport:
        """Extracts the share of process 0, and merges the stores of the others into the whole store."""
        group, lost = self.group, dict[int, str]()
        with _publishing(group, "opened"):
            writer = StoreWriter(self.out, **self._described())
        with writer, _publishing(group, "merged"):
            before = FeatureStore.open(self.out).failures()
            result = self._extract(writer, before)
            left = FeatureStore.open(self.out).failures()
            for process in range(1, group.share.processes):
                folder = _folder_of(self.out, process)
                ended = group.wait_for_writer(f"finished/{process}", folder)
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

    def follow(self) -> JobReport:
        """Extracts the share of another process into its own store, and waits until process 0 has merged it."""
        group, process = self.group, self.group.share.process
        _require(group.wait_for_writer("opened", Folder(self.out)))
        with _publishing(group, f"finished/{process}"):
            before = [failure for failure in FeatureStore.open(self.out).failures() if group.share.owns(failure[0])]
            with _ShareWriter(self.out, process, **self._described()) as writer:
                result = self._extract(writer, before)
        _require(group.wait_for_writer("merged", Folder(self.out)))
        group.leave()
        return result._replace(stored=len(FeatureStore.open(self.out)))

    def _extract(self, writer: StoreWriter, failed_before: list[tuple[str, str]]) -> JobReport:
        is_mine = self.group.share.owns
        return extraction_job.run_in(writer, self.extractor, self.names, failed_before, self.options, is_mine=is_mine)

    def _described(self) -> dict[str, Any]:
        return {
            "settings": self.extractor.settings,
            "fingerprint": self.extractor.fingerprint,
            "dimension": self.extractor.dimension,
            "head": self.head,
        }


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


def _require(text: str | None) -> None:
    if text != "":
        raise ClusterError(
            f"process 0: {text or 'it died'}; what is finished is kept, run the same command again in all processes"
        )
