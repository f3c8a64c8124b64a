"""Votes, verification and ranking: formulas by hand, and real photos that must be found or refused."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

import retrieval
from delf_jax.errors import SearchIndexError
from delf_jax.features import LocalFeatures
from retrieval.voting import votes
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


def test_votes_are_margin_times_share() -> None:
    photos = np.array([[0, 1, 0, 2], [2, 2, 2, 2]])
    similarities = np.array([[0.9, 0.8, 0.7, 0.5], [0.6, 0.5, 0.4, 0.1]], np.float32)
    # First descriptor: margins 0.4 and 0.3, and 0 for photo 2, which owns the furthest neighbour. Second: one vote.
    expected = [0.4**2 / 0.7, 0.3**2 / 0.7, 0.5, -np.inf]
    np.testing.assert_allclose(votes(photos, similarities, photo_count=4), expected, rtol=1e-5)


def test_missing_neighbours_do_not_vote() -> None:
    photos = np.array([[0, 1, -1], [-1, -1, -1]])
    similarities = np.array([[0.9, 0.5, -np.inf], [-np.inf] * 3], np.float32)
    np.testing.assert_allclose(votes(photos, similarities, photo_count=3), [0.4, 0, -np.inf], rtol=1e-6)


def test_repeated_patterns_do_not_outvote_distinct_ones() -> None:
    # Photo 0 has the only good partner of descriptor 0; the others are a pattern that is all over photos 1 and 2.
    photos = np.array([[0, 1, 2, 2]] + 3 * [[1, 2, 1, 2]])
    similarities = np.array([[0.9, 0.3, 0.3, 0.3]] + 3 * [[0.9, 0.9, 0.88, 0.8]], np.float32)
    scores = votes(photos, similarities, photo_count=3)
    assert scores[0] > 2 * max(scores[1:])


@pytest.mark.parametrize(("query", "partner"), [("leuvenB", "leuvenA"), ("box_in_scene", "box")])
def test_the_partner_is_first_and_proven(
    query: str, partner: str, index: retrieval.Index, photos: dict[str, LocalFeatures]
) -> None:
    result = index.search(photos[query])
    best = result.matches[0]
    assert result.accepted
    assert best.accepted
    assert best.image == partner
    assert best.log10_nfa is not None
    assert best.log10_nfa < -5
    assert not any(match.accepted for match in result.matches[1:])
    assert best.transform is not None
    # The numbers are in pixels of the two photos: the transform takes the query's points to the photo's, or back.
    there = distance(best.transform, best.query_points, best.points)[best.is_inlier].max()
    back = distance(np.linalg.inv(best.transform), best.points, best.query_points)[best.is_inlier].max()
    assert best.inliers == best.is_inlier.sum() > 10
    assert min(there, back) < 20
    known = {tuple(point) for point in photos[partner].keypoints}
    assert {tuple(point) for point in best.points} <= known


def distance(transform: np.ndarray, points: np.ndarray, partners: np.ndarray) -> np.ndarray:
    moved = np.c_[points, np.ones(len(points))] @ transform.T
    return np.linalg.norm(moved[:, :2] / moved[:, 2:] - partners, axis=1)


def test_a_stranger_is_refused(index: retrieval.Index, photos: dict[str, LocalFeatures]) -> None:
    result = index.search(photos["china"])
    assert not result.accepted
    assert len(result.matches) == len(REFERENCES)


def test_matching_two_photos_is_a_search_with_one_candidate(photos: dict[str, LocalFeatures]) -> None:
    alone = retrieval.Index.build([("box", photos["box"])], backend="exact").search(photos["box_in_scene"]).matches[0]
    pair = retrieval.match(photos["box_in_scene"], photos["box"], name="box")
    assert (pair.inliers, pair.putative, pair.accepted) == (alone.inliers, alone.putative, alone.accepted)
    assert pair.log10_nfa == pytest.approx(alone.log10_nfa, abs=0.05)
    assert pair.score == 0
    assert alone.score > 0


def test_other_geometry(photos: dict[str, LocalFeatures]) -> None:
    found = retrieval.match(photos["leuvenB"], photos["leuvenA"], model="similarity")
    assert found.accepted
    assert found.transform is not None
    rotation = found.transform[:2, :2]
    np.testing.assert_allclose(rotation @ rotation.T, np.linalg.det(rotation) * np.eye(2), atol=1e-4)


def test_large_photos_are_judged_at_the_size_they_were_looked_at(photos: dict[str, LocalFeatures]) -> None:
    def enlarged(features: LocalFeatures) -> LocalFeatures:
        height, width = features.image_size
        return dataclasses.replace(
            features,
            keypoints=features.keypoints * 4,
            scales=features.scales / 4,
            image_size=(4 * height, 4 * width),
        )

    small = retrieval.match(photos["leuvenB"], photos["leuvenA"], max_side=512)
    large = retrieval.match(enlarged(photos["leuvenB"]), enlarged(photos["leuvenA"]), max_side=512)
    assert large.inliers == small.inliers
    assert large.log10_nfa == pytest.approx(small.log10_nfa, abs=0.01)


def test_a_query_without_features_is_answered(index: retrieval.Index, photos: dict[str, LocalFeatures]) -> None:
    nothing = LocalFeatures.empty((480, 640), 128)
    assert index.search(nothing) == retrieval.SearchResult(False, [])
    for pair in ((nothing, photos["box"]), (photos["box"], nothing), (nothing, nothing)):
        found = retrieval.match(*pair)
        assert (found.putative, found.inliers, found.accepted) == (0, 0, False)


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
