"""Faults of a Ray cluster: a worker, a node, the coordinator."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from delf_jax.errors import DelfError
from delf_jax.job import JobOptions, extraction_job
from tests.delf_jax.fake_extractor import FakeExtractor
from tests.soak import ground
from tests.soak.ground import Tally

_PHOTOS = 120
_SECONDS = 0.05


def extract_on_ray(photos: str, out: str, seconds: float, address: str) -> None:
    """The job, its photos spread over two workers."""
    from delf_jax.job import ray_session
    from delf_jax.job.ray_extractor import RayExtractor

    local = FakeExtractor()
    try:
        with ray_session.connected(address, workers=2) as workers:
            extractor = RayExtractor(
                _Slow(seconds),
                workers,
                settings=local.settings,
                fingerprint=local.fingerprint,
                dimension=local.dimension,
            )
            extraction_job.run(extractor, [photos], out, options=JobOptions(part_photos=ground.PART_PHOTOS))
    except DelfError as error:
        print(error, file=sys.stderr, flush=True)
        raise SystemExit(2) from None


class _Slow:
    """Loads an extractor that takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> FakeExtractor:
        return FakeExtractor(seconds=self.seconds)


@contextmanager
def cluster(nodes: int) -> Iterator[Any]:
    """A Ray cluster of so many nodes with one core each, every node in processes of its own."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            made.add_node(num_cpus=1)
        yield made
    finally:
        made.shutdown()


def _wait_for_parts(store: Path, count: int, process: Any) -> None:
    end = time.monotonic() + 240
    while ground.parts(store) < count:
        if not process.is_alive() or time.monotonic() > end:
            raise RuntimeError("the job on Ray made no progress")
        time.sleep(0.01)


def _recovered(store: Path, process: Any, tally: Tally) -> None:
    """Notes the time until the next part after a fault under which the job goes on."""
    before, begin = ground.parts(store), time.monotonic()
    while process.is_alive() and ground.parts(store) == before:
        time.sleep(0.01)
    tally.seconds.append(time.monotonic() - begin)


def kill_worker(times: int, folder: Path, rng: random.Random) -> Tally:
    """kill -9 of a worker process at work, over and over in one job."""
    tally = Tally("kill -9 of a Ray worker")
    photos, store = ground.save_photos(folder / "photos", _PHOTOS), folder / "store"
    process = ground.start(photos, store, seconds=_SECONDS, target=extract_on_ray, args=("local",))
    _wait_for_parts(store, 1, process)
    while tally.tried < times and process.is_alive():
        workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "MapWorker" in " ".join(_line(p))]
        if workers:
            rng.choice(workers).send_signal(signal.SIGKILL)
            tally.tried += 1
            _recovered(store, process, tally)
    process.join()
    tally.notes["the job went on"] += (process.exitcode == 0) * tally.tried
    ground.finish(photos, store, tally)
    return tally


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def kill_node(times: int, folder: Path, rng: random.Random) -> Tally:
    """A node with one of the two workers goes away in the middle; another one comes in its place."""
    tally = Tally("a Ray node dies")
    photos = ground.save_photos(folder / "photos", _PHOTOS)
    with cluster(2) as nodes:
        for number in range(times):
            store = folder / f"store{number}"
            process = ground.start(photos, store, seconds=_SECONDS, target=extract_on_ray, args=(nodes.address,))
            _wait_for_parts(store, 2, process)
            nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
            tally.tried += 1
            _recovered(store, process, tally)
            nodes.add_node(num_cpus=1)
            process.join()
            tally.notes["the job went on"] += process.exitcode == 0
            ground.finish(photos, store, tally)
    return tally


def kill_coordinator(times: int, folder: Path, rng: random.Random) -> Tally:
    """The process that runs the job dies, or the cluster's head: the same command goes on with a new cluster."""
    tally = Tally("kill -9 of the coordinator (the job, or the Ray head)")
    photos = ground.save_photos(folder / "photos", _PHOTOS)
    for number in range(times):
        store = folder / f"store{number}"
        process = ground.start(photos, store, seconds=_SECONDS, target=extract_on_ray, args=("local",))
        _wait_for_parts(store, 1, process)
        if number % 2:
            heads = [
                p for p in psutil.Process(process.pid).children(recursive=True) if "gcs_server" in " ".join(_line(p))
            ]
            heads[0].send_signal(signal.SIGKILL)
            process.join(120)
            tally.notes["the head's death ends the job"] += not process.is_alive()
        left = psutil.Process(process.pid).children(recursive=True) if process.is_alive() else []
        ground.kill(process)
        tally.tried += 1
        psutil.wait_procs(left, timeout=60)
        ground.finish(photos, store, tally, target=extract_on_ray, args=("local",))
    return tally


Fault = Callable[[int, Path, random.Random], Tally]
FAULTS: dict[str, tuple[Fault, int]] = {
    "worker": (kill_worker, 4),
    "node": (kill_node, 3),
    "coordinator": (kill_coordinator, 4),
}
