"""Recall, time and memory of nearest-neighbour search and of whole queries, compared with faiss.

    python -m benchmarks.search --full --json benchmarks/results/search.json --plot docs/images/search.svg

Photos: those of the data folder if it is there, otherwise the packaged photos.

Each method runs with many settings, which gives its curve. Then the fastest setting of each method that finds 95 % of
the true 60 nearest neighbours (the number that ``Index.search`` asks for) is timed in turns with all the others: 1000
queries at once, and one at a time, on two threads. The last part splits a whole query, from photo to ranked answer,
into its stages.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float, Int
from tyro.conf import arg

from benchmarks import plots, results_file, search_descriptors, search_query
from benchmarks.command_line import run
from benchmarks.datasets import REPOSITORY
from benchmarks.errors import PeerMissing
from benchmarks.plots import Panel
from benchmarks.searchers import THREADS, Built, Method, measured_build, methods
from benchmarks.timing import seconds_of, spread, take_turns
from delf_cli.environment import start_jax
from retrieval.indexing.backends.exact_backend import ExactBackend

Part = Literal["neighbours", "query"]
Rows = list[dict[str, Any]]
Queries = Float[np.ndarray, "q d"]

OURS = "ScaNN"
NEIGHBOURS = 60
FEWER = 10
TARGET = 0.95
BATCH = 1000
BATCHES = 2
SINGLES = 400
TURNS = 4
PHOTOS = 8
# Slower ones are timed by their sweep alone.
SLOW_BATCH, SLOW_SINGLE = 2.0, 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures nearest-neighbour search.

    Attributes:
        json: also write the results to this file.
        plot: also draw the curves to this SVG file.
        full: index a million descriptors, and include the methods of faiss that are slow to build.
        descriptors: number of indexed descriptors (default: 200 000, or a million with --full).
        parts: measure only these parts.
        rounds: number of turns of every method.
        data: folder of the photos with ground truth; without it warped copies of the packaged photos are used.
        cache: folder where descriptors are kept.
    """

    json: Annotated[Path | None, arg(metavar="FILE")] = None
    plot: Annotated[Path | None, arg(metavar="FILE")] = None
    full: bool = False
    descriptors: int | None = None
    parts: tuple[Part, ...] = ("neighbours", "query")
    rounds: int = 5
    data: Annotated[Path | None, arg(metavar="DIR")] = None
    cache: Annotated[Path, arg(metavar="DIR")] = REPOSITORY / ".cache" / "search"


def main(options: Options) -> Rows:
    """Measures the chosen parts, prints tables, and returns their rows."""
    start_jax()
    count = options.descriptors or (1_000_000 if options.full else 200_000)
    views = search_descriptors.choose_views(count, options.data)
    extract = search_descriptors.PlaceFeatures()
    print(f"{count} descriptors: {views.source}", flush=True)
    indexed = extract.cached(views.indexed, options.cache)
    asking = extract.cached(views.asking, options.cache)
    rows: Rows = []
    if "neighbours" in options.parts:
        descriptors = np.concatenate([view.descriptors for view in indexed])[:count].astype(np.float32)
        queries = search_descriptors.some_of_each(asking, BATCH * BATCHES)
        rows += neighbours(descriptors, queries, methods(count, full=options.full), rounds=options.rounds)
        print("\n".join([table(rows), *summary(rows)]), flush=True)
        if options.plot is not None:
            draw(options.plot, rows)
    if "query" in options.parts:
        photos = [view.photo for view in views.asking[:PHOTOS]]
        measured = search_query.measure(indexed, asking[:PHOTOS], photos, rounds=options.rounds)
        print(search_query.table(measured), flush=True)
        rows += measured
    if options.json is not None:
        settings = {
            "descriptors": count,
            "photos": views.source,
            "neighbours": NEIGHBOURS,
            "recall": TARGET,
            "batch": BATCH,
            "threads": THREADS,
            "rounds": options.rounds,
        }
        results_file.write(options.json, "search", rows, settings)
    return rows


