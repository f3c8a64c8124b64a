"""Landmarks from all viewpoints: does a photo rank the other photos of its landmark first?

    python -m benchmarks.landmarks_map --fold-heads HEAD_A HEAD_B --json benchmarks/results/landmarks_map.json

Photos: ``landmarks`` in the data folder.

The 254 photos of ``landmarks/val`` are split into two halves of 14 classes (``lists/landmark_folds.csv``). Each photo
is searched among the others of its half, unless it is the only one of its landmark. No method has seen a class on which
it is tested: HEAD_A, for queries of half A, was trained on ``landmarks/train`` photos of half B, and PCA and foreground
vector are fitted there too. The monuments of one site in Delhi count neither as right nor as wrong for each other.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float
from tyro.conf import arg

from benchmarks import datasets, results_file
from benchmarks.command_line import run
from benchmarks.global_descriptor import GlobalDescriptors
from benchmarks.methods import fitted_head
from benchmarks.peer_matching import Answer
from benchmarks.ranking import Search, accepted_at, ask
from benchmarks.raw_features import RawFeatures, with_head
from delf_cli.environment import start_jax
from delf_jax.features import LocalFeatures
from delf_jax.files.text_files import read_table
from delf_jax.loading import model_paths
from delf_jax.settings import Scorer
from retrieval.evaluation import metrics

FOLDS = ("A", "B")
# One site: photos of one often show another.
DELHI = frozenset(
    f"indian_monuments__{name}"
    for name in ("qutub_minar", "iron_pillar", "alai_darwaza", "alai_minar", "jamali_kamali_tomb")
)
_PRECISION_AT = 5
_FITTED_PER_CLASS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures class mAP of global, local and fused ranking.

    Attributes:
        fold_heads: head files for the queries of half A and of half B, each trained without that half. Without them,
            attention is not measured.
        data: folder of the photos with ground truth (default: $DELF_SHARED).
        json: also write the results to this file.
        cache: folder where features are kept between runs.
        features: most features per photo.
        verify: number of photos that are verified for each query.
        seed: random seed of the verification.
    """

    fold_heads: tuple[Path, Path] | None = None
    data: Path | None = None
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    cache: Path = Path(".cache/accuracy")
    features: int = 1000
    verify: int = 100
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Half:
    """The photos of one half of the classes, each searched among the others, and the photos for training.

    Attributes:
        retrieval_set: queries and database.
        training: photos of the other half's classes.
    """

    retrieval_set: datasets.RetrievalSet
    training: tuple[Path, ...]


def main(options: Options) -> list[dict[str, Any]]:
    """Measures every ranking, prints the table, and returns its rows."""
    data = datasets.data_folder(options.data)
    packaged = model_paths("delf-r50")[1]
    heads = options.fold_heads or (packaged, packaged)
    halves = [half(data, fold) for fold in FOLDS]
    measured: dict[str, list[Float[np.ndarray, " q m"]]] = {}
    for one, path in zip(halves, heads, strict=True):
        for name, rankings in rank(one, path, options).items():
            measured.setdefault(name, []).append(score(one.retrieval_set, rankings))
    rows = []
    for name, parts in measured.items():
        mean = 100 * np.concatenate(parts).mean(axis=0)
        rows.append({"ranking": name, "map": mean[0], "top1": mean[1], f"precision_at_{_PRECISION_AT}": mean[2]})
        print(f"{name:24} mAP {mean[0]:5.1f}  top-1 {mean[1]:5.1f}  P@{_PRECISION_AT} {mean[2]:5.1f}")
    if options.json is not None:
        settings = {
            "queries": sum(len(one.retrieval_set.queries) for one in halves),
            "fold_heads": [path.name for path in options.fold_heads or ()],
            "features": options.features,
            "verify": options.verify,
            "seed": options.seed,
        }
        results_file.write(options.json, "landmarks_map", rows, settings)
    return rows


