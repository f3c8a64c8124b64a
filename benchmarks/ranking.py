"""Searches for every query of a data set, with and without geometric verification."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.datasets import RetrievalSet
from benchmarks.peer_matching import Answer, Matching, verified
from delf_jax.extraction.head import Head
from delf_jax.features import LocalFeatures
from delf_jax.loading import model_paths
from delf_jax.settings import ExtractionSettings
from retrieval.indexing.index import Index
from retrieval.search import SearchSettings
from retrieval.verification.acceptance_threshold import DEFAULT_THRESHOLD, acceptance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """The settings of the search.

    Attributes:
        verify: number of photos that are verified for each query.
        threshold: answers at or below this log10_nfa are accepted.
        seed: random seed of the verification.
        max_side: longest side in pixels to which photos were reduced.
    """

    verify: int
    threshold: float
    seed: int = 0
    max_side: int = ExtractionSettings.max_side


def accepted_at(photos: int, head: Path | None = None) -> float:
    """The threshold of the default features in an index of so many photos, by a head file or by the packaged head."""
    opened = Head.open(head or model_paths(ExtractionSettings.model)[1])
    calibration = next(iter(opened.calibrations), None)
    many = ExtractionSettings.max_features
    return acceptance(calibration, DEFAULT_THRESHOLD, features=many, photos=photos, verified=photos).threshold


class Answers(NamedTuple):
    """The answers to every query of a set, best first.

    Attributes:
        voted: all photos that got votes in the index.
        verified: the first of them, verified.
    """

    voted: list[list[Answer]]
    verified: list[list[Answer]]


def ask(
    dataset: RetrievalSet, features: Mapping[Path, LocalFeatures], matching: Matching | None, search: Search
) -> Answers:
    """Searches for every query of a set.

    Args:
        dataset: queries and database.
        features: of every photo of it.
        matching: of a method with rules of its own; None verifies as the index does.
        search: how.
    """
    database = [features[photo] for photo in dataset.database]
    settings = ExtractionSettings(max_side=search.max_side)
    index = Index.build(
        ((str(i), one) for i, one in enumerate(database)), threshold=search.threshold, settings=settings
    )
    answers = Answers([], [])
    for place, photo in enumerate(dataset.queries):
        query, ignored = features[photo], dataset.ignored_by(place)
        names = {str(i) for i in ignored}
        verify = search.verify if matching is None else 0
        found = index.search(
            query, verify=verify, top=len(database), exclude=names, settings=SearchSettings(seed=search.seed)
        ).matches
        voted = sorted((Answer(int(match.image), 0, match.score) for match in found), key=lambda one: -one.confidence)
        answers.voted.append(voted)
        if matching is None:
            sure = [(match, match.log10_nfa) for match in found if match.log10_nfa is not None]
            answers.verified.append([Answer(int(match.image), match.inliers, -nfa) for match, nfa in sure])
        else:
            answers.verified.append(
                verified(
                    query,
                    voted[: search.verify],
                    database,
                    matching=matching,
                    threshold=search.threshold,
                    seed=search.seed,
                )
            )
    return answers