def neighbours(
    descriptors: Float[np.ndarray, "n d"], queries: Queries, compared: Sequence[Method], *, rounds: int
) -> Rows:
    """Curves of all methods, then their turns at ``TARGET`` recall.

    Returns:
        Rows of the parts ``curve``, ``batch`` and ``single``.
    """
    truth = ExactBackend.build(descriptors).search(queries, NEIGHBOURS)[0]
    rows: Rows = []
    built: dict[str, Built] = {}
    for method in compared:
        try:
            built[method.name], cost = measured_build(method, descriptors)
        except PeerMissing as error:
            rows.append({"part": "curve", "method": method.name, "skipped": str(error)})
            continue
        about = {"part": "curve", "method": method.name, "ours": method.ours, **cost}
        points = [{**about, **point} for point in _curve(built[method.name], queries, truth)]
        print("\n".join(map(_line, points)), flush=True)
        rows += points
    points = [row for row in rows if "skipped" not in row]
    rows += _turns("batch", _chosen(points, "batch_s"), built, queries, rounds=rounds)
    rows += _turns("single", _chosen(points, "single_s"), built, queries, rounds=rounds)
    return rows


def recall(found: Int[np.ndarray, "q k"], truth: Int[np.ndarray, "q k"]) -> float:
    """Share of the true neighbours that were found.

    >>> recall(np.array([[4, 1, -1]]), np.array([[1, 2, 4]]))
    0.6666666666666666
    """
    return float((truth[:, :, None] == found[:, None, :]).any(axis=2).mean())


def _curve(built: Built, queries: Queries, truth: Int[np.ndarray, "q k"]) -> Rows:
    """One row a setting: what it finds, and how long it takes, measured briefly."""
    points: Rows = []
    batches, singles = np.split(queries, BATCHES), list(queries[:SINGLES, None])
    for setting, use in built.settings.items():
        use()
        found = np.concatenate([built.search(batch, NEIGHBOURS) for batch in batches])

        search = _search(built)
        batch_s = min(seconds_of(search, batch) for batch in batches)
        few = singles if batch_s < SLOW_BATCH else singles[:10]
        points.append(
            {
                "setting": setting,
                "default": setting == built.default,
                f"recall{NEIGHBOURS}": recall(found, truth),
                f"recall{FEWER}": recall(found[:, :FEWER], truth[:, :FEWER]),
                "batch_s": batch_s,
                "single_s": float(np.median([seconds_of(search, one) for one in few])),
            }
        )
    return points


def _chosen(points: Rows, key: str) -> Rows:
    """Of each peer the quickest setting at ``TARGET`` recall; of ours the default, whatever it finds."""
    good = [p for p in points if (p["default"] if p["ours"] else p[f"recall{NEIGHBOURS}"] >= TARGET)]
    return [min((p for p in good if p["method"] == name), key=lambda p: p[key]) for name in _names(good)]


def _turns(part: str, chosen: Rows, built: Mapping[str, Built], queries: Queries, *, rounds: int) -> Rows:
    """The chosen settings take turns; slow methods keep the time of their sweep."""
    key, slow = (("batch_s", SLOW_BATCH), ("single_s", SLOW_SINGLE))[part == "single"]
    for point in chosen:
        built[point["method"]].settings[point["setting"]]()
    quick = {point["method"]: _search(built[point["method"]]) for point in chosen if point[key] < slow}
    if part == "batch":
        timed = take_turns(quick, np.split(queries, BATCHES), rounds=rounds) if quick else {}
    else:
        timed = _one_at_a_time(quick, queries[:SINGLES])
    rows = []
    for point in chosen:
        seconds = timed.get(point["method"], np.array([point[key]]))
        kept = {name: value for name, value in point.items() if name not in ("part", "batch_s", "single_s")}
        median, lower, upper = (1000 * value for value in spread(seconds))
        rows.append({"part": part, **kept, "ms": median, "ms_quartiles": (lower, upper), "times": len(seconds)})
    return rows


