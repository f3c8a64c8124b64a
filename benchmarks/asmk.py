"""Compares the first stages of search: votes of nearest descriptors, and ASMK (comparison by visual words).

    python -m benchmarks.asmk --json benchmarks/results/asmk.json

Photos: as ``benchmarks.accuracy`` with ``smvs``, and ``landmarks/train``, in the data folder.

The queries are those of ``smvs`` (60 photos of buildings among 488 photos). Each first stage is measured alone and with
verification. The visual words are k-means of photos of other landmarks (``landmarks/train``), so no method has seen the
buildings. Latency is the time of one query whose features are given; the methods take turns on the same queries. Bytes
are what the first stage stores, without the features for verification.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float
from tyro.conf import arg

from benchmarks import datasets, results_file, timing
from benchmarks.command_line import run
from benchmarks.ranking import accepted_at
from benchmarks.raw_features import RawFeatures, with_head
from delf_cli.environment import start_jax
from delf_jax.extraction.head import Head
from delf_jax.features import LocalFeatures
from delf_jax.loading import model_paths
from retrieval import asmk
from retrieval.evaluation.benchmark import Benchmark, Query, Task
from retrieval.evaluation.evaluation import evaluate
from retrieval.evaluation.rank_all import Ranking
from retrieval.indexing.index import Index
from retrieval.verification.verify import Match, VerificationSettings, verify_candidates
from retrieval.voting import ranking, votes

# Of each of 28 landmarks; more words need more descriptors.
_TRAINING_PER_CLASS = 10
_ITERATIONS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures the first stages on real photos.

    Attributes:
        data: folder of the photos with ground truth (default: $DELF_SHARED).
        json: also write the results to this file.
        cache: folder where features are kept between runs.
        features: most features per photo.
        scales: image scales of the pyramid; fewer than the default, so that a run takes minutes.
        words: numbers of visual words; each gives a row.
        verify: number of photos that are verified for each query.
        rounds: how often the latency is measured.
        seed: random seed of k-means and verification.
    """

    data: Path | None = None
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    cache: Path = Path(".cache/accuracy")
    features: int = 600
    scales: tuple[float, ...] = (0.5, 0.7071, 1.0, 1.4142)
    words: tuple[int, ...] = (1024, 4096)
    verify: int = 50
    rounds: int = 3
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Stage:
    """One first stage.

    Attributes:
        described: settings that the result file states with its numbers.
        scores: of all photos, for a query.
        nbytes: that it holds.
    """

    described: dict[str, Any]
    scores: Callable[[LocalFeatures], Float[np.ndarray, " p"]]
    nbytes: int


def main(options: Options) -> list[dict[str, Any]]:
    """Measures every first stage, prints the table, and returns its rows."""
    data = datasets.data_folder(options.data)
    known = datasets.buildings(data)
    training = training_photos(data)
    raw, head = RawFeatures(scales=options.scales), Head.open(model_paths("delf-r50")[1])
    arrays = head.arrays()

    def features_of(photos: Sequence[Path]) -> list[LocalFeatures]:
        kept = raw.cached(photos, options.cache)
        return [with_head(one, arrays, "learned", max_features=options.features) for one in kept]

    database, queries = features_of(known.database), features_of(known.queries)
    trained_on = features_of(training)
    codebooks = [
        asmk.train(trained_on, words=words, iterations=_ITERATIONS, seed=options.seed) for words in options.words
    ]
    benchmark = Benchmark(
        "smvs",
        tuple(map(Query, known.queries)),
        known.database,
        (Task("", known.relevant, (frozenset(),) * len(known.queries)),),
        trapezoidal=False,
    )
    threshold = accepted_at(len(database))
    settings = {
        "dataset": "smvs", "queries": len(queries), "photos": len(database), "training_photos": len(training),
        "training_descriptors": sum(map(len, trained_on)), "iterations": _ITERATIONS,
        "features_found": float(np.mean([len(one) for one in database])), "features": options.features,
        "scales": options.scales, "verify": options.verify, "log10_nfa": threshold, "seed": options.seed,
    }  # fmt: skip
    stages = [*voting(database, threshold), *aggregated(database, codebooks)]
    seconds = timing.take_turns(
        {str(i): stage.scores for i, stage in enumerate(stages)}, queries[::4], rounds=options.rounds
    )
    rows = []
    for i, stage in enumerate(stages):
        answers = [stage.scores(query) for query in queries]
        latency = timing.spread(1000 * seconds[str(i)])
        row = stage.described | {"bytes": stage.nbytes, "milliseconds": latency._asdict()}
        for verify in (0, options.verify):
            ranked = [
                ranked_by(scores, query, database, verify, threshold, options.seed)
                for scores, query in zip(answers, queries, strict=True)
            ]
            (measured,) = evaluate(benchmark, ranked)
            rows.append(row | {"verified": bool(verify), "map": 100 * measured.map, "top1": 100 * measured.top1})
            print(line(rows[-1]), flush=True)
        if options.json is not None:
            results_file.write(options.json, "asmk", rows, settings)
    return rows


def training_photos(data: Path) -> tuple[Path, ...]:
    """Photos of other landmarks, up to ten of each, without the distractors."""
    root = data / "landmarks" / "train"
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; --data names the folder of the benchmark's photos")
    classes = sorted(folder for folder in root.iterdir() if folder.is_dir())
    searched = set(datasets.landmark_distractors(data))
    photos = (p for folder in classes for p, _ in datasets.places(folder)[:_TRAINING_PER_CLASS])
    return tuple(photo for photo in photos if photo not in searched)


