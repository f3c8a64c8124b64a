"""What the settings of the extraction bring, against what they cost: scales, sizes of photos, numbers of features.

    python -m benchmarks.frontier --json benchmarks/results/frontier.json --plot docs/images/frontier.svg

Photos: as ``benchmarks.accuracy``. ``buildings`` are 60 queries of 640x480, which were looked at during development:
presets are chosen on them and checked on the others. ``phototourism`` are 23 larger photos of five landmarks, the only
ones that tell sizes above 640 apart. ``landmarks`` are photos of 28 landmarks, 384 pixels wide; the packaged attention
was trained on other photos of these. At first 20 photos are verified for each query. Of ``buildings``, settings that
come near the best are then measured as ``search`` does it, with 100, and asked about strangers too. Cost is that of a
photo that fills 4:3 of ``max_side``, in one process, after compiling.

Accepted is a log10 NFA of at most -2, a limit that does not change with the calibration of the head; the JSON has the
confidences, so any other limit can be counted. It takes hours on two cores. A run with the same ``--json`` goes on
where the last one was stopped.
"""

import dataclasses
import functools
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from tyro.conf import arg

import delf_jax
from benchmarks import datasets, frontier_points, plots, results_file, scoring
from benchmarks.accelerators_products import products
from benchmarks.command_line import run
from benchmarks.frontier_points import Photos, Point
from benchmarks.ranking import Answers, Search, ask
from benchmarks.throughput_cases import fitted
from delf_cli.environment import start_jax
from delf_jax.errors import DelfError
from delf_jax.photos.load import load_photo

