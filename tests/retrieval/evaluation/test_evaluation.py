"""The measures of benchmarks: numbers worked by hand, and the published definitions written out anew."""

from pathlib import Path

import numpy as np
import pytest

from retrieval.evaluation import evaluation
from retrieval.evaluation.benchmark import Benchmark, Query, Task
from retrieval.evaluation.rank_all import Ranking

NONE: frozenset[int] = frozenset()


def benchmark(*tasks: Task, photos: int = 20, trapezoidal: bool = True, groups_of: int = 0) -> Benchmark:
    queries = tuple(Query(Path(f"q{i}.jpg")) for i in range(len(tasks[0].relevant)))
    database = tuple(Path(f"{i}.jpg") for i in range(photos))
    return Benchmark("roxford5k", queries, database, tasks, trapezoidal, groups_of)


def ranked(*photos: int, sure: float = 0.0) -> Ranking:
    return Ranking(np.array(photos, np.int64), np.full(len(photos), sure))


def test_revisited_measures_by_hand() -> None:
    """One query; easy {3, 5}, hard {7}, junk {1}; 99 is a distractor."""
    answer = ranked(1, 3, 99, 7, 5)
    tasks = (
        Task("Easy", (frozenset({3, 5}),), (frozenset({1, 7}),)),
        Task("Medium", (frozenset({3, 5, 7}),), (frozenset({1}),)),
        Task("Hard", (frozenset({7}),), (frozenset({1, 3, 5}),)),
    )
    easy, medium, hard = evaluation.evaluate(benchmark(*tasks), [answer])
    # Easy, without 1 and 7: 3, 99, 5. Right at ranks 1 and 3.
    assert easy.map == pytest.approx(((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2)
    assert easy.precision_at == {1: 1.0, 5: pytest.approx(2 / 3), 10: pytest.approx(2 / 3)}
    # Medium: 3, 99, 7, 5.
    assert medium.map == pytest.approx((1 + (1 / 2 + 2 / 3) / 2 + (2 / 3 + 3 / 4) / 2) / 3)
    assert medium.precision_at == {1: 1.0, 5: pytest.approx(3 / 4), 10: pytest.approx(3 / 4)}
    # Hard: 99, 7.
    assert hard.map == pytest.approx((0 + 1 / 2) / 2)
    assert hard.precision_at == {1: 0.0, 5: pytest.approx(1 / 2), 10: pytest.approx(1 / 2)}
    assert [scores.top1 for scores in (easy, medium, hard)] == [1, 1, 0]


def test_queries_without_right_answers_are_skipped_and_strangers_count_for_gap() -> None:
    public = Task("Public", (frozenset({0}), NONE, NONE), (NONE,) * 3)
    private = Task("Private", (NONE, frozenset({1, 2}), NONE), (NONE,) * 3)
    answers = [ranked(0, sure=5.0), ranked(1, 4, 2, sure=2.0), ranked(3, sure=9.0)]
    first, second = evaluation.evaluate(benchmark(public, private, trapezoidal=False), answers)
    assert (first.task, first.queries, first.map, first.top1) == ("Public", 1, 1.0, 1.0)
    # The stranger is surer than the right answer: precision 1 / 2 at its place.
    assert first.gap == pytest.approx(1 / 2)
    assert second.map == pytest.approx((1 + 2 / 3) / 2)
    assert second.gap == pytest.approx(1 / 2)


def test_right_answers_that_are_not_ranked_count_as_not_found() -> None:
    (scores,) = evaluation.evaluate(benchmark(Task("", (frozenset({0, 1, 2}),), (NONE,))), [ranked(0, 9, 8)])
    assert scores.map == pytest.approx(1 / 3)
    # The last right answer lies beyond the ranking, so all of the first ten count.
    assert scores.precision_at[10] == pytest.approx(1 / 10)
    (nothing,) = evaluation.evaluate(benchmark(Task("", (frozenset({0}),), (NONE,))), [ranked()])
    assert (nothing.map, nothing.top1, nothing.gap, nothing.precision_at[1]) == (0, 0, 0, 0)


def test_map_at_100_of_google_landmarks() -> None:
    """A right answer at rank 101 does not count, and of 150 right answers only 100 are asked for."""
    photos = [0, *range(200, 299), 1]
    (few,) = evaluation.evaluate(
        benchmark(Task("", (frozenset({0, 1}),), (NONE,)), trapezoidal=False), [ranked(*photos)]
    )
    assert few.map_at_100 == pytest.approx(1 / 2)
    assert few.map == pytest.approx((1 + 2 / 101) / 2)
    many = Task("", (frozenset(range(150)),), (NONE,))
    (all_right,) = evaluation.evaluate(benchmark(many, photos=150, trapezoidal=False), [ranked(*range(100))])
    assert all_right.map_at_100 == 1


def test_kentucky_score() -> None:
    task = Task("", (frozenset({0, 1, 2, 3}), frozenset({0, 1, 2, 3})), (NONE, NONE))
    (scores,) = evaluation.evaluate(benchmark(task, groups_of=4), [ranked(0, 1, 2, 3), ranked(1, 9, 0, 8, 2)])
    assert scores.kentucky == 3


def published_average_precision(ranks: list[int], positives: int) -> float:
    """Philbin et al.'s program: the area under precision against recall, a trapezium for every ranked photo."""
    right, recall, precision, area = 0, 0.0, 1.0, 0.0
    for rank in range(max(ranks, default=-1) + 1):
        right += rank in ranks
        now = right / (rank + 1)
        area += (right / positives - recall) * (precision + now) / 2
        recall, precision = right / positives, now
    return area


def test_revisited_scores_are_those_of_the_published_definition() -> None:
    """Random judgements and rankings: junk is taken out, mP@k stops at the last right photo."""
    generator = np.random.default_rng(11)
    easy, hard, junk, answers = [], [], [], []
    for _ in range(25):
        places = generator.permutation(20)
        easy.append(frozenset(places[:3].tolist()))
        hard.append(frozenset(places[3 : 3 + generator.integers(0, 4)].tolist()))
        junk.append(frozenset(places[8:11].tolist()))
        answers.append(ranked(*generator.permutation(40)))
    tasks = (
        Task("Easy", tuple(easy), tuple(a | b for a, b in zip(junk, hard))),
        Task("Hard", tuple(hard), tuple(a | b for a, b in zip(junk, easy))),
    )
    for scores, task in zip(evaluation.evaluate(benchmark(*tasks), answers), tasks, strict=True):
        areas, precisions = [], {k: [] for k in (1, 5, 10)}
        for answer, right, ignored in zip(answers, task.relevant, task.ignored):
            if not right:
                continue
            positions, removed = [], 0
            for rank, photo in enumerate(answer.photos.tolist()):
                if photo in ignored:
                    removed += 1
                elif photo in right:
                    positions.append(rank - removed)
            areas.append(published_average_precision(positions, len(right)))
            for k, values in precisions.items():
                depth = min(max(positions) + 1, k)
                values.append(sum(position < depth for position in positions) / depth)
        assert scores.queries == len(areas)
        assert scores.map == pytest.approx(np.mean(areas))
        assert scores.precision_at == {k: pytest.approx(np.mean(values)) for k, values in precisions.items()}


def test_every_query_needs_a_ranking() -> None:
    with pytest.raises(ValueError, match="1 rankings for 2 queries"):
        evaluation.evaluate(benchmark(Task("", (NONE, NONE), (NONE, NONE))), [ranked()])
