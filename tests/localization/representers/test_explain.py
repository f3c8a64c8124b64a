"""Explanations against brute force over all points."""

import numpy as np
import pytest

import localization
from localization.predictor import Predictor
from localization.representers.explain import Explainer
from localization.representers.values import PointRanking
from tests.localization.planted import MAPS, planted


def query(seed: int, positions: int = 1) -> np.ndarray:
    dense, (top, left, _, _) = planted(seed)
    unit = dense / np.linalg.norm(dense, axis=-1, keepdims=True)
    return unit[top, left : left + positions]


@pytest.mark.parametrize("ranking", ["value", "centred", "local"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("per_photo", [1, 2, None])
def test_equals_brute_force(
    planted_predictor: Predictor, ranking: PointRanking, sign: int, per_photo: int | None
) -> None:
    explainer = planted_predictor.explainer
    points = explainer.points
    unit = points.unit.astype(np.float64)
    for seed in range(3):
        q = query(seed, positions=1 + seed)
        centre = len(q) * planted_predictor.statistics.total.mean_unit
        weight = np.ones(len(points)) if ranking == "local" else np.abs(explainer.importance)
        scores = weight * (unit @ (q.sum(0) - centre if ranking == "centred" else q.sum(0)))
        expected: list[int] = []
        for row in np.argsort(-scores):
            photo = points.photo[row]
            if sign * explainer.importance[row] <= 0:
                continue
            if per_photo is None or sum(points.photo[r] == photo for r in expected) < per_photo:
                expected.append(int(row))
        ranked = explainer.rank(q, sign=sign, top=7, ranking=ranking, per_photo=per_photo)
        assert ranked.rows.tolist() == expected[:7]


def test_early_stop_is_exact_and_skips_points() -> None:
    """With norms of a heavy tail the certificate closes after the first blocks."""
    rng = np.random.default_rng(0)
    maps = {}
    for i in range(60):
        directions = np.abs(rng.normal(size=(20, 24, 16)))
        maps[f"{i}"] = (directions * rng.lognormal(sigma=1.0, size=(20, 24, 1))).astype(np.float32)
    explainer = localization.fit(maps).explainer
    q = maps["3"][4, 5][None] / np.linalg.norm(maps["3"][4, 5])
    ranked = explainer.rank(q, sign=1, top=5, ranking="value", per_photo=1)
    assert 0 < ranked.points_scanned < 0.5 * (explainer.importance > 0).sum()
    values = explainer.importance * (explainer.points.unit.astype(np.float64) @ q[0])
    best_of_photo = sorted((values[explainer.points.photo == i].max() for i in range(60)), reverse=True)
    np.testing.assert_allclose(ranked.scores, best_of_photo[:5], rtol=1e-4)


@pytest.mark.parametrize("ranking", ["value", "centred", "local"])
@pytest.mark.parametrize("sign", [1, -1])
def test_scann_finds_nearly_the_same(planted_predictor: Predictor, ranking: PointRanking, sign: int) -> None:
    pytest.importorskip("scann")
    exact = planted_predictor.explainer
    approximate = Explainer(exact.points, exact.solution, mean_unit=exact.mean_unit, index="scann")
    found = 0
    for seed in range(5):
        options = {"sign": sign, "top": 5, "ranking": ranking, "per_photo": 1}
        a, b = exact.rank(query(seed), **options), approximate.rank(query(seed), **options)
        assert (b.scores <= a.scores[: len(b.scores)] + 1e-9).all()
        found += len(np.intersect1d(a.rows, b.rows))
    assert found >= 20


def test_values_sum_to_the_activation(planted_predictor: Predictor) -> None:
    q = query(5)
    explanation = planted_predictor.explainer.explain(q, top=10_000, ranking="value", per_photo=None)
    everything = explanation.excitatory + explanation.inhibitory
    assert sum(p.value for p in everything) == pytest.approx(explanation.value, abs=1e-4)
    assert explanation.value == pytest.approx(float(planted_predictor.solution.w @ q[0]), abs=1e-6)
    assert explanation.excitatory[-1].cumulative == pytest.approx(1, abs=1e-4)
    assert explanation.inhibitory[-1].cumulative == pytest.approx(1, abs=1e-4)
    assert explanation.points_scanned == len(planted_predictor.points)


def test_figures_of_a_point(planted_predictor: Predictor) -> None:
    name, dense = next(iter(MAPS.items()))
    top, left = np.unravel_index(np.linalg.norm(dense, axis=-1).argmax(), dense.shape[:2])
    explanation = planted_predictor.explain((dense, (80, 100)), (left * 99 / 9, top * 79 / 7), ranking="local")
    point = explanation.excitatory[0]
    assert point.image == name
    assert point.similarity == pytest.approx(1, abs=1e-3)
    assert point.xy == pytest.approx((left, top))  # fitted without a photo's size: in cells
    assert point.value == pytest.approx(point.importance * point.similarity, rel=1e-6)
    assert len({p.image for p in explanation.excitatory}) == len(explanation.excitatory) == 10


@pytest.mark.parametrize("ranking", ["value", "centred", "local"])
def test_points_of_the_same_class_come_first(planted_predictor: Predictor, ranking: PointRanking) -> None:
    hits = 0
    for seed in range(9):
        explanation = planted_predictor.explainer.explain(query(seed + 200 * 3), top=3, ranking=ranking)
        hits += sum(int(p.image[5:-4]) % 3 == 0 for p in explanation.excitatory)
    assert hits >= 25  # of 27: planted() without a label plants class 0, one of three
