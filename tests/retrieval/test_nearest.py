"""Neighbours of several indexes, merged to those of one; and lists that go on where they tell no photos apart."""

import numpy as np
import pytest

from retrieval.nearest import Neighbours, merge_neighbours, telling_neighbours


def lists(*rows: list[tuple[int, float]]) -> Neighbours:
    photos, similarities = zip(*(zip(*row) for row in rows))
    return Neighbours(np.array(photos), np.array(similarities, np.float32))


def shown(found: Neighbours) -> list[list[tuple[int, float]]]:
    return [
        [(photo, round(float(similarity), 3)) for photo, similarity in zip(*row) if similarity > -np.inf]
        for row in zip(*found)
    ]


def telling(everything: Neighbours, count: int) -> tuple[Neighbours, list[tuple[list[int], int]]]:
    """The lists, and which rows were asked for how many."""
    asked = []

    def nearest(rows: np.ndarray, count: int) -> Neighbours:
        asked.append((rows.tolist(), count))
        return Neighbours(everything.photos[rows, :count], everything.similarities[rows, :count])

    return telling_neighbours(nearest, len(everything.photos), count), asked


def test_the_nearest_of_all_parts_come_first_and_the_lower_photo_of_equal_ones() -> None:
    parts = [lists([(4, 0.9), (4, 0.5), (-1, -np.inf)]), lists([(2, 0.9), (7, 0.5), (2, 0.1)])]
    assert shown(merge_neighbours(parts, 5)) == [[(2, 0.9), (4, 0.9), (4, 0.5), (7, 0.5), (2, 0.1)]]
    assert shown(merge_neighbours(parts, 3)) == [[(2, 0.9), (4, 0.9), (4, 0.5)]]


@pytest.mark.parametrize(
    ("row", "length"),
    [
        ([(0, 0.9), (1, 0.5), (2, 0.4), (3, 0.3), (4, 0.2)], 2),
        # Copies are equally near: the list goes on to what is less near, here by 0.1.
        ([(0, 0.9), (1, 0.9), (2, 0.89), (3, 0.8), (4, 0.7)], 4),
        # One photo alone: the list goes on to another one.
        ([(0, 0.9), (0, 0.8), (0, 0.7), (0, 0.6), (1, 0.5)], 5),
        ([(0, 0.9), (1, 0.9), (0, 0.9), (0, 0.9), (0, 0.8)], 5),
        # The best has number -1 because it must not be found: what may be found is told apart.
        ([(-1, 1.0), (0, 0.9), (0, 0.8), (1, 0.7), (2, 0.6)], 4),
        ([(0, 0.9), (1, 0.8), (-1, 0.7), (-1, 0.6), (2, 0.5)], 2),
        # A list of two that can be found, which ends with one.
        ([(0, 0.9), (-1, 0.8), (-1, 0.7), (1, 0.6), (2, 0.5)], 4),
        # Nothing tells them apart.
        ([(0, 0.9), (1, 0.9), (2, 0.9), (3, 0.9), (4, 0.9)], 5),
        ([(-1, 0.9), (-1, 0.8), (-1, 0.7), (-1, 0.6), (0, 0.5)], 5),
    ],
)
def test_a_list_goes_on_until_it_tells_photos_apart(row: list[tuple[int, float]], length: int) -> None:
    found, asked = telling(lists(row), 2)
    assert shown(found) == [row[:length]]
    assert asked == [([0], 2), ([0], 8)][: 1 + (length > 2)]


def test_only_lists_that_tell_nothing_are_asked_for_again_and_not_without_end() -> None:
    count, copies = 2, 40
    copied = [(photo, 0.9) for photo in range(copies)]
    plain = [(photo, 0.9 - 0.1 * photo) for photo in range(copies)]
    found, asked = telling(lists(copied, plain, copied), count)
    assert asked == [([0, 1, 2], 2), ([0, 2], 8), ([0, 2], 32)]
    assert shown(found) == [copied[:32], plain[:2], copied[:32]]


def test_parts_that_go_on_by_themselves_are_merged_to_the_list_of_one_index() -> None:
    rng = np.random.default_rng(0)
    for photo_count in (2, 3, 10, 40):
        # Similarities in steps, and one photo that must not be found: many lists tell nothing at first.
        similarities = -np.sort(-rng.integers(0, 20, (100, 200)) / rng.integers(25, 2000, (100, 1))).astype(np.float32)
        photos = rng.integers(-1, photo_count, similarities.shape)
        everything = merge_neighbours([Neighbours(photos, similarities)], 200)
        parts = []
        for part in range(3):
            others_last = np.argsort(everything.photos % 3 != part, axis=1, kind="stable")
            own = Neighbours(*(np.take_along_axis(column, others_last, 1) for column in everything))
            own.similarities[own.photos % 3 != part] = -np.inf
            own.photos[own.photos % 3 != part] = -1
            parts.append(telling(own, 5)[0])
        assert shown(merge_neighbours(parts, 5)) == shown(telling(everything, 5)[0])