def half(data: Path, fold: str) -> Half:
    """The half ``fold`` of the landmarks.

    Raises:
        FileNotFoundError: the data folder has no landmarks.
    """
    root = data / "landmarks"
    folds = read_table(datasets.LISTS / "landmark_folds.csv", ("class", "fold"))
    fold_of = {row["class"]: row["fold"] for _, row in folds}
    val = [(photo, label) for photo, label in datasets.places(root / "val") if fold_of.get(label) == fold]
    training: list[Path] = []
    for label, other in sorted(fold_of.items()):
        if other != fold:
            training += [photo for photo, _ in datasets.places(root / "train" / label)][:_FITTED_PER_CLASS]
    retrieval_set = datasets.among_themselves(
        f"landmarks {fold}",
        [photo for photo, _ in val],
        [label for _, label in val],
        overlapping=lambda a, b: {a, b} <= DELHI,
    )
    return Half(retrieval_set, tuple(training))


def rank(one: Half, head_path: Path, options: Options) -> dict[str, list[list[int]]]:
    """For every kind of ranking and every query: the photos of the database, best first, without ignored ones."""
    retrieval_set, photos = one.retrieval_set, one.retrieval_set.database
    vectors = GlobalDescriptors().cached(photos, options.cache)
    places = {photo: place for place, photo in enumerate(photos)}
    similar = vectors[[places[query] for query in retrieval_set.queries]] @ vectors.T
    found = {"gem": [ordered(row, retrieval_set.ignored_by(i)) for i, row in enumerate(similar)]}
    head = fitted_head(head_path, one.training, options.cache)
    raw = RawFeatures().cached(photos, options.cache)
    scorers: list[Scorer] = ["norm", "foreground"]
    if options.fold_heads is not None:
        scorers.append("learned")
    search = Search(verify=options.verify, threshold=accepted_at(len(photos)), seed=options.seed)
    for scorer in scorers:
        features: dict[Path, LocalFeatures] = {
            photo: with_head(dense, head.arrays(), scorer, max_features=options.features)
            for photo, dense in zip(photos, raw, strict=True)
        }
        answers = ask(retrieval_set, features, None, search)
        for i, (voted, verified) in enumerate(zip(answers.voted, answers.verified, strict=True)):
            votes = votes_of(voted, len(photos))
            joined = standardised(votes) + standardised(similar[i])
            for name, first_stage in (("", votes), (" + gem", joined)):
                plain = ordered(first_stage, retrieval_set.ignored_by(i))
                proven = [answer.photo for answer in verified if answer.confidence >= -search.threshold]
                found.setdefault(f"{scorer} votes{name}", []).append(plain)
                found.setdefault(f"{scorer} verified{name}", []).append(
                    proven + [photo for photo in plain if photo not in proven]
                )
    return found


def ordered(scores: Float[np.ndarray, " n"], ignored: frozenset[int]) -> list[int]:
    """The photos by descending score, without ignored ones."""
    return [int(i) for i in np.argsort(-scores, kind="stable") if int(i) not in ignored]


def votes_of(answers: Sequence[Answer], count: int) -> Float[np.ndarray, " n"]:
    """The votes of every photo; 0 if it has none."""
    votes = np.zeros(count)
    for answer in answers:
        votes[answer.photo] = answer.confidence
    return votes


def standardised(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Scores of one query, scaled to mean 0 and standard deviation 1, so that two kinds of scores can be added."""
    return (scores - scores.mean()) / max(float(scores.std()), 1e-12)


def score(retrieval_set: datasets.RetrievalSet, rankings: Sequence[Sequence[int]]) -> Float[np.ndarray, "q 3"]:
    """Average precision, top-1 and precision at 5 of every query."""
    rows = []
    for ranking, right in zip(rankings, retrieval_set.relevant, strict=True):
        relevant = np.array([photo in right for photo in ranking])
        rows.append(
            (
                metrics.average_precision(relevant, positives=len(right)),
                float(relevant[0]),
                metrics.precision_at(relevant, k=_PRECISION_AT),
            )
        )
    return np.array(rows)


if __name__ == "__main__":
    start_jax()
    run(main, Options, __doc__)
