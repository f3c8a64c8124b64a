"""Connects to a Ray cluster, or starts one on this machine, and finds out how many workers fit."""

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

from delf_jax.cores import usable_cores
from delf_jax.errors import ClusterError, one_line
from delf_jax.native_log import native_log_hidden

_CPUS_A_WORKER = 2
_SECONDS_TO_ANSWER = 10
_ACCELERATORS = ("GPU", "TPU")


class Workers(NamedTuple):
    """The workers of a job.

    Attributes:
        number: how many there are.
        cpus: cores of each, which is also its number of threads.
        accelerator: "GPU" or "TPU" if each worker has one; None if it computes on its cores.
    """

    number: int
    cpus: int
    accelerator: str | None = None


@contextlib.contextmanager
def connected(address: str, *, workers: int | None = None) -> Iterator[Workers]:
    """A connection to a Ray cluster while the block runs.

    Args:
        address: ``local`` starts a cluster on this machine and stops it at the end; ``auto`` finds one that runs on
            this machine; otherwise host:port of the head node.
        workers: how many; None for one for each accelerator, or for every two cores if there are no accelerators.

    Yields:
        The workers that fit into the cluster.

    Raises:
        ClusterError: Ray is not installed, there is no cluster, or the workers do not fit.
    """
    ray = _ray()
    _connect(ray, address, workers)
    try:
        yield workers_that_fit(ray, address, workers)
    finally:
        ray.shutdown()


def _ray() -> ModuleType:
    # Ray reads these when it is imported: it sends no usage statistics, and its C++ part logs to files only.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ClusterError(f"Ray is not installed ({error}); pip install 'delf-jax[ray]'") from None
    # Ray would report lost workers on stdout, in spite of `log_to_driver`, and in many lines on stderr.
    ray._private.worker._worker_logs_enabled = False
    for handler in logging.getLogger("ray.data").handlers:
        if handler.get_name() == "console":
            handler.setLevel(logging.CRITICAL)
    return ray


def _connect(ray: ModuleType, address: str, workers: int | None) -> None:
    if "://" in address:
        raise ClusterError(f"{address}: Ray's client protocol cannot stream; give host:port of the head node, or auto")
    local = {}
    if address == "local":
        local = {"num_cpus": max(usable_cores(), workers or 1), "include_dashboard": False}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if ":" in address:  # Ray itself would ask again for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
        with native_log_hidden():  # where the C++ part says that its log level was set
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **local)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        reason = one_line(error).rstrip(".")
        raise ClusterError(
            f"{address}: no Ray cluster can be reached ({reason}); "
            "start one with `ray start --head`, or give local to have one while the job runs"
        ) from None
    finally:
        # Ray replaces the SIGTERM handler; then the warnings of a scheduler would be lost.
        for number, handler in handlers.items():
            signal.signal(number, handler)


def workers_that_fit(ray: ModuleType, address: str, workers: int | None) -> Workers:
    """The workers that fit on the nodes of a cluster; raises ClusterError if ``workers`` are too many."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for accelerator in _ACCELERATORS:
        devices = int(sum(node.get(accelerator, 0) for node in nodes))
        if devices:
            if workers is not None and workers > devices:
                raise ClusterError(
                    f"{address}: {workers} workers of one {accelerator} each do not fit; the cluster has {devices}"
                )
            return Workers(workers or devices, 1, accelerator)
    cores = [int(node.get("CPU", 0)) for node in nodes]
    if sum(cores) < (workers or 1):
        raise ClusterError(f"{address}: {workers or 1} workers do not fit; the cluster has {sum(cores)} cores")
    if workers is None:
        cpus = min(_CPUS_A_WORKER, max(cores))
        return Workers(sum(node // cpus for node in cores), cpus)
    # The most cores with which all workers fit. The cores of a worker are on one node.
    cpus = next(cpus for cpus in range(max(cores), 0, -1) if sum(node // cpus for node in cores) >= workers)
    return Workers(workers, cpus)
