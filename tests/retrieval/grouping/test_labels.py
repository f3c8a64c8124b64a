"""Names against groups."""

import pytest

from retrieval.grouping.labels import LabelledGroup, labelled, split_labels
from retrieval.grouping.measures import group_scores


def test_names_of_a_group() -> None:
    labels = {"a": "x", "b": "x", "c": "y", "d": "y", "e": "z"}
    assert labelled("abcdef", labels) == LabelledGroup("x", (2, 5), ("c", "d", "e"), ("f",), ("x", "y"))
    assert labelled("ab", labels) == LabelledGroup("x", (2, 2), (), (), ())
    assert labelled("fg", labels) == LabelledGroup(None, (0, 0), (), ("f", "g"), ())


def test_names_that_are_in_several_groups() -> None:
    labels = {"a": "x", "b": "x", "c": "x", "d": "x", "e": "y", "f": "y"}
    assert split_labels([labelled(each, labels) for each in ("ab", "ef", "cd", "gh")]) == {"x": [0, 2]}


def test_scores_are_perfect_only_if_the_groups_are() -> None:
    truth = {"a": 1, "b": 1, "c": 2, "d": 2, "e": 3}
    assert group_scores({"a": "p", "b": "p", "c": "q", "d": "q", "elsewhere": "p"}, truth) == (1, 1, 1, 1)
    # Nobody is in a group: no pair is wrong, none is found, and everybody is only with himself.
    alone = group_scores({}, truth)
    assert alone[1:] == (0, 1, (0.5 * 4 + 1) / 5)
    assert alone.precision != alone.precision
    # All in one group: 2 of 10 pairs belong together.
    assert group_scores(dict.fromkeys(truth, 0), truth) == pytest.approx((0.2, 1, (4 * 2 / 5 + 1 / 5) / 5, 1))
