"""How well groups agree with the truth: pairwise precision and recall, and B-cubed."""

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import NamedTuple


class GroupScores(NamedTuple):
    """Shares between 0 and 1; NaN if there is nothing to count.

    Attributes:
        precision: of the pairs of photos in one group, those that belong together.
        recall: of the pairs that belong together, those in one group.
        b_cubed_precision: mean over photos of the share of its group that belongs with it, itself among them.
        b_cubed_recall: mean over photos of the share of what belongs with it that is in its group.
    """

    precision: float
    recall: float
    b_cubed_precision: float
    b_cubed_recall: float


def group_scores(found: Mapping[str, Hashable], truth: Mapping[str, Hashable]) -> GroupScores:
    """Compares groups with true ones; both give each photo the mark of its group.

    Photos that ``truth`` does not know are left out. A photo that ``found`` lacks is in no group; a photo alone in its
    group belongs to no pair. Source of B-cubed: Bagga and Baldwin, COLING-ACL 1998.

    >>> truth = {"a": 1, "b": 1, "c": 1, "d": 2}
    >>> group_scores({"a": "x", "b": "x", "d": "x"}, truth)
    GroupScores(precision=0.3333333333333333, recall=0.3333333333333333, b_cubed_precision=0.6666666666666666, b_cubed_recall=0.6666666666666666)
    """  # noqa: E501
    marks = {name: (found[name],) if name in found else (None, name) for name in truth}
    groups, parts = Counter(marks.values()), Counter(truth.values())
    both = Counter((marks[name], truth[name]) for name in truth)
    agreeing = sum(map(_pairs, both.values()))
    shares = [(both[marks[name], truth[name]], groups[marks[name]], parts[truth[name]]) for name in truth]
    return GroupScores(
        precision=_share(agreeing, sum(map(_pairs, groups.values()))),
        recall=_share(agreeing, sum(map(_pairs, parts.values()))),
        b_cubed_precision=_share(sum(common / group for common, group, _ in shares), len(shares)),
        b_cubed_recall=_share(sum(common / part for common, _, part in shares), len(shares)),
    )


def _pairs(count: int) -> int:
    return count * (count - 1) // 2


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
