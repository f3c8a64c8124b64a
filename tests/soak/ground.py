"""Where faults happen: photos, a job in a process of its own, and the count of rows that should be there."""

import collections
import dataclasses
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from delf_jax.errors import DelfError
from delf_jax.job import JobOptions, extraction_job
from delf_jax.photos.load import load_photo
from delf_jax.store import commit_log
from delf_jax.store.reader import FeatureStore
from tests.delf_jax.fake_extractor import FakeExtractor, features_of

PART_PHOTOS = 4
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["delf_cli.main", "delf_jax.job.extraction_job", "tests.soak.ground"])


@dataclasses.dataclass
class Tally:
    """What one kind of fault cost.

    Attributes:
        fault: its name.
        tried: times it was brought about.
        lost: photos without a row after the job was given again.
        doubled: photos with two rows.
        wrong: rows that do not have the features of their photo.
        seconds: each time, from giving the job again to the first new part; nothing where all was done already.
        notes: what else was to be proven and held, by name: how often.
    """

    fault: str
    tried: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    seconds: list[float] = dataclasses.field(default_factory=list)
    notes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def to_json(self) -> dict[str, Any]:
        """What the line of the table is made of."""
        return {
            "fault": self.fault,
            "tried": self.tried,
            "rows_lost": self.lost,
            "rows_doubled": self.doubled,
            "rows_wrong": self.wrong,
            "notes": dict(self.notes),
            "recovery_seconds": [round(seconds, 2) for seconds in self.seconds],
        }


def save_photos(folder: Path, count: int) -> Path:
    """Small photos of noise."""
    folder.mkdir(parents=True)
    for seed in range(count):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed:04d}.png")
    return folder


def count_rows(tally: Tally, store: str | Path, photos: Path) -> None:
    """Compares a store with the photos that it should have, by features that are known from the pixels."""
    rows = list(FeatureStore.open(store))
    names = collections.Counter(row.path for row in rows)
    wanted = {str(path) for path in photos.iterdir()}
    tally.lost += len(wanted - names.keys())
    tally.doubled += sum(count - 1 for count in names.values())
    tally.wrong += len(names.keys() - wanted)
    for row in rows:
        truth = features_of(load_photo(row.path, max_side=None).pixels, 5)
        same = np.allclose(row.features.descriptors, truth.descriptors, atol=1e-3)
        tally.wrong += not (same and np.array_equal(row.features.keypoints, truth.keypoints))


def parts(store: str | Path) -> int:
    """Parts of a store; 0 where there is none."""
    try:
        return len(FeatureStore.open(store)._manifest.parts)
    except DelfError:
        return 0


def extract(photos: str, out: str, seconds: float = 0.0) -> None:
    """The job, in whichever process; exit code 2 with one line on stderr where it is refused."""
    try:
        commit_log.MOST_CHANGES = 3  # so that these few parts make several snapshots
        extraction_job.run(FakeExtractor(seconds=seconds), [photos], out, options=JobOptions(part_photos=PART_PHOTOS))
    except DelfError as error:
        print(error, file=sys.stderr, flush=True)
        raise SystemExit(2) from None


def start(photos: Path, out: str | Path, *, seconds: float = 0.0, target: Any = extract, args: Any = ()) -> BaseProcess:
    """Starts the job in a process of its own, forked from one that has imported everything."""
    process = SERVER.Process(target=target, args=(str(photos), str(out), seconds, *args))
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    """kill -9."""
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()


def finish(photos: Path, out: str | Path, tally: Tally, *, target: Any = extract, args: Any = ()) -> None:
    """Gives the job again, to its end, notes how long the first new part took, and counts the rows."""
    before, begin = parts(out), time.monotonic()
    process = start(photos, out, target=target, args=args)
    while process.is_alive() and parts(out) == before:
        time.sleep(0.005)
    if parts(out) > before:
        tally.seconds.append(time.monotonic() - begin)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{tally.fault}: the job given again ended with {process.exitcode}")
    count_rows(tally, out, photos)


def fresh_copy(good: Path, place: Path) -> Path:
    """A copy of a folder, in place of an older one."""
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(good, place))


def damaged_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(how, file) for every way to damage every file."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            for how in ("bit flipped", "cut short", "missing"):
                yield how, path


def damage(path: Path, how: str, at: float) -> None:
    """Damages a file at a share of its length."""
    data = bytearray(path.read_bytes() or b" ")
    if how == "missing":
        path.unlink()
    elif how == "cut short":
        path.write_bytes(data[: int(len(data) * at)])
    elif data:  # an empty file has no bit to flip
        data[min(int(len(data) * at), len(data) - 1)] ^= 1 << int(at * 997) % 8
        path.write_bytes(data)
