"""Faults of one machine, its disk, its clock and its object store."""

import errno
import itertools
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

import retrieval
from delf_jax.errors import SearchIndexError
from delf_jax.files import atomic
from delf_jax.store.reader import FeatureStore
from delf_jax.store.repair import repair
from tests.soak import changers, ground
from tests.soak.faulty_files import FaultyFiles
from tests.soak.ground import Tally


def kill_job(tries: int, folder: Path, rng: random.Random) -> Tally:
    """kill -9 at any instant, over and over on one store; a store is begun anew once it is full."""
    tally = Tally("kill -9 of the job")
    photos = ground.save_photos(folder / "photos", 12 * tries)
    full, number = 3 * tries, 0  # parts
    while tally.tried < tries:
        store = folder / f"store{number}"
        process = ground.start(photos, store, seconds=0.02)
        time.sleep(rng.uniform(0.0, 1.2))
        if process.is_alive():
            tally.tried += 1
            ground.kill(process)
        process.join()
        if store.exists() and tally.tried < tries:
            before, begin = ground.parts(store), time.monotonic()
            process = ground.start(photos, store, seconds=0.02)
            while process.is_alive() and ground.parts(store) == before:
                time.sleep(0.002)
            if ground.parts(store) > before:
                tally.seconds.append(time.monotonic() - begin)
            tally.tried += process.is_alive()
            ground.kill(process)
        if ground.parts(store) == full or tally.tried >= tries:
            ground.finish(photos, store, tally)
            number += 1
    return tally


def two_jobs(tries: int, folder: Path, rng: random.Random) -> Tally:
    """Two jobs on one store at once: one is refused, the other does everything."""
    tally = Tally("two jobs on one store")
    photos = ground.save_photos(folder / "photos", 16)
    for number in range(tries):
        store = folder / f"store{number}"
        both = [ground.start(photos, store, seconds=0.02) for _ in range(2)]
        for process in both:
            process.join()
        tally.tried += 1
        tally.notes["one refused"] += sorted(process.exitcode for process in both) == [0, 2]
        ground.count_rows(tally, store, photos)
    return tally


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Path]:
    """A file system of so many KiB; PermissionError where this process may not mount one."""
    place = folder / "disk"
    place.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        raise PermissionError(mounted.stderr)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True, capture_output=True)


def full_disk(tries: int, folder: Path, rng: random.Random) -> Tally:
    """A disk that fills up at any point; later there is room."""
    tally = Tally("full disk (tmpfs of some KiB)")
    photos = ground.save_photos(folder / "photos", 40)
    while tally.tried < tries:
        with small_disk(folder, rng.randrange(16, 112, 4)) as disk:
            process = ground.start(photos, disk / "store")
            process.join()
            tally.tried += process.exitcode != 0
            tally.notes["said in one line"] += process.exitcode == 2
            if (disk / "store" / "manifest.json").exists():
                tally.lost += len(FeatureStore.open(disk / "store").check())
            _remount(disk, "size=8m")
            ground.finish(photos, disk / "store", tally)
    return tally


def read_only(tries: int, folder: Path, rng: random.Random) -> Tally:
    """A disk that can only be read, from the beginning or, as after an error, from some write on."""
    tally = Tally("read-only output")
    photos = ground.save_photos(folder / "photos", 40)
    for number in range(tries):
        store = folder / f"store{number}"
        # A disk cannot be made read-only under an open lock; what the kernel says when an error does it can be said.
        process = ground.start(photos, store, target=_extract_read_only, args=(rng.randrange(22),))
        process.join()
        tally.tried += 1
        tally.notes["said in one line"] += process.exitcode == 2
        ground.finish(photos, store, tally)
    return tally


def _extract_read_only(photos: str, out: str, seconds: float, after: int) -> None:
    sync, synced = atomic.sync, itertools.count()

    def fail_later(path: str) -> None:
        if next(synced) >= after:
            raise OSError(errno.EROFS, "Read-only file system", path)
        sync(path)

    with mock.patch("delf_jax.files.atomic.sync", fail_later):
        ground.extract(photos, out, seconds)


def failing_store(tries: int, folder: Path, rng: random.Random) -> Tally:
    """An object store that is slow, fails, or fails after it did what it was asked."""
    tally = Tally("failing and slow object store")
    photos = ground.save_photos(folder / "photos", 24)
    for number in range(tries):
        address = f"{FaultyFiles.protocol}://{folder}/store{number}"
        failed = True
        while failed:
            before, begin = ground.parts(folder / f"store{number}"), time.monotonic()
            process = ground.start(photos, address, target=_extract_faulty, args=(0.03, rng.randrange(1 << 30)))
            while process.is_alive() and ground.parts(folder / f"store{number}") == before:
                time.sleep(0.005)
            if before and ground.parts(folder / f"store{number}") > before:
                tally.seconds.append(time.monotonic() - begin)
            process.join()
            failed = process.exitcode != 0
            tally.tried += failed
            tally.notes["said in one line"] += process.exitcode == 2
        ground.finish(photos, folder / f"store{number}", tally)
    return tally


def _extract_faulty(photos: str, out: str, seconds: float, share: float, seed: int) -> None:
    FaultyFiles.install(share=share, seed=seed, seconds=0.002)
    ground.extract(photos, out, seconds)


