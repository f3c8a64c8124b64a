"""Measures one job of ``benchmarks.growth`` in a process of its own, so that the peak memory is that of this job.

    python -m benchmarks.growth_probe extract --photos 1000 --data FOLDER

Photos: the tiles and features that ``benchmarks.growth`` has written to FOLDER.

It prints one JSON object. Memory is the resident set in megabytes, including pages of mapped files: what the process
held before the job, and the most that it held.
"""

import dataclasses
import itertools
import json
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import tyro
from tyro.conf import Positional

import delf_jax
import localization
import retrieval
from benchmarks import growth_photos
from benchmarks.timing import seconds_of, spread
from delf_jax.job import extraction_job
from retrieval.grouping.measures import group_scores

MAX_POINTS = 10_000
QUERIES = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures one job.

    Attributes:
        part: the job that is measured.
        photos: number of photos; for ``search`` the size of the index that ``index`` has built.
        data: folder with the tiles and features.
        model: name or folder of the model for ``extract`` and ``fit-localizer``.
        shards: number of shards of the index; 0 for one index without shards.
        points: keep training points for explanations.
    """

    part: Positional[Literal["extract", "fit-localizer", "index", "search", "group"]]
    photos: int
    data: Path
    model: str = "delf-r50"
    shards: int = 0
    points: bool = False


def probe(options: Options) -> dict[str, Any]:
    """Runs the measurement in this process."""
    parts = {"extract": _extract, "fit-localizer": _fit, "index": _index, "search": _search, "group": _group}
    return parts[options.part](options)


def _extract(options: Options) -> dict[str, Any]:
    extractor = _extractor(options)
    tiles = options.data / f"tiles-{options.photos}"
    extractor([next(tiles.iterdir())])
    store = options.data / f"store-{options.photos}"
    row = _measured(lambda: extraction_job.run(extractor, [tiles], store))
    shutil.rmtree(store)
    return row | {"photos_per_s": options.photos / row["seconds"]}


def _fit(options: Options) -> dict[str, Any]:
    encoder = localization.ExtractorEncoder(_extractor(options))
    tiles = sorted(map(str, (options.data / f"tiles-{options.photos}").iterdir()))
    localization.fit(tiles[:1], encoder=encoder)
    row = _measured(lambda: localization.fit(tiles, encoder=encoder, max_points=MAX_POINTS if options.points else 0))
    return row | {"photos_per_s": options.photos / row["seconds"]}


def _index(options: Options) -> dict[str, Any]:
    sources = growth_photos.open_features(options.data / "features.npz")
    photos = growth_photos.warped(sources, options.photos)
    path = _index_path(options)
    if options.shards:
        row = _measured(lambda: retrieval.ShardedIndex.build(photos, path, shards=options.shards).close())
    else:
        row = _measured(lambda: retrieval.Index.build(photos, out=path))
    # What any maker of the same stream takes, which is not the index's.
    made = seconds_of(lambda count: sum(1 for _ in growth_photos.warped(sources, count)), min(options.photos, 1000))
    count = retrieval.open_index(path).feature_count
    return row | {
        "descriptors": count,
        "seconds_to_make_features": made * max(1.0, options.photos / 1000),
        "disk_megabytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6,
        "bytes_a_descriptor": 1e6 * (row["peak_megabytes"] - row["before_megabytes"]) / count,
    }


def _search(options: Options) -> dict[str, Any]:
    sources = growth_photos.open_features(options.data / "features.npz")
    step = options.photos // QUERIES
    queries = [
        (name, next(growth_photos.warped(sources, 1, start=int(name), seed=1))[1])
        for name, _ in itertools.islice(growth_photos.warped(sources, options.photos), 0, None, max(1, step))
    ][:QUERIES]
    before = resident()
    begin = time.perf_counter()
    index = retrieval.open_index(_index_path(options))
    index.search(queries[0][1], verify=0)  # shards are opened by the first question
    opened, seconds_to_open = resident(), time.perf_counter() - begin
    index.search(queries[0][1])
    votes = spread([seconds_of(lambda query: index.search(query[1], verify=0), query) for query in queries])
    whole = spread([seconds_of(lambda query: index.search(query[1]), query) for query in queries])
    return {
        "descriptors": index.feature_count,
        "seconds_to_open": seconds_to_open,
        "ms_votes": 1e3 * votes.median,
        "ms_query": 1e3 * whole.median,
        "before_megabytes": before,
        "open_megabytes": opened,
        "peak_megabytes": peak(),
        "bytes_a_descriptor": 1e6 * (opened - before) / index.feature_count,
    }


def _group(options: Options) -> dict[str, Any]:
    sources = growth_photos.open_features(options.data / "features.npz")
    index = retrieval.Index.build(growth_photos.views_of_places(sources, options.photos))
    retrieval.group(retrieval.Index.build(growth_photos.views_of_places(sources, 20)))  # compiles
    begin, log = time.process_time(), options.data / f"pairs-{options.photos}.jsonl"
    found: list[retrieval.Grouping] = []
    row = _measured(lambda: found.append(retrieval.group(index, log=log)))
    core_seconds = time.process_time() - begin
    marks = {name: str(number) for number, each in enumerate(found[0].groups) for name in each.names}
    scores = group_scores(marks, {name: name.partition("/")[0] for name in index.names})
    return row | {
        "descriptors": index.feature_count,
        "core_seconds": core_seconds,
        "likely_pairs": len(found[0].examined.likely),
        "verified": found[0].examined.verified,
        "precision": scores.precision,
        "recall": scores.recall,
        "log_megabytes": log.stat().st_size / 1e6,
    }


def _extractor(options: Options) -> delf_jax.Extractor:
    return delf_jax.load(options.model, max_side=160, max_features=50, scales=(1.0,), batch_size=16)


def _index_path(options: Options) -> Path:
    return options.data / f"index-{options.photos}-{options.shards}"


def _measured(run: Callable[[], object]) -> dict[str, Any]:
    before = resident()
    begin = time.perf_counter()
    run()
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "before_megabytes": before, "peak_megabytes": peak()}


def resident() -> float:
    """Megabytes that this process holds now."""
    return _status("VmRSS")


def peak() -> float:
    """Megabytes that this process held at most."""
    return _status("VmHWM")


def _status(name: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration):  # not Linux: the most so far, in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    print(json.dumps(probe(tyro.cli(Options, description=__doc__))))
