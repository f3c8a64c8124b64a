"""Projections of descriptors on landmarks that were left out: PCA against what verified matches teach.

    delf-jax descriptors $DELF_SHARED/landmarks/train --labels folders --out head.safetensors --work .cache/descriptors
    python -m benchmarks.descriptors --json benchmarks/results/descriptors.json

The landmarks are two halves (``lists/landmark_folds.csv``). Each half teaches, and the features of the other that see
the same spot of two photos test: how often is the right feature the nearest one of the other photo (``first``), and how
often is it nearer than all features of 20 photos of other landmarks (``surest``)?
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from tyro.conf import arg

from benchmarks import datasets, results_file
from benchmarks.command_line import run
from delf_cli import descriptors
from delf_cli.environment import start_jax
from delf_jax.extraction.head import Head
from delf_jax.extraction.pca import PcaStatistics
from delf_jax.files.text_files import read_table
from delf_jax.loading import model_paths
from delf_jax.store.reader import FeatureStore
from delf_jax.training.descriptors.whitening import PairStatistics, solve
from retrieval.grouping.pair_log import PairLog

DIMENSIONS = (128, 40)
SHRINKAGES = (0.0, 0.05, 0.2, 0.5, 0.7, 0.9)
# Pairs of photos that test, and photos of other landmarks for each.
_TESTED, _OTHERS = 600, 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures projections.

    Attributes:
        work: the folder of a run of `delf-jax descriptors` over the landmarks.
        json: also write the results to this file.
    """

    work: Path = Path(".cache/descriptors")
    json: Annotated[Path | None, arg(metavar="FILE")] = None


class Pair(NamedTuple):
    """Two photos of one landmark, and the rows of their features that see the same spot."""

    a: str
    b: str
    rows: Int[np.ndarray, "m 2"]


class Half(NamedTuple):
    """One half of the landmarks.

    Attributes:
        photos: float16 unit features [n, C] of each photo.
        pairs: of its photos.
        features: sums over all features.
        matches: sums over all pairs.
    """

    photos: Mapping[str, Float[np.ndarray, "n c"]]
    pairs: list[Pair]
    features: PcaStatistics
    matches: PairStatistics


Projection = Callable[[Float[np.ndarray, "n c"]], Float[np.ndarray, "n d"]]


def main(options: Options) -> list[dict[str, Any]]:
    """Measures every projection on both halves, prints the means, and returns the rows."""
    halves = read(options.work)
    measured: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for teaching, testing in (halves, halves[::-1]):
        for name, dimension, projection in projections(teaching):
            measured.setdefault((name, dimension), []).append(score(testing, projection))
    rows = []
    for (name, dimension), scores in measured.items():
        first, surest = np.mean(scores, axis=0)
        rows.append({"projection": name, "dimension": dimension, "first": 100 * first, "surest": 100 * surest})
        print(f"{name:24} {dimension:5}  first {100 * first:5.1f}  surest {100 * surest:5.1f}")
    if options.json is not None:
        settings = {
            "photos": sum(len(half.photos) for half in halves),
            "pairs": [len(half.pairs) for half in halves],
            "matches": [half.matches.count for half in halves],
        }
        results_file.write(options.json, "descriptors", rows, settings)
    return rows


def read(work: Path) -> tuple[Half, Half]:
    """The two halves of the landmarks, from what `delf-jax descriptors` left in its folder."""
    store = FeatureStore.open(work / descriptors.FEATURES)
    photos = descriptors.in_memory(store)
    folds = read_table(datasets.LISTS / "landmark_folds.csv", ("class", "fold"))
    fold_of = {row["class"]: row["fold"] for _, row in folds}
    half_of = {name: fold_of[Path(name).parent.name] for name in photos}
    found: dict[str, list[Pair]] = {"A": [], "B": []}
    with contextlib.closing(PairLog(work / descriptors.LOG)) as log:
        for pair, rows in descriptors.matching_features(
            photos,
            Head.open(model_paths(store.settings.model)[1]),
            max_side=store.settings.max_side,
            neighbours=descriptors.Descriptors.neighbours,
            log=log,
            advance=lambda done, total: None,
        ):
            if Path(pair.a).parent == Path(pair.b).parent and len(rows):
                found[half_of[pair.a]].append(Pair(pair.a, pair.b, rows))
    first, second = (
        _half({name: one.descriptors for name, one in photos.items() if half_of[name] == fold}, pairs)
        for fold, pairs in found.items()
    )
    return first, second


def _half(photos: dict[str, np.ndarray], pairs: list[Pair]) -> Half:
    channels = next(iter(photos.values())).shape[1]
    features, matches = PcaStatistics.zero(channels), PairStatistics.zero(channels)
    for one in photos.values():
        features += PcaStatistics.of(one)
    for pair in pairs:
        matches += PairStatistics.of(photos[pair.a][pair.rows[:, 0]], photos[pair.b][pair.rows[:, 1]])
    return Half(photos, pairs, features, matches)


def projections(teaching: Half) -> list[tuple[str, int, Projection]]:
    """Name, dimension and function of each projection that a half teaches."""
    made: list[tuple[str, int, Projection]] = []
    for dimension in DIMENSIONS:
        pca = teaching.features.solve(dimension)
        for name, whiten in (("pca, whitened", True), ("pca", False)):
            made.append((name, dimension, partial(pca.descriptors, whiten=whiten)))
        for shrinkage in SHRINKAGES:
            learned = solve(teaching.features, teaching.matches, dimension, shrinkage=shrinkage)
            made.append((f"learned, {shrinkage:g}", dimension, partial(learned.descriptors, whiten=False)))
    channels = len(teaching.features.total)
    return [*made, ("none", channels, lambda unit: unit.astype(np.float32))]


def score(testing: Half, projection: Projection) -> tuple[float, float]:
    """Means over pairs of photos of the shares ``first`` and ``surest``."""
    rng = np.random.default_rng(0)
    made = {name: projection(one) for name, one in testing.photos.items()}
    names = sorted(made)
    shares = []
    for place in rng.permutation(len(testing.pairs))[:_TESTED]:
        pair = testing.pairs[place]
        queries, right = made[pair.a][pair.rows[:, 0]], pair.rows[:, 1]
        similar = queries @ made[pair.b].T
        others = [
            made[name]
            for name in (names[i] for i in rng.integers(0, len(names), _OTHERS))
            if Path(name).parent != Path(pair.b).parent
        ]
        strange = (queries @ np.concatenate(others).T).max(axis=1)
        reached = similar[np.arange(len(right)), right]
        shares.append((np.mean(similar.argmax(axis=1) == right), np.mean(reached > strange)))
    first, surest = np.mean(shares, axis=0)
    return float(first), float(surest)


if __name__ == "__main__":
    start_jax()
    run(main, Options, __doc__)
