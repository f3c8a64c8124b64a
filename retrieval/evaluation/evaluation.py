"""The measures of a public benchmark, as its authors define them, for the rankings of its queries."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from retrieval.evaluation import metrics
from retrieval.evaluation.benchmark import Benchmark, Task
from retrieval.evaluation.rank_all import Ranking

DEPTHS = (1, 5, 10)


@dataclasses.dataclass(frozen=True)
class Scores:
    """The measures of one task, from 0 to 1 except ``kentucky``.

    Attributes:
        task: its name; "" if the benchmark has only one.
        queries: number of queries with a right answer.
        map: mean average precision over the whole ranking, by the benchmark's own formula.
        map_at_100: the same for the first 100 answers, by sums of precisions (Google Landmarks).
        precision_at: mP@k for every k of ``DEPTHS``.
        top1: share of queries whose first answer is right.
        gap: global (micro) average precision of first answers, also of those to strangers.
        kentucky: N-S score, 0 to 4, of UKBench; None for other benchmarks.
    """

    task: str
    queries: int
    map: float
    map_at_100: float
    precision_at: dict[int, float]
    top1: float
    gap: float
    kentucky: float | None


def evaluate(benchmark: Benchmark, rankings: Sequence[Ranking]) -> list[Scores]:
    """The measures of every task that has a query with right answers.

    A right answer that is not in the ranking counts as not found.

    Args:
        benchmark: which answers are right.
        rankings: one for every query; photos with numbers beyond the database are distractors, and wrong.
    """
    if len(rankings) != len(benchmark.queries):
        raise ValueError(f"{len(rankings)} rankings for {len(benchmark.queries)} queries")
    strangers = sorted(benchmark.strangers)
    return [_scores(benchmark, task, rankings, strangers) for task in benchmark.tasks if any(task.relevant)]


def _scores(benchmark: Benchmark, task: Task, rankings: Sequence[Ranking], strangers: Sequence[int]) -> Scores:
    asked = [q for q, right in enumerate(task.relevant) if right]
    judged = [_judged(rankings[q], task, q) for q in asked]
    first = [_first(rankings[q], task, q) for q in (*asked, *strangers)]
    counts = [len(task.relevant[q]) for q in asked]
    pairs, group = list(zip(judged, counts, strict=True)), benchmark.groups_of
    return Scores(
        task=task.name,
        queries=len(asked),
        map=float(
            np.mean([metrics.average_precision(r, positives=n, trapezoidal=benchmark.trapezoidal) for r, n in pairs])
        ),
        map_at_100=float(np.mean([metrics.average_precision(r, positives=n, at=100) for r, n in pairs])),
        precision_at={k: float(np.mean([metrics.precision_at(r, k=k, positives=n) for r, n in pairs])) for k in DEPTHS},
        top1=float(np.mean([row[:1].any() for row in judged])),
        gap=metrics.global_average_precision(
            np.array([sure for _, sure in first]), np.array([right for right, _ in first], bool), positives=len(asked)
        ),
        kentucky=float(np.mean([metrics.kentucky_score(r, group=group) for r in judged])) if group else None,
    )


def _judged(ranking: Ranking, task: Task, query: int) -> Bool[np.ndarray, " n"]:
    """Whether each answer is right, without the ignored ones."""
    kept = _kept(ranking, task, query)
    return np.isin(ranking.photos[kept], list(task.relevant[query]))


def _first(ranking: Ranking, task: Task, query: int) -> tuple[bool, float]:
    """Whether the first answer is right, and its confidence; -inf if there is no answer."""
    kept = np.flatnonzero(_kept(ranking, task, query))
    if not len(kept):
        return False, -np.inf
    return int(ranking.photos[kept[0]]) in task.relevant[query], float(ranking.confidence[kept[0]])


def _kept(ranking: Ranking, task: Task, query: int) -> Bool[np.ndarray, " n"]:
    return ~np.isin(ranking.photos, list(task.ignored[query]))
