"""Time of each stage of a whole query, from photo to ranked answer, with an index of ten thousand photos."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import delf_jax
from benchmarks.feature_cache import strongest
from benchmarks.timing import spread
from delf_jax.features import LocalFeatures
from retrieval.indexing.backends import Backend, backend_class
from retrieval.indexing.columns import PhotoColumns
from retrieval.indexing.description import IndexDescription
from retrieval.indexing.index import Index
from retrieval.indexing.indexed_photos import IndexedPhotos
from retrieval.nearest import Neighbours
from retrieval.verification.acceptance_threshold import DEFAULT_THRESHOLD
from retrieval.verification.verify import VerificationSettings, verify_candidates
from retrieval.voting import rank_by_votes

NEIGHBOURS = 60
VERIFIED = 100
PHOTOS = 10_000
SMALL, LARGE = 100, 600
STAGES = ("neighbours", "votes", "verify", "whole search")


def synthetic_photos(views: Sequence[LocalFeatures], features: int) -> Iterator[tuple[str, LocalFeatures]]:
    """At most ``PHOTOS`` photos with ``features`` features each. One view gives several photos with other features."""
    share = len(views[0]) // features
    for number in range(min(PHOTOS, share * len(views))):
        view, rows = views[number // share], slice(number % share, share * features, share)
        columns = (view.keypoints[rows], view.scales[rows], view.scores[rows], view.descriptors[rows])
        yield f"photo {number:05d}", LocalFeatures(*columns, image_size=view.image_size)


def measure(
    indexed: Sequence[LocalFeatures], asking: Sequence[LocalFeatures], photos: Sequence[Path], *, rounds: int
) -> list[dict[str, Any]]:
    """Milliseconds of each stage: of queries with real photos, and of large ones.

    Args:
        indexed: views that become the photos of the index.
        asking: views that become large queries, of ``LARGE`` features against photos of ``LARGE`` features.
        photos: real photos, extracted as users do, against photos of ``SMALL`` features.
        rounds: turns.
    """
    extractor = delf_jax.load("delf-r50")
    extractor(photos)
    features, extracting = [], []
    for photo in photos:
        begin = time.perf_counter()
        features += extractor([photo])
        extracting.append(time.perf_counter() - begin)
    large = [strongest(view, LARGE) for view in asking]
    rows = []
    for size, queries, before in ((SMALL, features, {"extract": extracting}), (LARGE, large, {})):
        stages: dict[str, list[float]] = {**before, **{name: [] for name in STAGES}}
        columns = PhotoColumns.gather(synthetic_photos(indexed, size))
        backend = backend_class("auto").build(columns.descriptors)
        index = Index(
            IndexedPhotos(columns, backend),
            IndexDescription(settings=None, fingerprint=None, threshold=DEFAULT_THRESHOLD),
        )
        for number, query in itertools.product(range(rounds + 1), queries):
            seconds = _stages(index, columns, backend, query)
            if number:
                for name, value in seconds.items():
                    stages[name].append(value)
        about = {
            "part": "query",
            "photos": len(columns.names),
            "features": len(columns.descriptors),
            "backend": backend.name,
            "query_features": float(np.median([len(query) for query in queries])),
        }
        for name, values in stages.items():
            median, lower, upper = spread(1000 * np.array(values))
            rows.append({**about, "stage": name, "ms": median, "ms_quartiles": (lower, upper), "times": len(values)})
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a stage, as plain text."""
    lines = []
    for row in rows:
        size = f"{row['photos']} photos, {row['features']} features, queried with {row['query_features']:.0f}"
        quartiles = "{:.1f} to {:.1f}".format(*row["ms_quartiles"])
        lines.append(f"{size:58}{row['stage']:14}{row['ms']:9.1f} ms ({quartiles})")
    return "\n".join(lines)


def _stages(index: Index, columns: PhotoColumns, backend: Backend, query: LocalFeatures) -> dict[str, float]:
    """Seconds of the stages of ``Index.search``, one after the other, and of the search itself."""
    clock = [time.perf_counter()]
    found, similarities = backend.search(np.asarray(query.descriptors, np.float32), NEIGHBOURS)
    clock.append(time.perf_counter())
    ranked = rank_by_votes(Neighbours(columns.photo_of(found), similarities)).part(0, VERIFIED)
    candidates = [
        (columns.names[photo], score, columns.features(photo))
        for photo, score in zip(ranked.numbers.tolist(), ranked.scores.tolist())
    ]
    clock.append(time.perf_counter())
    verify_candidates(query, candidates, VerificationSettings())
    clock.append(time.perf_counter())
    index.search(query)
    clock.append(time.perf_counter())
    return dict(zip(STAGES, np.diff(clock).tolist(), strict=True))
