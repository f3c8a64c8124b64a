"""Measures of rankings and of refusals, as landmark retrieval defines them, in NumPy.

A ranking is given by the relevance of its results in rank order. ``where`` is False for results that are removed before
anything is counted: junk photos of ROxford and RParis, the query itself, padding. The confidence of an answer is higher
if it is surer (the negated ``log10_nfa``).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


def top_k_accuracy(
    relevant: Bool[np.ndarray, "q n"], *, k: int = 1, where: Bool[np.ndarray, "q n"] | None = None
) -> float:
    """Share of queries with a relevant photo among their first k results.

    >>> top_k_accuracy(np.array([[True, False], [False, True]]), k=1)
    0.5
    """
    where = np.ones_like(relevant) if where is None else where
    early = np.cumsum(where, axis=1) <= k
    return float(np.mean(np.any(relevant & where & early, axis=1)))


def average_precision(
    relevant: Bool[np.ndarray, " n"],
    *,
    positives: int,
    at: int | None = None,
    trapezoidal: bool = False,
    where: Bool[np.ndarray, " n"] | None = None,
) -> float:
    """Average precision of one ranking; NaN where the query has no positives.

    It is the sum of the precision at every relevant result, divided by ``positives``, the number of photos that should
    have been found. With ``at`` only the first so many results count, and at most so many positives (mAP@100 of Google
    Landmarks). ``trapezoidal`` takes the mean of the precision just before a relevant result and at it (Oxford, Paris
    and their revisited versions).

    >>> average_precision(np.array([True, False, True]), positives=2)
    0.8333333333333333
    """
    if not positives:
        return float("nan")
    if where is not None:
        relevant = relevant[where]
    if at is not None:
        relevant, positives = relevant[:at], min(positives, at)
    ranks = np.flatnonzero(relevant)
    hits = np.arange(len(ranks))
    precision = (hits + 1) / (ranks + 1)
    if trapezoidal:
        before = np.where(ranks == 0, 1.0, hits / np.maximum(ranks, 1))
        precision = (precision + before) / 2
    return float(precision.sum() / positives)


def mean_average_precision(
    relevant: Bool[np.ndarray, "q n"],
    *,
    positives: Int[np.ndarray, " q"],
    at: int | None = None,
    trapezoidal: bool = False,
    where: Bool[np.ndarray, "q n"] | None = None,
) -> float:
    """Mean of ``average_precision`` over the queries that have positives; the others are skipped."""
    where = np.ones_like(relevant) if where is None else where
    precisions = [
        average_precision(row, positives=int(count), at=at, trapezoidal=trapezoidal, where=kept)
        for row, count, kept in zip(relevant, positives, where)
        if count
    ]
    return float(np.mean(precisions)) if precisions else float("nan")


def precision_at(
    relevant: Bool[np.ndarray, " n"],
    *,
    k: int,
    positives: int | None = None,
    where: Bool[np.ndarray, " n"] | None = None,
) -> float:
    """Precision among the first k results, or up to the last relevant one if that comes sooner (ROxford and RParis).

    ``positives`` is the number of photos that should have been found. If the ranking has fewer of them, the last one is
    beyond its end. None means that the ranking is complete.
    """
    ranks = np.flatnonzero(relevant if where is None else relevant[where]) + 1
    if not len(ranks):
        return 0.0
    complete = positives is None or len(ranks) >= positives
    depth = min(int(ranks[-1]), k) if complete else k
    return float(np.sum(ranks <= depth) / depth)


def kentucky_score(relevant: Bool[np.ndarray, " n"], *, group: int = 4) -> int:
    """Number of photos of a query's group, the query included, among the first ``group`` results.

    The mean over all queries is the N-S score of UKBench.

    >>> kentucky_score(np.array([True, True, False, True, True]))
    3
    """
    return int(np.sum(relevant[:group]))


def global_average_precision(
    confidence: Float[np.ndarray, " q"], correct: Bool[np.ndarray, " q"], *, positives: int
) -> float:
    """GAP, also called micro-AP: one answer for each query, all answers in one list by confidence.

    It is the sum, over the correct answers, of the precision at their place in the list, divided by ``positives``, the
    number of queries that have a right answer. Among equal confidences the wrong answers come first.
    """
    order = np.lexsort((correct, -confidence))
    return average_precision(correct[order], positives=positives)


class PrecisionRecall(NamedTuple):
    """One point for every distinct confidence, from the surest down.

    Attributes:
        threshold: float [t], answers of at least this confidence are given.
        precision: float [t], share of correct answers among them.
        true_positives: int [t], their absolute number over all queries: the x axis of the paper's Figure 4.
    """

    threshold: Float[np.ndarray, " t"]
    precision: Float[np.ndarray, " t"]
    true_positives: Int[np.ndarray, " t"]


def precision_recall(confidence: Float[np.ndarray, " a"], correct: Bool[np.ndarray, " a"]) -> PrecisionRecall:
    """The curve over all answers of all queries, distractor queries included (theirs are never correct)."""
    order = np.argsort(-confidence, kind="stable")
    given = confidence[order]
    last = np.append(given[1:] != given[:-1], True)[: len(given)]
    true = np.cumsum(correct[order])[last]
    return PrecisionRecall(given[last], true / (np.flatnonzero(last) + 1), true)


def recall_at_false_accepts(
    confidence: Float[np.ndarray, " q"],
    correct: Bool[np.ndarray, " q"],
    unknown: Float[np.ndarray, " u"],
    *,
    allowed: int = 0,
) -> float:
    """Share of queries answered right at the lowest threshold that accepts at most ``allowed`` unknown queries.

    Args:
        confidence: of the first answer to every query that has a right one; -inf where there was none.
        correct: whether that answer is right.
        unknown: of the surest answer to every query that has no right one.
        allowed: number of unknown queries that may be answered.

    >>> recall_at_false_accepts(np.array([9.0, 5.0]), np.array([True, True]), np.array([7.0, 1.0]))
    0.5
    """
    limit = np.sort(unknown)[::-1][allowed] if allowed < len(unknown) else -np.inf
    return float(np.mean(correct & (confidence > limit)))