def _one_at_a_time(
    quick: Mapping[str, Callable[[Queries], object]], queries: Queries
) -> dict[str, Float[np.ndarray, " n"]]:
    """Seconds of each query after a first round.

    A turn has many queries, because OpenMP's threads stay awake for a while after a call, on the cores of the next one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in quick}

    def turn(name: str) -> Callable[[Queries], None]:
        return lambda queries: seconds[name].extend(seconds_of(quick[name], query[None]) for query in queries)

    if quick:
        take_turns({name: turn(name) for name in quick}, np.split(queries, TURNS), rounds=1)
    return {name: np.array(values[len(queries) :]) for name, values in seconds.items()}


def _search(built: Built) -> Callable[[Queries], object]:
    return lambda queries: built.search(queries, NEIGHBOURS)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The turns, and what was not measured, as plain text."""
    lines = [f"{row['method']}: skipped: {row['skipped']}" for row in rows if "skipped" in row]
    for part, title in (("batch", f"{BATCH} queries at once"), ("single", "one query")):
        lines.append(f"{title:34}{'ms':>10}{'quartiles':>20}{'recall':>9}{'bytes':>8}{'built in':>10}  setting")
        for row in (row for row in rows if row["part"] == part):
            quartiles = "{:.3f} to {:.3f}".format(*row["ms_quartiles"])
            lines.append(
                f"{row['method']:34}{row['ms']:10.3f}{quartiles:>20}{row[f'recall{NEIGHBOURS}']:9.3f}"
                f"{row['bytes_per_descriptor']:8.0f}{row['build_s']:8.1f} s  {row['setting']}"
            )
    return "\n".join(lines)


def _line(point: Mapping[str, Any]) -> str:
    times = f"{1000 * point['batch_s']:10.1f} ms for {BATCH}, {1000 * point['single_s']:9.3f} for one"
    return f"{point['method']:34}{point[f'recall{NEIGHBOURS}']:7.3f}{times}  {point['setting']}"


def summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How ScaNN at its defaults compares with faiss's quickest that takes at least half the memory."""
    lines = []
    for part, title in (("batch", f"{BATCH} queries at once"), ("single", "one query")):
        here = [row for row in rows if row["part"] == part]
        mine = next((row for row in here if row["method"] == OURS), None)
        if mine is None:
            continue
        peers = [r for r in here if not r["ours"] and mine["bytes_per_descriptor"] <= 2 * r["bytes_per_descriptor"]]
        if peers:
            best = min(peers, key=lambda row: row["ms"])
            lines.append(
                f"{title}: {best['ms'] / mine['ms']:.2f} times as fast as {best['method']}, "
                f"recall {mine[f'recall{NEIGHBOURS}']:.3f} and {best[f'recall{NEIGHBOURS}']:.3f}"
            )
    return lines


def draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Speed against recall, many queries at once and one at a time; and speed against memory at the target."""
    points = [row for row in rows if row["part"] == "curve" and "skipped" not in row]
    names = _names(points)
    panels = []
    for key, queries, title in (("batch_s", BATCH, f"{BATCH} queries at once"), ("single_s", 1, "one query at a time")):
        curves = {name: _front([row for row in points if row["method"] == name], key, queries) for name in names}
        panels.append(_panel(title, f"recall of the {NEIGHBOURS} nearest", (0.85, 0.9, 0.95, 1.0), curves))
    turns = [row for row in rows if row["part"] == "batch"]
    costs = {row["method"]: [(row["bytes_per_descriptor"], BATCH / row["ms"])] for row in turns}
    widest = max((row["bytes_per_descriptor"] for row in turns), default=1.0)
    title = f"{BATCH} queries at once, at recall {TARGET} or a little more"
    panels.append(_panel(title, "bytes a descriptor", plots.steps(0, round(widest), 5), costs))
    plots.write(path, panels, title=f"Search, {THREADS} threads")


def _front(points: Sequence[Mapping[str, Any]], key: str, queries: int) -> list[tuple[float, float]]:
    """(recall, thousand queries per second) of the settings that no other one beats in both, from recall 0.85 on."""
    best: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: p[key]):
        found = point[f"recall{NEIGHBOURS}"]
        if found >= 0.85 and (not best or found > best[-1][0]):
            best.append((found, queries / point[key] / 1000))
    return best


def _panel(title: str, label: str, ticks: Sequence[float], lines: Mapping[str, list[tuple[float, float]]]) -> Panel:
    highest = max((y for line in lines.values() for _, y in line), default=1.0)
    y_ticks = plots.steps(0, math.ceil(highest), 5)
    return Panel(title, label, "thousand queries a second", ticks, y_ticks, lines, marks=True)


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        # Not every library has a way to say how many threads it may use; all of them find out how many cores it has.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    run(main, Options, __doc__)
