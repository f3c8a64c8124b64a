"""Votes by hand."""

import numpy as np
import pytest

from retrieval.nearest import Neighbours
from retrieval.voting import rank_by_votes, votes


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


def test_a_photo_that_must_not_be_found_takes_no_share_but_may_be_the_last_neighbour() -> None:
    photos = np.array([[-1, 0, 1, -1]])
    similarities = np.array([[0.9, 0.8, 0.6, 0.5]], np.float32)
    np.testing.assert_allclose(votes(photos, similarities, photo_count=2), [0.3**2 / 0.4, 0.1**2 / 0.4], rtol=1e-5)


@pytest.mark.parametrize("largest", [11, 3_000_000])
def test_photos_are_ranked_by_votes_whatever_their_numbers(largest: int) -> None:
    photos = np.array([[7, largest, 7, 2], [2, 2, -1, -1]])
    similarities = np.array([[0.9, 0.8, 0.7, 0.5], [0.6, 0.5, -np.inf, -np.inf]], np.float32)
    ranked = rank_by_votes(Neighbours(photos, similarities))
    assert ranked.numbers.tolist() == [7, largest, 2]
    np.testing.assert_allclose(ranked.scores, [0.4**2 / 0.7, 0.3**2 / 0.7, 0.1], rtol=1e-5)
    assert not len(rank_by_votes(Neighbours(np.full((2, 3), -1), np.zeros((2, 3), np.float32))).numbers)
