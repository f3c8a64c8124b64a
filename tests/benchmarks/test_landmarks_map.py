"""The halves share nothing, and rankings are scored as defined."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import landmarks_map
from benchmarks.datasets import among_themselves
from benchmarks.landmarks_map import DELHI, half, ordered, score, standardised, votes_of
from benchmarks.peer_matching import Answer


def test_halves_share_no_class_and_train_on_the_other(shared_data: Path) -> None:
    first, second = (half(shared_data, fold) for fold in landmarks_map.FOLDS)
    classes = [{photo.parent.name for photo in one.retrieval_set.database} for one in (first, second)]
    assert [len(names) for names in classes] == [14, 14]
    assert not classes[0] & classes[1]
    assert {photo.parent.name for photo in first.training} == classes[1]
    assert {photo.parent.name for photo in second.training} == classes[0]
    assert all(photo.parent.parent.name == "train" for photo in first.training)
    assert len(first.retrieval_set.database) + len(second.retrieval_set.database) == 254
    # Porto's boxes judge attention too: the head of the second half has not seen them.
    assert {name for name in classes[0] if name.startswith("porto__")} != set()
    assert not any(name.startswith("porto__") for name in classes[1])
    assert classes[0] >= DELHI


def test_monuments_of_one_site_are_neither_right_nor_wrong(shared_data: Path) -> None:
    retrieval_set = half(shared_data, "A").retrieval_set
    for query, right, ignored in zip(retrieval_set.queries, retrieval_set.relevant, retrieval_set.ignored, strict=True):
        label = query.parent.name
        assert {retrieval_set.database[i].parent.name for i in right} == {label}
        others = {retrieval_set.database[i].parent.name for i in ignored if retrieval_set.database[i] != query}
        assert others == (DELHI - {label} if label in DELHI else set())


def test_numbers_worked_by_hand() -> None:
    photos = [Path(str(i)) for i in range(4)]
    retrieval_set = among_themselves("toy", photos, ["a", "a", "b", "b"])
    votes = votes_of([Answer(2, 0, 0.5), Answer(1, 0, 0.25)], 4)
    assert ordered(votes, retrieval_set.ignored_by(0)) == [2, 1, 3]
    numbers = score(retrieval_set, [[2, 1, 3], [0, 2, 3], [3, 0, 1], [0, 1, 2]])
    np.testing.assert_allclose(numbers[:, 0], [1 / 2, 1, 1, 1 / 3])
    np.testing.assert_allclose(numbers[:, 1], [0, 1, 1, 0])
    assert numbers[3, 2] == pytest.approx(1 / 3)
    assert standardised(np.array([1.0, 3.0])).tolist() == [-1.0, 1.0]
    assert standardised(np.zeros(3)).tolist() == [0, 0, 0]
