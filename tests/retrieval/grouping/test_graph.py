"""Groups from accepted pairs: bridges, pairs that contradict others, copies, representatives."""

import numpy as np
import pytest

from retrieval.grouping.examining import Edge
from retrieval.grouping.graph import copies_of, grouped, names_of, representative

SURE, WEAK = -30.0, -8.0
REGION = np.array([[0.0, 0, 100, 100], [0, 0, 100, 100]])


def shift(x: float) -> np.ndarray:
    return np.array([[1.0, 0, x], [0, 1, 0], [0, 0, 1]])


def edge(pair: str, log10_nfa: float = SURE, *, x: float = 0.0, inliers: int = 20, copy: bool = False) -> Edge:
    return Edge(pair[0], pair[1], inliers, log10_nfa, -6.0, shift(x), REGION, copy)


def photos(edges: list[Edge]) -> list[str]:
    return ["".join(sorted(names_of(group))) for group in grouped(edges)]


def test_pairs_that_share_photos_are_one_group_and_the_largest_comes_first() -> None:
    assert photos([edge("xy"), edge("ab"), edge("bc", WEAK)]) == ["abc", "xy"]


@pytest.mark.parametrize(
    ("left", "bridge", "right", "expected"),
    [
        ("ab bc ca", WEAK, "de ef fd", ["abc", "def"]),
        ("ab bc ca", SURE, "de ef fd", ["abcdef"]),
        ("ab bc", WEAK, "de ef", ["abc", "def"]),
        # A pair is no group that could do without the bridge.
        ("ab bc ca", WEAK, "de", ["abcde"]),
    ],
)
def test_one_weak_pair_does_not_join_two_groups(left: str, bridge: float, right: str, expected: list[str]) -> None:
    assert photos([*map(edge, left.split()), edge("cd", bridge), *map(edge, right.split())]) == expected


def test_two_weak_pairs_join_two_groups() -> None:
    sides = [edge(pair) for pair in ("ab", "bc", "de", "ef")]
    assert photos([*sides, edge("cd", WEAK), edge("af", WEAK)]) == ["abcdef"]


@pytest.mark.parametrize(("x", "kept"), [(30.0, True), (33.0, True), (50.0, True), (70.0, False), (-30.0, False)])
def test_a_weak_pair_must_lead_where_the_way_over_a_third_photo_leads(x: float, kept: bool) -> None:
    # Over b, a point moves by 10 + 20. The region's diagonal is 141 pixels, a quarter of it 35.
    (group,) = grouped([edge("ab", x=10), edge("bc", x=20), edge("ac", WEAK, x=x)])
    assert any({each.a, each.b} == {"a", "c"} for each in group) == kept


def test_the_way_back_is_the_inverse_and_one_way_that_closes_is_enough() -> None:
    edges = [edge("ba", x=-10), edge("bc", x=20), edge("ad", x=500), edge("dc", x=0), edge("ac", WEAK, x=30)]
    (group,) = grouped(edges)
    assert len(group) == 5


def test_sure_pairs_stay_even_if_they_contradict_each_other() -> None:
    (group,) = grouped([edge("ab", x=10), edge("bc", x=20), edge("ac", x=300)])
    assert len(group) == 3


def test_the_representative_has_most_inliers() -> None:
    edges = [edge("ab", inliers=30), edge("bc", inliers=25), edge("ca", inliers=10)]
    assert representative(edges) == "b"
    assert representative([edge("ba")]) == "a"


def test_copies_of_copies_are_copies() -> None:
    edges = [edge("ab", copy=True), edge("bc", copy=True), edge("cd"), edge("ef", copy=True)]
    assert copies_of(edges) == [{"a", "b", "c"}, {"e", "f"}]
