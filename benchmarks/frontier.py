"""What the settings of the extraction bring, against what they cost: scales, sizes of photos, numbers of features.

    python -m benchmarks.frontier --json benchmarks/results/frontier.json --plot docs/images/frontier.svg

Photos: as ``benchmarks.accuracy``. ``buildings`` are 60 queries of 640x480, which were looked at during development:
presets are chosen on them, and what they promise has to be measured on other photos. They say nothing of a ``max_side``
above 640; the 23 larger photos of ``phototourism`` do. Cost is that of a photo that fills 4:3 of ``max_side``, in one
process, after compiling.
"""

import dataclasses
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
from benchmarks.ranking import Answers, Search, accepted_at, ask
from benchmarks.throughput_cases import fitted
from delf_cli.environment import start_jax
from delf_jax.photos.load import load_photo
from delf_jax.settings import DEFAULT_SCALES

_NUMBERS = ("top1", "map", "accepted_right", "accepted_wrong", "strangers_accepted", "recall_at_0")
_TIMED_PHOTOS = 5
_COLUMNS = {
    "photos": "{}",
    "max_side": "{}",
    "scales": "{}",
    "features": "{}",
    "features_found": "{:.0f}",
    "gflop": "{:.0f}",
    "core_seconds": "{:.2f}",
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
        json: also write the results to this file.
        plot: draw accuracy against cost into this SVG file.
        cache: folder where features are kept between runs.
        quick: only the default, at one size.
    """

    data: Path | None = None
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    plot: Annotated[Path | None, arg(metavar="FILE")] = None
    cache: Path = Path(".cache/frontier")
    quick: bool = False


def main(options: Options) -> list[dict[str, Any]]:
    """Measures every point, prints the table, and returns its rows."""
    data = datasets.data_folder(options.data)
    buildings, phototourism = datasets.smvs(data), dataclasses.replace(datasets.phototourism(data), strangers=None)
    experiments = {
        "buildings": (buildings, frontier_points.buildings()),
        "phototourism": (phototourism, frontier_points.landmarks()),
    }
    if options.quick:
        experiments = {"buildings": (buildings, [Point(480, DEFAULT_SCALES)])}
    example = load_photo(buildings.known.queries[0], max_side=None).pixels
    threshold = accepted_at(len(buildings.known.database))
    settings = {"log10_nfa": threshold, "scorer": "learned", "verify": 100, "timed_photos": _TIMED_PHOTOS}
    rows: list[dict[str, Any]] = []
    for name, (experiment, points) in experiments.items():
        photos = Photos(experiment.photos, options.cache)
        for point in points:
            begin = time.perf_counter()
            search = Search(verify=100, threshold=threshold, max_side=point.max_side)
            numbers = accuracy(experiment, photos.at(point), search)
            rows.append({"photos": name, **dataclasses.asdict(point), "gflop": arithmetic(point), **numbers})
            print(f"{rows[-1]}, {time.perf_counter() - begin:.0f} s", file=sys.stderr)
            _write(options, rows, settings)
    for row, seconds in zip(rows, timed([(row["max_side"], row["scales"]) for row in rows], example), strict=True):
        row["core_seconds"] = seconds
    _write(options, rows, settings)
    print(table(rows))
    if options.plot is not None:
        plot(options.plot, rows)
    return rows


def accuracy(experiment: datasets.Experiment, features: Mapping[Path, Any], search: Search) -> dict[str, Any]:
    """The numbers of ``benchmarks.accuracy`` that a choice of settings is about."""
    known = ask(experiment.known, features, None, search)
    strangers = experiment.strangers
    unknown = Answers([], []) if strangers is None else ask(strangers, features, None, search)
    numbers = scoring.verified(experiment, known, unknown, threshold=search.threshold)
    if strangers is None:
        numbers |= {"strangers_accepted": None, "recall_at_0": None}
    queries = [len(features[photo]) for photo in experiment.known.queries]
    return {"features_found": float(np.mean(queries))} | {name: numbers[name] for name in _NUMBERS}


def arithmetic(point: Point) -> float:
    """GFLOP of the products of the program, for one photo of 4:3."""
    extractor = delf_jax.load(max_side=point.max_side, scales=point.scales, batch_size=1)
    size = point.max_side * 3 // 4, point.max_side
    pixels = np.zeros((1, *size, 3), np.uint8)
    traced = jax.make_jaxpr(extractor.apply)(extractor.params, pixels, np.array([size], np.int32))
    return sum(each.times * each.flop for each in products(traced.jaxpr, "cpu")) / 1e9


def timed(settings: Sequence[tuple[int, tuple[float, ...]]], photo: np.ndarray) -> list[float]:
    """Processor seconds from pixels to features of one photo of 4:3, for each (``max_side``, ``scales``)."""
    seconds: dict[tuple[int, tuple[float, ...]], float] = {}
    for max_side, scales in dict.fromkeys(settings):
        extractor = delf_jax.load(max_side=max_side, scales=scales, batch_size=1)
        pixels = fitted(photo, (max_side * 3 // 4, max_side))
        extractor([pixels])
        passed = []
        for _ in range(_TIMED_PHOTOS):
            begin = time.process_time()
            extractor([pixels])
            passed.append(time.process_time() - begin)
        seconds[max_side, scales] = statistics.median(passed)
    return [seconds[one] for one in settings]


def _write(options: Options, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    if options.json is not None:
        results_file.write(options.json, "frontier", rows, settings)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as plain text."""
    lines = [list(_COLUMNS)]
    for row in rows:
        shown = {**row, "scales": " ".join(f"{scale:g}" for scale in row["scales"])}
        lines.append([form.format(shown[name]) for name, form in _COLUMNS.items()])
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines)


def plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Accepted and right against GFLOP, and against the number of features, on the buildings."""
    shown = sorted((row for row in rows if row["photos"] == "buildings"), key=lambda row: row["gflop"])
    by_cost: dict[str, list[tuple[float, float]]] = {}
    by_features: dict[str, list[tuple[float, float]]] = {}
    for row in shown:
        place = row["accepted_right"]
        if row["features"] == 1000:
            small = "" if row["max_side"] == 640 else f", {row['max_side']} pixels"
            by_cost.setdefault(f"largest scale {max(row['scales']):g}{small}", []).append((row["gflop"], place))
        if row["max_side"] == 640:
            name = " ".join(f"{scale:g}" for scale in row["scales"])
            by_features.setdefault(name, []).append((row["features"], place))
    few = {name: sorted(points) for name, points in by_features.items() if len(points) > 1}
    panels = [
        plots.Panel(title, label, "right and accepted, %", ticks, range(0, 101, 20), lines, marks=True)
        for title, label, ticks, lines in (
            ("Scales, 1000 features", "GFLOP a photo", plots.steps(0, int(shown[-1]["gflop"]), 5), by_cost),
            ("Features, 640 pixels", "most features a photo", (0, 100, 300, 600, 1000), few),
        )
    ]
    plots.write(path, panels, title="60 development buildings")


if __name__ == "__main__":
    start_jax()
    run(main, Options, __doc__)
