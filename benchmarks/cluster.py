"""The cost of a Ray cluster on this machine, compared with the plain batch job.

    python -m benchmarks.cluster --json benchmarks/results/cluster.json

Photos: the packaged photos.

The plain job and the job on two workers with one core each take turns on the same JPEG files. Each turn extracts all of
them into a new store. The start is the time until the first answer: loading the model, starting the workers, loading
compiled programs from the cache. The steady rate is that of the photos after the first sixteen, when all workers have
answered.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import cv2
import numpy as np
from tyro.conf import arg

import delf_jax
from benchmarks import results_file
from benchmarks.command_line import run
from benchmarks.timing import spread
from delf_cli.demo import PHOTOS
from delf_cli.environment import keep_memory, start_jax
from delf_jax.job import JobOptions, extraction_job, ray_session
from delf_jax.job.ray_extractor import RayExtractor
from delf_jax.photos.load import load_photo
from delf_jax.settings import ExtractionSettings

_LIST = Path(__file__).parent / "lists" / "throughput_photos.txt"
_WARM_PHOTOS = 16
"""The first tasks of two workers."""

_SETTINGS = ExtractionSettings(max_side=480, scales=(1.0,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures the batch job in this process and on a Ray cluster.

    Attributes:
        json: also write the results to this file.
        photos: number of JPEG files, made from the packaged photos by shifting them.
        rounds: number of turns of each job.
        workers: number of workers of the cluster.
    """

    json: Annotated[Path | None, arg(metavar="FILE")] = None
    photos: int = 160
    rounds: int = 3
    workers: int = 2


class Turn(NamedTuple):
    """Seconds until each photo was answered, in the order of the answers."""

    seconds: list[float]

    def start(self) -> float:
        """Seconds until the first answer."""
        return self.seconds[0]

    def rate(self) -> float:
        """Photos per second, from when every worker has answered once to the end."""
        return (len(self.seconds) - _WARM_PHOTOS) / (self.seconds[-1] - self.seconds[_WARM_PHOTOS - 1])


def main(options: Options) -> list[dict[str, Any]]:
    """Measures and prints both jobs. Returns one row for each, and one that compares them."""
    start_jax()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = _photos(folder / "photos", options.photos)
        ways: dict[str, Callable[[Path], Turn]] = {
            "plain job": lambda out: _plain(photos, out),
            f"Ray, {options.workers} workers": lambda out: _on_ray(photos, out, options.workers),
        }
        turns: dict[str, list[Turn]] = {way: [] for way in ways}
        for number in range(options.rounds + 1):
            for way in list(ways) if number % 2 else reversed(ways):
                turn = ways[way](folder / f"{way} {number}")
                if number:  # programs are compiled and kept in the first
                    turns[way].append(turn)
    rows: list[dict[str, Any]] = []
    for way, taken in turns.items():
        rate, start = spread([turn.rate() for turn in taken]), spread([turn.start() for turn in taken])
        rows.append(
            {
                "way": way,
                "photos_per_s": rate.median,
                "photos_per_s_quartiles": rate[1:],
                "start_s": start.median,
                "start_s_quartiles": start[1:],
            }
        )
        print(
            f"{way:20} {rate.median:6.2f} photos/s ({rate.lower:.2f} to {rate.upper:.2f}), start {start.median:.1f} s"
        )
    plain, cluster = turns.values()
    ratio = spread([b.rate() / a.rate() for a, b in zip(plain, cluster)])
    rows.append({"way": "Ray / plain", "ratio": ratio.median, "ratio_quartiles": ratio[1:]})
    print(f"steady rate of Ray / plain job: {ratio.median:.2f} ({ratio.lower:.2f} to {ratio.upper:.2f})")
    if options.json is not None:
        described = {"photos": options.photos, "rounds": options.rounds, "workers": options.workers}
        results_file.write(options.json, "cluster", rows, described | {"settings": _SETTINGS.to_json()})
    return rows


def _plain(photos: Path, out: Path) -> Turn:
    begin = time.perf_counter()
    return _run(delf_jax.load(settings=_SETTINGS), photos, out, begin)


def _on_ray(photos: Path, out: Path, workers: int) -> Turn:
    begin = time.perf_counter()
    here = delf_jax.load(settings=_SETTINGS)
    with ray_session.connected("local", workers=workers) as room:
        extractor = RayExtractor(
            _load, room, settings=here.settings, fingerprint=here.fingerprint, dimension=here.dimension
        )
        return _run(extractor, photos, out, begin)


def _load() -> extraction_job.PhotoExtractor:
    keep_memory()
    start_jax()
    return delf_jax.load(settings=_SETTINGS)


def _run(extractor: extraction_job.PhotoExtractor, photos: Path, out: Path, begin: float) -> Turn:
    seconds: list[float] = []
    options = JobOptions(progress=lambda progress: seconds.append(time.perf_counter() - begin))
    extraction_job.run(extractor, [photos], out, options=options)
    return Turn(seconds)


def _photos(folder: Path, count: int) -> Path:
    """Writes ``count`` JPEG files: the packaged photos, shifted a little further in each copy."""
    folder.mkdir()
    sources = [load_photo(PHOTOS / name, max_side=480).pixels for name in _LIST.read_text().split()]
    for number in range(count):
        pixels = np.roll(sources[number % len(sources)], 7 * (number // len(sources)), axis=1)
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), pixels[:, :, ::-1])
    return folder


if __name__ == "__main__":
    keep_memory()  # as the command does
    run(main, Options, __doc__)
