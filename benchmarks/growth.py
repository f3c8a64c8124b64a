"""Time and memory for growing numbers of photos and descriptors.

    python -m benchmarks.growth --full --model FOLDER --model-name "random, 8 channels" --json growth.json

Photos: the packaged photos.

Every row is measured in a process of its own. Extraction and fitting read JPEG tiles of 160 x 120 pixels, cut from the
packaged photos. Their memory may grow with the number of photos, whatever the model is. So a small model (one that
``tests.tiny_model`` writes) leaves time for more photos. Indexes hold 100 features per photo: real features of the
packaged photos, seen from other viewpoints and with noise (``growth_photos.warped``), because extracting so many would
take too long. Groups are of places with ten views each (``growth_photos.views_of_places``).
"""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from benchmarks import growth_photos, growth_probe, results_file
from benchmarks.command_line import run
from delf_cli.environment import start_jax

Part = Literal["extract", "fit-localizer", "index", "group"]
Rows = list[dict[str, Any]]

# Photos of extraction and fitting; what takes longest comes last.
_QUICK, _FULL = ((100, 1000),), ((1000, 10_000), (100_000,))
# Photos of each index, and its shards; 0 is one index.
_INDEXES = ((1000, 0), (1000, 4), (10_000, 0), (10_000, 4))
_LARGE_INDEXES = ((50_000, 0), (100_000, 10))
_GROUPED = (1000, 10_000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures time and memory for growing data.

    Attributes:
        json: also write the results to this file, after every row.
        full: use up to 100 000 photos (extraction and fitting then take hours, unless the model is small), an index of
            5 million descriptors (10 GB of memory), and one of 10 million in ten shards.
        parts: measure only these parts; ``index`` includes search.
        model: name or folder of the model for extraction and fitting.
        model_name: name of the model in the results (default: as in ``model``).
        work: folder for photos, features and indexes (12 GB with --full).
    """

    json: Annotated[Path | None, arg(metavar="FILE")] = None
    full: bool = False
    parts: tuple[Part, ...] = ("extract", "fit-localizer", "index", "group")
    model: str = "delf-r50"
    model_name: str | None = None
    work: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: a temporary folder)")] = None


def main(options: Options) -> Rows:
    """Measures the chosen parts, prints the table, and returns its rows."""
    start_jax()
    described = {
        "full": options.full,
        "model": options.model_name or options.model,
        "parts": options.parts,
        "cores": len(os.sched_getaffinity(0)),
    }
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        data = Path(folder)
        rows: Rows = []
        passes = [_passes(options, data, counts) for counts in (_FULL if options.full else _QUICK)]
        for row in itertools.chain(passes[0], _indexes(options, data), _groups(options, data), *passes[1:]):
            rows.append(row)
            print(table([row]), file=sys.stderr, flush=True)
            if options.json is not None:
                results_file.write(options.json, "growth", rows, described)
    print(table(rows))
    return rows


def _passes(options: Options, data: Path, counts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Extraction and fitting."""
    if {"extract", "fit-localizer"} & set(options.parts):
        for count in counts:
            growth_photos.write_tiles(data / f"tiles-{count}", count)
    passes: tuple[tuple[Part, bool], ...] = (("extract", False), ("fit-localizer", False), ("fit-localizer", True))
    for part, points in passes:
        for count in counts if part in options.parts else ():
            probe = growth_probe.Options(part=part, photos=count, data=data, model=options.model, points=points)
            row = {"part": part} | ({"points": growth_probe.MAX_POINTS if points else 0} if part != "extract" else {})
            photos = {"photos": count, "photos_are": "JPEG tiles of 160 x 120 of real photos"}
            yield row | photos | {"model": options.model_name or options.model} | _of_process(probe)


def _indexes(options: Options, data: Path) -> Iterator[dict[str, Any]]:
    """Indexing and search."""
    if "index" not in options.parts:
        return
    growth_photos.save_features(data / "features.npz", growth_photos.real_features())
    for count, shards in (*_INDEXES, *(_LARGE_INDEXES if options.full else ())):
        for part in ("index", "search"):
            probe = growth_probe.Options(part=part, photos=count, data=data, shards=shards)
            row = {"part": part, "photos": count, "shards": shards or 1}
            described = {"in_shards": bool(shards), "features_are": "real, seen from elsewhere, with noise"}
            yield row | described | _of_process(probe)


def _groups(options: Options, data: Path) -> Iterator[dict[str, Any]]:
    """Groups of an index in memory: what comes after it is there."""
    if "group" not in options.parts:
        return
    growth_photos.save_features(data / "features.npz", growth_photos.real_features())
    for count in _GROUPED:
        described = {"part": "group", "photos": count, "views_of_a_place": growth_photos.VIEWS}
        yield described | _of_process(growth_probe.Options(part="group", photos=count, data=data))


def _of_process(options: growth_probe.Options) -> dict[str, Any]:
    values = dataclasses.asdict(options)
    arguments = [str(values.pop("part"))]
    for name, value in values.items():
        if value is not False:
            arguments += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth_probe", *arguments],
        cwd=Path(__file__).resolve().parent.parent,
        env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        capture_output=True,
        text=True,
    )
    if finished.returncode < 0:
        return {"failed": f"ended by {signal.Signals(-finished.returncode).name}; memory may not have sufficed"}
    if finished.returncode:
        return {"failed": finished.stderr.strip().splitlines()[-1]}
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text."""
    lines = []
    for row in rows:
        what = f"{row['part']} in {row['shards']} shards" if row.get("in_shards") else row["part"]
        if row.get("points"):
            what += f", {row['points']} points"
        cells = [f"{what:32}{row['photos']:>8} photos"]
        cells += [form.format(row[name]) for name, form in _CELLS.items() if name in row]
        lines.append("  ".join(cells))
    return "\n".join(lines)


_CELLS = {
    "descriptors": "{:>9} descriptors",
    "seconds": "{:8.1f} s",
    "core_seconds": "{:8.1f} core-s",
    "verified": "{:>8} pairs verified",
    "precision": "{:6.4f} precision",
    "recall": "{:6.4f} recall",
    "photos_per_s": "{:7.1f} photos/s",
    "seconds_to_open": "{:6.2f} s to open",
    "ms_votes": "{:7.1f} ms votes",
    "ms_query": "{:7.1f} ms a query",
    "before_megabytes": "{:6.0f} MB before",
    "open_megabytes": "{:6.0f} MB open",
    "peak_megabytes": "{:6.0f} MB at most",
    "disk_megabytes": "{:6.0f} MB on disk",
    "bytes_a_descriptor": "{:6.0f} bytes a descriptor",
    "failed": "failed: {}",
}


if __name__ == "__main__":
    run(main, Options, __doc__)
