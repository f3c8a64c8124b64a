"""Runs a function over photos on the workers of a Ray cluster. Ray Data sends the names and returns the results.

Ray Data places the workers, restarts dead ones, gives their tasks to others, and slows them down while results wait to
be read. But one photo may kill every worker that reads it. So a ledger counts how often each task was started: a task
that was lost twice is divided into single photos, and a photo that was lost twice more fails.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pyarrow as pa

from delf_jax.errors import ClusterError, DelfError, ImageError
from delf_jax.job.ray_session import Workers

_WAVE_PHOTOS = 1 << 20
_TRIES = 2
_TURNS = 4
_FAILURE = pa.struct([("path", pa.string()), ("source", pa.string()), ("reason", pa.string())])


class Result(NamedTuple):
    """The results of some photos.

    Attributes:
        data: the results of the photos that could be used, in the format of the work.
        failed: the errors of the others, by path.
    """

    data: bytes
    failed: dict[str, ImageError]


class _Task(NamedTuple):
    """Photos of one task, and their result; None if the workers of the task died."""

    paths: list[str]
    result: Result | None


@runtime_checkable
class Work(Protocol):
    """The function that a worker runs, made once in each worker. The same photos must give the same result."""

    def __call__(self, paths: list[str]) -> Result:
        """The result of some photos. A DelfError ends the pass over all photos."""


def map_photos(
    make: Callable[[Workers], Work], paths: Iterable[str], workers: Workers, *, task_photos: int
) -> Iterator[Result]:
    """Runs the work over photos. Each photo is in exactly one result; the order is arbitrary.

    Up to a million names are read at once. For the next million, the workers start again.

    Args:
        make: makes the work inside a worker, in which JAX has not computed anything yet.
        paths: names of photos that are valid on every node.
        workers: from ``ray_session.connected``.
        task_photos: largest number of photos in a task.

    Raises:
        DelfError: a worker raised it.
        ClusterError: the workers cannot start, or an error that is not of a photo ended one.
    """
    iterator = iter(paths)
    while wave := list(itertools.islice(iterator, _WAVE_PHOTOS)):
        # Several tasks for each worker, so that no worker waits long for the last one.
        size = max(1, min(task_photos, -(-len(wave) // (_TURNS * workers.number))))
        lost: list[str] = []
        for task in _pass(make, wave, workers, size):
            if task.result is None:
                lost += task.paths
            else:
                yield task.result
        for task in _pass(make, lost, workers, 1):
            yield task.result or _given_up(task.paths)


def _given_up(paths: list[str]) -> Result:
    reason = (
        f"every worker that read it died, {2 * _TRIES} times; leave it out, or give the workers more memory "
        "if they ran out of it (see the logs of the cluster)"
    )
    return Result(b"", {path: ImageError(path, reason) for path in paths})


def _pass(make: Callable[[Workers], Work], paths: list[str], workers: Workers, size: int) -> Iterator[_Task]:
    """One pass over the photos, in tasks of ``size`` photos. A task whose workers died has no result."""
    if not paths:
        return
    import ray.data
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    tables = [pa.table({"path": paths[begin : begin + size]}) for begin in range(0, len(paths), size)]
    dataset = ray.data.from_arrow(tables)
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    # The ledger is on the node of this process, without which the job ends anyway.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    ledger = ray.remote(num_cpus=0, scheduling_strategy=here)(_Ledger).remote()
    dataset = dataset.map_batches(
        _Worker,
        fn_constructor_args=(make, workers, ledger),
        batch_size=size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(workers.number, len(tables))),
        **_resources(workers),
    )
    answers = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
    try:
        while True:
            try:
                table = next(answers, None)
            except ray.exceptions.RayError as error:
                raise _explained(error) from None
            if table is None:
                return
            for row in table.to_pylist():
                yield _task(**row)
    finally:
        answers.close()


def _task(paths: list[str], data: bytes | None, failed: list[dict[str, str]], error: str | None) -> _Task:
    if error is not None:
        raise ClusterError(error)
    if data is None:
        return _Task(paths, None)
    return _Task(paths, Result(data, {f["path"]: ImageError(f["source"], f["reason"]) for f in failed}))


class _Ledger:
    """An actor that outlives the workers and counts how often each task was started."""

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}

    def begin(self, task: str) -> int:
        self._begun[task] = self._begun.get(task, 0) + 1
        return self._begun[task]


class _Worker:
    """Runs the work, in its own process on some node."""

    def __init__(self, make: Callable[[Workers], Work], workers: Workers, ledger: Any) -> None:
        if workers.accelerator is None:
            # The number of XLA's threads: on a CPU it would use every core that it sees.
            os.environ["NPROC"] = str(workers.cpus)
        self._ledger = ledger
        self._work: Work | None = None
        self._error: str | None = None
        try:
            self._work = make(workers)
        except DelfError as error:
            self._error = str(error)

    def __call__(self, table: pa.Table) -> pa.Table:
        paths = table.column("path").to_pylist()
        result, error = None, self._error
        if self._work is not None and self._begin(paths[0]):
            try:
                result = self._work(paths)
            except DelfError as raised:
                error = str(raised)
            except Exception as raised:
                error = (
                    f"a worker failed at {paths[0]} or one of the photos after it: {type(raised).__name__}: {raised}"
                )
        failed = result.failed if result else {}
        rows = [{"path": path, "source": error.source, "reason": error.reason} for path, error in failed.items()]
        return pa.table(
            {
                "paths": pa.array([paths], pa.list_(pa.string())),
                "data": pa.array([result.data if result else None], pa.large_binary()),
                "failed": pa.array([rows], pa.list_(_FAILURE)),
                "error": pa.array([error], pa.string()),
            }
        )

    def _begin(self, task: str) -> bool:
        """Whether the task, named by its first photo, may be tried: not if it was lost too often."""
        import ray

        begun: int = ray.get(self._ledger.begin.remote(task))
        return begun <= _TRIES


def _resources(workers: Workers) -> dict[str, Any]:
    resources: dict[str, Any] = {"num_cpus": workers.cpus}
    if workers.accelerator == "GPU":
        resources["num_gpus"] = 1
    elif workers.accelerator is not None:
        resources["resources"] = {workers.accelerator: 1}
    return resources


def _explained(error: Exception) -> ClusterError:
    reason = " ".join(str(getattr(error, "cause", None) or error).split())[-300:]
    return ClusterError(
        f"the workers cannot start or continue ({reason}); every node needs the same delf-jax and model"
    )
