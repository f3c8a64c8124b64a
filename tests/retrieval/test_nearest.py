"""Neighbours of several indexes, merged to those of one."""

import numpy as np
import pytest

from retrieval.nearest import Neighbours, merge_neighbours


def test_the_nearest_of_all_parts_come_first_and_the_lower_photo_of_equal_ones() -> None:
    def part(*found: tuple[int, float]) -> Neighbours:
        photos, similarities = zip(*found)
        return Neighbours(np.array([photos]), np.array([similarities], np.float32))

    merged = merge_neighbours([part((4, 0.9), (4, 0.5), (-1, -np.inf)), part((2, 0.9), (7, 0.5), (2, 0.1))], 5)
    assert merged.photos.tolist() == [[2, 4, 4, 7, 2]]
    assert merged.similarities.tolist() == [pytest.approx([0.9, 0.9, 0.5, 0.5, 0.1])]
