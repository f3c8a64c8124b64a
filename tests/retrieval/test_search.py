"""Search: real photos that must be found or refused, and what the arguments do."""

import math
from pathlib import Path

import numpy as np
import pytest

import retrieval
from delf_jax.errors import SearchIndexError
from delf_jax.features import LocalFeatures
from tests.retrieval.sift import sift_features

REFERENCES = ("graf1", "leuvenA", "box", "chelsea", "coffee", "astronaut", "camera", "rocket")


@pytest.fixture(scope="module")
def photos(demo_photos: Path) -> dict[str, LocalFeatures]:
    return {
        name: sift_features(demo_photos / f"{name}.jpg") for name in (*REFERENCES, "leuvenB", "box_in_scene", "china")
    }


@pytest.fixture(scope="module")
def index(photos: dict[str, LocalFeatures]) -> retrieval.Index:
    return retrieval.Index.build([(name, photos[name]) for name in REFERENCES], backend="exact")


@pytest.mark.parametrize(("query", "partner"), [("leuvenB", "leuvenA"), ("box_in_scene", "box")])
def test_the_partner_is_first_and_proven(
    query: str, partner: str, index: retrieval.Index, photos: dict[str, LocalFeatures]
) -> None:
    result = index.search(photos[query])
    assert result.accepted
    assert result.matches[0].accepted
    assert result.matches[0].image == partner
    assert not any(match.accepted for match in result.matches[1:])


def test_a_stranger_is_refused(index: retrieval.Index, photos: dict[str, LocalFeatures]) -> None:
    result = index.search(photos["china"])
    assert not result.accepted
    assert len(result.matches) == len(REFERENCES)


def test_a_query_without_features_is_answered(index: retrieval.Index) -> None:
    nothing = index.search(LocalFeatures.empty((480, 640), 128))
    assert (nothing.accepted, nothing.matches) == (False, [])


def test_options(index: retrieval.Index, photos: dict[str, LocalFeatures]) -> None:
    query = photos["leuvenB"]
    by_votes = index.search(query, verify=0)
    assert not by_votes.accepted
    assert [match.score for match in by_votes.matches] == sorted((m.score for m in by_votes.matches), reverse=True)
    assert all(match.log10_nfa is None and match.transform is None for match in by_votes.matches)
    assert by_votes.matches[0].image == "leuvenA"

    some = index.search(query, verify=2, top=5)
    assert [match.transform is not None for match in some.matches] == [True, True, False, False, False]
    assert len(index.search(query, top=3).matches) == 3
    without = index.search(query, exclude=["leuvenA", "not there"])
    assert not without.accepted
    assert "leuvenA" not in [match.image for match in without.matches]
    assert not index.search(query, threshold=-math.inf).accepted
    assert index.search(query, settings=retrieval.SearchSettings(seed=1)).matches[0].image == "leuvenA"


def test_the_same_query_gives_the_same_answer(index: retrieval.Index, photos: dict[str, LocalFeatures]) -> None:
    first, second = (index.search(photos["box_in_scene"]) for _ in range(2))
    for a, b in zip(first.matches, second.matches, strict=True):
        assert (a.image, a.inliers, a.log10_nfa, a.score) == (b.image, b.inliers, b.log10_nfa, b.score)
        np.testing.assert_array_equal(a.transform, b.transform)


def test_descriptors_of_another_dimension_are_refused(index: retrieval.Index) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 40)).astype(np.float32)
    query = LocalFeatures(vectors[:, :2], vectors[:, 0], vectors[:, 0], vectors, (10, 10))
    with pytest.raises(SearchIndexError, match=r"40 dimensions, those of the index 128"):
        index.search(query)
