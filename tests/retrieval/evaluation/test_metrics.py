"""Every metric against numbers worked by hand."""

import numpy as np
import pytest

from retrieval.evaluation import metrics


def row(text: str) -> np.ndarray:
    return np.array([letter == "+" for letter in text])


def test_top_k_accuracy_counts_after_taking_out_junk() -> None:
    relevant = np.stack([row("+---"), row("--+-"), row("-+--"), row("----")])
    assert metrics.top_k_accuracy(relevant) == 0.25
    assert metrics.top_k_accuracy(relevant, k=2) == 0.5
    assert metrics.top_k_accuracy(relevant, k=3) == 0.75
    junk_first = np.array([[True] * 4, [True] * 4, [False, True, True, True], [True] * 4])
    assert metrics.top_k_accuracy(relevant, where=junk_first) == 0.5


def test_average_precision() -> None:
    assert metrics.average_precision(row("+-+"), positives=2) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.average_precision(row("-+-+"), positives=3) == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert metrics.average_precision(row("---"), positives=4) == 0
    assert np.isnan(metrics.average_precision(row("---"), positives=0))


def test_average_precision_at_a_depth_asks_for_no_more_positives_than_fit() -> None:
    assert metrics.average_precision(row("++-+"), positives=10, at=2) == 1
    assert metrics.average_precision(row("-+++"), positives=3, at=2) == pytest.approx(1 / 4)


def test_trapezoidal_average_precision() -> None:
    # Hits at ranks 1 and 3: (1 + 1) / 2, then before (1 / 2) and at (2 / 3).
    expected = (1 + (1 / 2 + 2 / 3) / 2) / 2
    assert metrics.average_precision(row("+-+"), positives=2, trapezoidal=True) == pytest.approx(expected)
    # A first hit at rank 2: precision 0 before, 1 / 2 at.
    assert metrics.average_precision(row("-+"), positives=1, trapezoidal=True) == pytest.approx(1 / 4)


def test_junk_is_taken_out_before_ranks_are_counted() -> None:
    kept = np.array([False, True, True, False, True])
    junk = metrics.average_precision(row("-+--+"), positives=2, trapezoidal=True, where=kept)
    assert junk == metrics.average_precision(row("+-+"), positives=2, trapezoidal=True)


def test_mean_average_precision_skips_queries_without_positives() -> None:
    relevant = np.stack([row("+-"), row("-+"), row("--")])
    mean = metrics.mean_average_precision(relevant, positives=np.array([1, 1, 0]))
    assert mean == pytest.approx((1 + 1 / 2) / 2)


def test_precision_at_stops_at_the_last_relevant_result() -> None:
    assert metrics.precision_at(row("+-+-------"), k=10) == pytest.approx(2 / 3)
    assert metrics.precision_at(row("+-+-------"), k=2) == pytest.approx(1 / 2)
    assert metrics.precision_at(row("----"), k=5) == 0
    assert metrics.precision_at(row("-+"), k=1, where=np.array([False, True])) == 1


def test_global_average_precision() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    correct = np.array([True, False, True, False])
    # Four queries of which three have an answer: precision 1 at place 1 and 2 / 3 at place 3.
    assert metrics.global_average_precision(confidence, correct, positives=3) == pytest.approx((1 + 2 / 3) / 3)
    shuffled = np.array([2, 0, 3, 1])
    assert metrics.global_average_precision(confidence[shuffled], correct[shuffled], positives=3) == pytest.approx(
        5 / 9
    )


def test_equal_confidences_favour_nobody() -> None:
    tied = np.array([0.5, 0.5])
    for correct in (np.array([True, False]), np.array([False, True])):
        assert metrics.global_average_precision(tied, correct, positives=1) == pytest.approx(1 / 2)


def test_precision_recall_has_absolute_true_positives_and_one_point_a_threshold() -> None:
    curve = metrics.precision_recall(np.array([2.0, 5.0, 2.0, 4.0]), np.array([True, True, False, False]))
    np.testing.assert_array_equal(curve.threshold, [5, 4, 2])
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 4])
    np.testing.assert_array_equal(curve.true_positives, [1, 1, 2])


def test_recall_at_false_accepts() -> None:
    confidence = np.array([9.0, 7.0, 5.0, 3.0, -np.inf])
    correct = np.array([True, True, False, True, False])
    unknown = np.array([3.0, 8.0, 1.0])
    # An answer must be surer than the surest unknown query, and one as sure as it is refused.
    assert metrics.recall_at_false_accepts(confidence, correct, unknown) == 1 / 5
    assert metrics.recall_at_false_accepts(confidence, correct, unknown, allowed=1) == 2 / 5
    assert metrics.recall_at_false_accepts(confidence, correct, unknown, allowed=2) == 3 / 5
    assert metrics.recall_at_false_accepts(confidence, correct, unknown[:0]) == 3 / 5


def test_average_precision_is_that_of_scikit_learn() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(7)
    for _ in range(20):
        confidence, correct = generator.permutation(50).astype(float), generator.uniform(size=50) < 0.2
        expected = sklearn_metrics.average_precision_score(correct, confidence)
        ranked = correct[np.argsort(-confidence)]
        positives = int(correct.sum())
        assert metrics.average_precision(ranked, positives=positives) == pytest.approx(expected)
        assert metrics.global_average_precision(confidence, correct, positives=positives) == pytest.approx(expected)


def test_precision_recall_is_that_of_scikit_learn_with_absolute_counts() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(8)
    confidence, correct = generator.integers(0, 12, 60).astype(float), generator.uniform(size=60) < 0.4
    precision, recall, _ = sklearn_metrics.precision_recall_curve(correct, confidence)
    curve = metrics.precision_recall(confidence, correct)
    # Theirs begins at the lowest threshold and ends in an added point of recall 0.
    np.testing.assert_allclose(curve.precision, precision[:-1][::-1])
    np.testing.assert_allclose(curve.true_positives, recall[:-1][::-1] * correct.sum())