def clock_jumps(tries: int, folder: Path, rng: random.Random) -> Tally:
    """The clock of the job jumps by up to a day, also back, while another computer looks at its lease."""
    tally = Tally("clock jumps")
    photos = ground.save_photos(folder / "photos", 16)
    for number in range(tries):
        store = folder / f"store{number}"
        jump = rng.choice((-1, 1)) * rng.uniform(1, 86_400)
        address = f"{FaultyFiles.protocol}://{store}"  # without the kernel's lock: the lease alone
        first = ground.start(photos, address, seconds=0.03, target=_extract_with_clock, args=(0.0,))
        time.sleep(rng.uniform(0.0, 0.9))
        second = ground.start(photos, address, seconds=0.03, target=_extract_with_clock, args=(jump,))
        codes = []
        for process in (first, second):
            process.join()
            codes.append(process.exitcode)
        tally.tried += 1
        tally.notes["never half"] += FeatureStore.open(store).check() == []
        tally.notes["said in one line"] += set(codes) <= {0, 2}
        (store / "lease.json").unlink(missing_ok=True)
        ground.finish(photos, store, tally)
    return tally


def _extract_with_clock(photos: str, out: str, seconds: float, jump: float) -> None:
    FaultyFiles.install(share=0.0, seed=0, seconds=0.0)
    now = time.time
    elsewhere = mock.patch("socket.gethostname", return_value=f"{jump:+} s")
    with elsewhere, mock.patch("time.time", side_effect=lambda: now() + jump):
        ground.extract(photos, out, seconds)


def damaged_store(tries: int, folder: Path, rng: random.Random) -> Tally:
    """Bits flip, files are cut short or go missing: named, dropped by --repair, and computed again."""
    tally = Tally("damaged part")
    photos, good = ground.save_photos(folder / "photos", 24), folder / "good"
    ground.finish(photos, good, Tally("setup"))
    for number in range(tries):
        store = ground.fresh_copy(good, folder / "store")
        path = rng.choice(sorted((store / "parts").iterdir()))
        ground.damage(path, ("bit flipped", "cut short", "missing")[number % 3], rng.random())
        tally.tried += 1
        tally.notes["named"] += [found.name for found in FeatureStore.open(store).check()] == [path.name]
        repair(store)
        rest = [row.path for row in FeatureStore.open(store)]
        tally.notes["the rest is usable"] += len(rest) == 24 - ground.PART_PHOTOS
        ground.finish(photos, store, tally)
    return tally


def damaged_index(tries: int, folder: Path, rng: random.Random) -> Tally:
    """The same in an index: refused by name, built again from the store."""
    tally = Tally("damaged index")
    photos, store, good = ground.save_photos(folder / "photos", 12), folder / "store", folder / "good"
    ground.finish(photos, store, Tally("setup"))
    retrieval.Index.build(FeatureStore.open(store), backend="exact").save(good)
    files = [path.name for path in sorted(good.iterdir()) if path.is_file()]
    for number in range(tries):
        index = ground.fresh_copy(good, folder / "index")
        name = rng.choice(files)
        ground.damage(index / name, ("bit flipped", "cut short", "missing")[number % 3], rng.random())
        tally.tried += 1
        try:
            retrieval.Index.open(index)
        except SearchIndexError as error:
            tally.notes["named"] += name in str(error)
        begin = time.monotonic()
        shutil.rmtree(index)
        retrieval.Index.build(FeatureStore.open(store), backend="exact").save(index)
        opened = retrieval.Index.open(index)
        tally.seconds.append(time.monotonic() - begin)
        wanted = {row.path for row in FeatureStore.open(store)}
        tally.lost += len(wanted - set(opened.names))
        tally.doubled += len(opened.names) - len(set(opened.names))
        for row in FeatureStore.open(store):
            tally.wrong += not np.array_equal(opened.features(row.path).keypoints, row.features.keypoints)
    return tally


def damaged_small_files(tries: int, folder: Path, rng: random.Random) -> Tally:
    """Manifest, run reports and list of failures: left out or made anew by check, and parts never lost by it."""
    tally = Tally("damaged manifest or report")
    photos, good = ground.save_photos(folder / "photos", 12), folder / "good"
    ground.finish(photos, good, Tally("setup"))
    others = [found for found in ground.damaged_files(good) if found[1].parent.name != "parts"]
    for number in range(tries):
        store = ground.fresh_copy(good, folder / "store")
        how, path = others[number % len(others)]
        ground.damage(store / path.relative_to(good), how, rng.random())
        tally.tried += 1
        repair(store)
        rest = [row.path for row in FeatureStore.open(store)]
        tally.notes["repaired with all rows"] += FeatureStore.open(store).check() == [] and len(rest) == 12
        ground.finish(photos, store, tally)
    return tally


Fault = Callable[[int, Path, random.Random], Tally]
FAULTS: dict[str, tuple[Fault, int]] = {
    "kill": (kill_job, 100),
    "two": (two_jobs, 20),
    "full": (full_disk, 20),
    "readonly": (read_only, 20),
    "objects": (failing_store, 10),
    "clock": (clock_jumps, 20),
    "parts": (damaged_store, 60),
    "index": (damaged_index, 60),
    "small": (damaged_small_files, 40),
    "changers": (changers.one_index, 120),  # seconds
    "changers_of_shards": (changers.sharded_index, 120),
}
