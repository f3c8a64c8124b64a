"""Fits the weights of votes and of geometry in the order of answers, and says what they bring.

    python -m benchmarks.evidence

Photos: the first eleven landmarks of ``landmarks/train`` in the data folder, ten photos of each, none of which
``benchmarks.accuracy`` searches. Each is searched among the others, with 100 and with 1000 features; the other photos
of its landmark are right answers. The weights are the most likely ones if the first answer were drawn by its odds. They
are fitted on all these landmarks; the table shows right first answers on each half with weights of the other half.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from scipy.special import logsumexp

from benchmarks import datasets
from benchmarks.command_line import run
from benchmarks.feature_cache import cached_features, strongest
from benchmarks.methods import Request, method
from benchmarks.ranking import Search, ask
from delf_cli.environment import start_jax
from delf_jax.features import LocalFeatures
from delf_jax.loading import model_paths
from delf_jax.photos.names import is_photo_name
from retrieval.verification.evidence import Weights, log10_odds

_LANDMARKS, _OF_EACH = 11, 10
_SITE = ("alai_darwaza", "alai_minar", "iron_pillar", "jamali_kamali_tomb", "qutub_minar")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """Fits how answers are ordered.

    Attributes:
        data: folder of the photos with ground truth (default: $DELF_SHARED).
        features: most features per photo; queries with each of these numbers are fitted together.
        cache: folder where features are kept between runs.
    """

    data: Path | None = None
    features: tuple[int, ...] = (100, 1000)
    cache: Path = Path(".cache/accuracy")


class Candidates(NamedTuple):
    """The verified answers to one query: votes [n], log10_nfa [n], whether they are right [n]; and its landmark."""

    votes: Float[np.ndarray, " n"]
    log10_nfa: Float[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]
    landmark: str


def main(options: Evidence) -> dict[str, Any]:
    """Prints the weights and the shares of right first answers, and returns them."""
    data = datasets.data_folder(options.data)
    searched = landmarks(data)
    request = Request(
        max_features=max(options.features),
        head=model_paths("delf-r50")[1],
        collection=(),
        cache=options.cache,
        peer_weights=data / "peer_weights",
    )
    chosen = method("learned", request)
    kept = cached_features(chosen.extract, searched.database, description=chosen.description, folder=options.cache)
    finished = [chosen.finish(one) for one in kept]
    found = {budget: candidates(searched, finished, budget) for budget in options.features}
    every = [one for each in found.values() for one in each]
    names = sorted({one.landmark for one in every})
    halves = [names[::2], names[1::2]]
    apart = {
        name: fitted([one for one in every if one.landmark in other])
        for half, other in (halves, halves[::-1])
        for name in half
    }
    orders: dict[str, Callable[[Candidates], np.ndarray]] = {
        "votes": lambda one: one.votes,
        "log10_nfa": lambda one: -one.log10_nfa,
        "evidence": lambda one: log10_odds(one.votes, one.log10_nfa, apart[one.landmark]),
    }
    rows = [
        {"features": budget}
        | {name: 100 * float(np.mean([is_right(one, order(one)) for one in each])) for name, order in orders.items()}
        for budget, each in found.items()
    ]
    for row in rows:
        print(row)
    weights = fitted(every)
    print(weights)
    return {"weights": weights._asdict(), "rows": rows}


def candidates(searched: datasets.RetrievalSet, features: Sequence[LocalFeatures], budget: int) -> list[Candidates]:
    """Verifies the best photos of each query, with so many features a photo."""
    few = {photo: strongest(one, budget) for photo, one in zip(searched.database, features, strict=True)}
    answers = ask(searched, few, None, Search(verify=100, threshold=-math.inf))
    found = []
    for photo, right, voted, verified in zip(searched.queries, searched.relevant, *answers, strict=True):
        votes = {answer.photo: answer.confidence for answer in voted}
        found.append(
            Candidates(
                np.array([votes[answer.photo] for answer in verified]),
                np.array([-answer.confidence for answer in verified]),
                np.array([answer.photo in right for answer in verified], bool),
                photo.parent.name,
            )
        )
    return found


def is_right(one: Candidates, order: Float[np.ndarray, " n"]) -> bool:
    """Whether the first answer is right if the largest value comes first."""
    return len(order) > 0 and bool(one.right[np.argmax(order)])


def fitted(found: Sequence[Candidates]) -> Weights:
    """The weights that make right first answers most likely, if the first answer were drawn by its odds."""
    useful = [one for one in found if one.right.any()]
    shape = len(useful), max(len(one.right) for one in useful)
    votes, log10_nfa, right, held = np.ones(shape), np.zeros(shape), np.zeros(shape, bool), np.zeros(shape, bool)
    for row, one in enumerate(useful):
        here = row, slice(len(one.right))
        votes[here], log10_nfa[here], right[here], held[here] = one.votes, one.log10_nfa, one.right, True

    def surprise(logarithms: Float[np.ndarray, " 3"]) -> float:
        odds = np.log(10) * log10_odds(votes, log10_nfa, Weights(*np.exp(logarithms)))
        return float(np.mean(logsumexp(odds, axis=1, b=held) - logsumexp(odds, axis=1, b=right)))

    return Weights(*np.exp(minimize(surprise, np.zeros(3), method="Nelder-Mead").x).tolist())


def landmarks(data: Path) -> datasets.RetrievalSet:
    """Ten photos of each landmark, each searched among all; landmarks of one site are not wrong answers."""
    used = set(datasets.landmark_distractors(data))
    photos: list[Path] = []
    for folder in sorted((data / "landmarks/train").iterdir())[:_LANDMARKS]:
        free = [path for path in sorted(folder.iterdir()) if is_photo_name(path.name) and path not in used]
        photos += free[:: max(1, len(free) // _OF_EACH)][:_OF_EACH]
    labels = [photo.parent.name for photo in photos]
    return datasets.among_themselves("landmarks", photos, labels, overlapping=_are_of_one_site)


def _are_of_one_site(a: str, b: str) -> bool:
    return a.endswith(_SITE) and b.endswith(_SITE)


if __name__ == "__main__":
    start_jax()
    run(main, Evidence, __doc__)
