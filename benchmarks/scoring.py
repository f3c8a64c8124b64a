"""Computes the numbers of one row of the accuracy table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from benchmarks.datasets import Experiment, RetrievalSet
from benchmarks.peer_matching import Answer
from benchmarks.ranking import Answers
from retrieval.evaluation import metrics

COLUMNS = (
    "method",
    "dimension",
    "features",
    "verified",
    "top1",
    "top5",
    "map",
    "gap",
    "accepted_right",
    "strangers_accepted",
    "recall_at_0",
    "recall_at_1",
)


def verified(experiment: Experiment, known: Answers, unknown: Answers, *, threshold: float) -> dict[str, Any]:
    """The numbers with geometric verification. They are percentages, except counts and confidences.

    Photos that were not verified follow in the order of their votes. Besides ``voted``'s: ``accepted_right``, queries
    whose first answer is right and accepted, and how many wrong ones and strangers are accepted.
    """
    ranked = [_followed(sure, rest) for sure, rest in zip(known.verified, known.voted, strict=True)]
    first, sure = _first(experiment.known, known.verified)
    strange = _surest(unknown.verified)
    return _numbers(experiment, ranked, known.verified, unknown.verified) | {
        "accepted_right": 100 * float(np.mean(first & (sure >= -threshold))),
        "accepted_wrong": int(np.sum(~first & (sure >= -threshold))),
        "strangers_accepted": int(np.sum(strange >= -threshold)),
    }


def voted(experiment: Experiment, known: Answers, unknown: Answers) -> dict[str, Any]:
    """The numbers of the first stage alone, whose confidences are votes.

    ``recall_at_0`` and ``recall_at_1`` are the shares of queries answered right and surer than all strangers, and than
    all strangers but one. ``precision_recall`` counts all answers to all queries, strangers included, against the
    absolute number of right ones. ``queries`` has the rank of each query's first right answer (0 is best) and the
    confidence of its first answer.
    """
    return _numbers(experiment, known.voted, known.voted, unknown.voted)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as plain text; those that were left out say why."""
    lines = [list(COLUMNS)] + [[_cell(row.get(name)) for name in COLUMNS] for row in rows if "left_out" not in row]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines]
    return "\n".join(text + [f"{row['method']} is left out: {row['left_out']}" for row in rows if "left_out" in row])


def _numbers(
    experiment: Experiment,
    ranked: Sequence[Sequence[Answer]],
    answered: Sequence[Sequence[Answer]],
    unknown: Sequence[Sequence[Answer]],
) -> dict[str, Any]:
    """``ranked`` orders all photos, ``answered`` has those answers that are given with a confidence."""
    known = experiment.known
    relevant = _relevant(known, ranked)
    positives = np.array([len(right) for right in known.relevant])
    first, sure = _first(known, answered)
    strange = _surest(unknown)
    confidence = np.concatenate([sure, strange])
    correct = np.concatenate([first, np.zeros(len(strange), bool)])
    return {
        "top1": 100 * metrics.top_k_accuracy(relevant),
        "top5": 100 * metrics.top_k_accuracy(relevant, k=5),
        "map": 100 * metrics.mean_average_precision(relevant, positives=positives),
        "gap": 100 * metrics.global_average_precision(confidence, correct, positives=len(first)),
        "recall_at_0": 100 * metrics.recall_at_false_accepts(sure, first, strange),
        "recall_at_1": 100 * metrics.recall_at_false_accepts(sure, first, strange, allowed=1),
        "precision_recall": _curve(known, answered, unknown),
        "queries": _queries(known.queries, relevant, sure),
        "surest_strangers": _surest_strangers(experiment.strangers, strange),
    }


def _curve(
    known: RetrievalSet, answered: Sequence[Sequence[Answer]], unknown: Sequence[Sequence[Answer]]
) -> list[list[float]]:
    """[true positives, precision] where the number of true positives grows."""
    pairs = [
        (answer.confidence, answer.photo in right)
        for answers, right in zip(answered, known.relevant, strict=True)
        for answer in answers
    ] + [(answer.confidence, False) for answers in unknown for answer in answers]
    if not pairs:
        return []
    curve = metrics.precision_recall(np.array([c for c, _ in pairs], float), np.array([r for _, r in pairs], bool))
    grown = np.diff(curve.true_positives, prepend=0) > 0
    return [
        [int(count), round(float(precision), 4)]
        for count, precision in zip(curve.true_positives[grown], curve.precision[grown])
    ]


def _relevant(known: RetrievalSet, ranked: Sequence[Sequence[Answer]]) -> Bool[np.ndarray, "q n"]:
    relevant = np.zeros((len(ranked), max(1, *(len(answers) for answers in ranked))), bool)
    for row, (answers, right) in enumerate(zip(ranked, known.relevant, strict=True)):
        relevant[row, : len(answers)] = [answer.photo in right for answer in answers]
    return relevant


def _first(
    known: RetrievalSet, answered: Sequence[Sequence[Answer]]
) -> tuple[Bool[np.ndarray, " q"], Float[np.ndarray, " q"]]:
    """Whether the first answer to each query is right, and how sure it is."""
    right = [bool(a) and a[0].photo in wanted for a, wanted in zip(answered, known.relevant, strict=True)]
    return np.array(right, bool), np.array([a[0].confidence if a else -np.inf for a in answered], float)


def _surest(unknown: Sequence[Sequence[Answer]]) -> Float[np.ndarray, " s"]:
    return np.array([max((a.confidence for a in answers), default=-np.inf) for answers in unknown], float)


def _followed(sure: Sequence[Answer], rest: Sequence[Answer]) -> list[Answer]:
    placed = {answer.photo for answer in sure}
    return [*sure, *(answer for answer in rest if answer.photo not in placed)]


def _queries(
    queries: Sequence[Path], relevant: Bool[np.ndarray, "q n"], sure: Float[np.ndarray, " q"]
) -> dict[str, list[float | None]]:
    ranks = [int(row.argmax()) if row.any() else None for row in relevant]
    confident = [round(float(value), 2) if np.isfinite(value) else None for value in sure]
    return {query.stem: [rank, value] for query, rank, value in zip(queries, ranks, confident, strict=True)}


def _surest_strangers(strangers: RetrievalSet | None, strange: Float[np.ndarray, " s"]) -> dict[str, float]:
    if strangers is None:
        return {}
    order = [i for i in np.argsort(-strange)[:5] if np.isfinite(strange[i])]
    return {strangers.queries[i].stem: round(float(strange[i]), 2) for i in order}


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