_NUMBERS = ("top1", "map", "accepted_right", "accepted_wrong", "strangers_accepted", "queries", "surest_strangers")
_TIMED_PHOTOS = 3
_THRESHOLD = -2.0
_NEAR_QUERIES = 3
_FIRST_VERIFIED, _VERIFIED = 20, 100
_COLUMNS = {
    "photos": "{}",
    "max_side": "{}",
    "scales": "{}",
    "features": "{}",
    "features_found": "{:.0f}",
    "gflop": "{:.0f}",
    "core_seconds": "{:.2f}",
    "verify": "{}",
    "top1": "{:.1f}",
    "accepted_right": "{:.1f}",
    "accepted_wrong": "{}",
    "strangers_accepted": "{}",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures accuracy against cost over the settings of the extraction.

    Attributes:
        data: folder of the photos with ground truth (default: $DELF_SHARED).
        json: also write the results to this file, after each measurement.
        plot: draw accuracy against cost into this SVG file.
        cache: folder where features are kept between runs.
    """

    data: Path | None = None
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    plot: Annotated[Path | None, arg(metavar="FILE")] = None
    cache: Path = Path(".cache/frontier")


def main(options: Options) -> list[dict[str, Any]]:
    """Measures every point, prints the table, and returns its rows."""
    data = datasets.data_folder(options.data)
    buildings = datasets.smvs(data)
    experiments = {
        "buildings": (buildings, frontier_points.buildings()),
        "landmarks": (frontier_points.landmark_photos(data), frontier_points.landmarks()),
        "phototourism": (datasets.phototourism(data), frontier_points.phototourism()),
    }
    settings = {"log10_nfa": _THRESHOLD, "weights": delf_jax.load().fingerprint, "timed_photos": _TIMED_PHOTOS}
    rows = _measured_before(options.json, settings)
    for name, (experiment, points) in experiments.items():
        photos, known = Photos(experiment.photos, options.cache), dataclasses.replace(experiment, strangers=None)
        for point in points:
            if all(row["photos"] != name or _point(row) != point for row in rows):
                search = Search(verify=_FIRST_VERIFIED, threshold=_THRESHOLD, max_side=point.max_side)
                rows.append({"photos": name, **dataclasses.asdict(point), "gflop": arithmetic(point)})
                rows[-1] |= accuracy(known, photos.at(point), search)
                _write(options, rows, settings)
    photos = Photos(buildings.photos, options.cache)
    here = [row for row in rows if row["photos"] == "buildings"]
    for row in near_the_best(here, len(buildings.known.queries)):
        if row["verify"] < _VERIFIED:
            search = Search(verify=_VERIFIED, threshold=_THRESHOLD, max_side=row["max_side"])
            row |= accuracy(buildings, photos.at(_point(row)), search)
            _write(options, rows, settings)
    for row in rows:
        if "core_seconds" not in row:
            row["core_seconds"] = _core_seconds(row["max_side"], tuple(row["scales"]), buildings.known.queries[0])
            _write(options, rows, settings)
    print(table(rows))
    if options.plot is not None:
        plot(options.plot, rows)
    return rows


def near_the_best(rows: Sequence[dict[str, Any]], queries: int) -> list[dict[str, Any]]:
    """The rows within three queries of the best, the cheapest first."""
    least = max(row["accepted_right"] for row in rows) - 100 * (_NEAR_QUERIES + 0.5) / queries
    return sorted((row for row in rows if row["accepted_right"] >= least), key=lambda row: row["gflop"])


def accuracy(experiment: datasets.Experiment, features: Mapping[Path, Any], search: Search) -> dict[str, Any]:
    """The numbers of ``benchmarks.accuracy`` that a choice of settings is about."""
    begin = time.perf_counter()
    known, unknown = ask(experiment.known, features, None, search), Answers([], [])
    if experiment.strangers is not None:
        unknown = ask(experiment.strangers, features, None, search)
    numbers = scoring.verified(experiment, known, unknown, threshold=search.threshold)
    if experiment.strangers is None:
        numbers["strangers_accepted"] = None
    queries = [len(features[photo]) for photo in experiment.known.queries]
    found = {"verify": search.verify, "features_found": float(np.mean(queries))}
    found |= {name: numbers[name] for name in _NUMBERS}
    print(f"{found}, {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return found


def arithmetic(point: Point) -> float:
    """GFLOP of the products of the program, for one photo of 4:3."""
    extractor = delf_jax.load(max_side=point.max_side, scales=point.scales, batch_size=1)
    size = point.max_side * 3 // 4, point.max_side
    pixels = np.zeros((1, *size, 3), np.uint8)
    traced = jax.make_jaxpr(extractor.apply)(extractor.params, pixels, np.array([size], np.int32))
    return sum(each.times * each.flop for each in products(traced.jaxpr, "cpu")) / 1e9


@functools.cache
def _core_seconds(max_side: int, scales: tuple[float, ...], photo: Path) -> float:
    """Processor seconds from pixels to features of the photo, fitted to 4:3 of ``max_side``."""
    extractor = delf_jax.load(max_side=max_side, scales=scales, batch_size=1)
    pixels = fitted(load_photo(photo, max_side=None).pixels, (max_side * 3 // 4, max_side))
    extractor([pixels])
    seconds = []
    for _ in range(_TIMED_PHOTOS):
        begin = time.process_time()
        extractor([pixels])
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds)


def _measured_before(path: Path | None, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of an earlier run.

    Raises:
        DelfError: it had other settings; its rows would be lost.
    """
    if path is None or not path.exists():
        return []
    document = json.loads(path.read_text())
    if document["settings"] != settings:
        raise DelfError(f"{path}: measured with other settings ({document['settings']}); give --json another name")
    rows: list[dict[str, Any]] = document["rows"]
    return rows


def _point(row: Mapping[str, Any]) -> Point:
    return Point(row["max_side"], tuple(row["scales"]), row["features"])


def _write(options: Options, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    if options.json is not None:
        results_file.write(options.json, "frontier", rows, settings)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as plain text."""
    lines = [list(_COLUMNS)]
    for row in rows:
        shown = {**row, "scales": " ".join(f"{scale:g}" for scale in row["scales"])}
        lines.append(
            [form.format(shown[name]) if shown.get(name) is not None else "-" for name, form in _COLUMNS.items()]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines)


def plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Accepted and right against GFLOP: sets of scales on the buildings, sizes on the larger photos."""
    panels = []
    for photos, title in (
        ("buildings", "60 buildings, by scales"),
        ("phototourism", "23 larger photos, by --max-side"),
    ):
        lines: dict[str, list[tuple[float, float]]] = {}
        shown = [row for row in rows if (row["photos"], row["features"]) == (photos, 1000)]
        for row in sorted(shown, key=lambda row: row["gflop"]):
            kind = f"scales up to {max(row['scales']):g}" if photos == "buildings" else f"{row['max_side']} pixels"
            lines.setdefault(kind, []).append((row["gflop"], row["accepted_right"]))
        if shown:
            across = plots.steps(0, int(max(row["gflop"] for row in shown)), 5)
            up = range(0, 101, 20)
            panels.append(plots.Panel(title, "GFLOP a photo", "right and accepted, %", across, up, lines, marks=True))
    plots.write(path, panels, title="What extraction brings against what it costs")


if __name__ == "__main__":
    start_jax()
    run(main, Options, __doc__)