def voting(database: Sequence[LocalFeatures], threshold: float) -> list[Stage]:
    """Votes, with the neighbours that each backend finds."""
    found = []
    for backend in ("scann", "exact"):
        index = Index.build(((str(i), one) for i, one in enumerate(database)), backend=backend, threshold=threshold)

        def scores(query: LocalFeatures, index: Index = index) -> Float[np.ndarray, " p"]:
            return votes(*index.neighbours(query, 60), photo_count=len(index))

        with tempfile.TemporaryDirectory() as folder:
            index.save(Path(folder) / "index")
            written = sum(file.stat().st_size for file in (Path(folder) / "index" / "backend").iterdir())
        # The exact backend holds float32 descriptors on the device and writes nothing.
        nbytes = written if backend == "scann" else 4 * index.dimension * index.feature_count
        found.append(Stage({"stage": "votes", "backend": backend}, scores, nbytes))
    return found


def aggregated(database: Sequence[LocalFeatures], codebooks: Sequence[asmk.Codebook]) -> list[Stage]:
    """ASMK* and ASMK for every codebook. The largest codebook is also measured with more assignments, and with idf."""
    found = []
    for codebook in codebooks:
        variants = [(True, False, 1), (False, False, 1)]
        if codebook is codebooks[-1]:
            variants += [(True, False, 3), (True, True, 1)]
        for binary, idf, assignments in variants:
            kernel = asmk.Kernel(binary=binary, idf=idf)
            file = asmk.InvertedFile.build(([one.descriptors] for one in database), codebook, kernel=kernel)
            name = {"stage": "ASMK*" if binary else "ASMK", "words": len(codebook)}
            scores = functools.partial(_kernel_scores, file, assignments=assignments)
            found.append(Stage(name | {"assignments": assignments, "idf": idf}, scores, file.nbytes))
    reference = PhotoByPhoto(database, codebooks[-1])
    name = {"stage": "ASMK, photo by photo", "words": len(codebooks[-1]), "assignments": 1, "idf": False}
    return [*found, Stage(name, reference.scores, reference.nbytes)]


def _kernel_scores(file: asmk.InvertedFile, query: LocalFeatures, *, assignments: int) -> Float[np.ndarray, " p"]:
    return file.scores(np.asarray(query.descriptors, np.float32), assignments=assignments)


class PhotoByPhoto:
    """ASMK computed directly by its formula, without an inverted file: each photo is compared with the query."""

    def __init__(self, database: Sequence[LocalFeatures], codebook: asmk.Codebook) -> None:
        self._codebook = codebook
        self._photos = [self._words(photo.descriptors) for photo in database]
        self.nbytes = sum(4 * codebook.dimension * len(words) for words in self._photos)

    def scores(self, query: LocalFeatures) -> Float[np.ndarray, " p"]:
        """K(X, Y) of every photo, with alpha 3 and tau 0; -inf if no word is shared."""
        query_words = self._words(query.descriptors)
        found = np.full(len(self._photos), -np.inf, np.float32)
        for place, photo in enumerate(self._photos):
            alike = [float(vector @ photo[word]) for word, vector in query_words.items() if word in photo]
            positive = [u**3 for u in alike if u > 0]
            if positive:
                found[place] = sum(positive) / np.sqrt(len(query_words) * len(photo))
        return found

    def _words(self, descriptors: Float[np.ndarray, "n d"]) -> dict[int, Float[np.ndarray, " d"]]:
        sums: dict[int, Float[np.ndarray, " d"]] = {}
        centroids = self._codebook.centroids
        norms = np.square(centroids).sum(axis=1)
        for x in np.asarray(descriptors, np.float32):
            word = int(np.argmin(norms - 2 * centroids @ x))
            sums[word] = sums.get(word, 0) + x - centroids[word]
        return {word: total / max(float(np.linalg.norm(total)), 1e-12) for word, total in sums.items()}


def ranked_by(
    scores: Float[np.ndarray, " p"],
    query: LocalFeatures,
    database: Sequence[LocalFeatures],
    verify: int,
    threshold: float,
    seed: int,
) -> Ranking:
    """Photos sorted by scores; the first ``verify`` of them are sorted again by verification."""
    order = ranking(scores)
    candidates = [(str(p), float(scores[p]), database[p]) for p in order[:verify]]
    matches = verify_candidates(query, candidates, VerificationSettings(threshold=threshold, seed=seed))
    best = [int(match.image) for match in sorted(matches, key=Match.rank)]
    photos = np.array([*best, *order[len(best) :]], np.int64)
    return Ranking(photos, np.zeros(len(photos)))


def line(row: Mapping[str, Any]) -> str:
    """One row of the table."""
    name = " ".join(str(row[key]) for key in ("stage", "backend", "words") if key in row)
    more = f" x{row['assignments']}" if row.get("assignments", 1) > 1 else ""
    more += " idf" if row.get("idf") else ""
    kind = "verified" if row["verified"] else "alone"
    cost = f"{row['milliseconds']['median']:8.1f} ms {row['bytes'] / 1e6:8.1f} MB"
    return f"{name + more:32} {kind:9} mAP {row['map']:5.1f}  top-1 {row['top1']:5.1f}  {cost}"


if __name__ == "__main__":
    start_jax()
    run(main, Options, __doc__)
