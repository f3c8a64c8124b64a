"""Classes predicted from mean features or found by clustering, and the maps that follow from them."""

import numpy as np
import pytest

import localization
from delf_jax.errors import PredictorError
from localization.foreground.classes import cluster, linear_probe, mean_features, nearest_mean
from localization.predictor import Predictor
from tests.localization.planted import LABELS, MAPS, planted

TEST = [planted(seed, label=seed % 3)[0] for seed in range(300, 312)]
TRUE = [f"class{seed % 3}" for seed in range(300, 312)]


def test_mean_features_are_plain_means() -> None:
    means = mean_features(MAPS)
    for name, dense in MAPS.items():
        np.testing.assert_allclose(means[name], dense.mean(axis=(0, 1)), rtol=1e-5)


def test_nearest_mean_and_linear_probe_know_planted_classes(planted_predictor: Predictor) -> None:
    nearest = nearest_mean(planted_predictor.statistics)
    probe = linear_probe(mean_features(MAPS), LABELS)
    for classifier in (nearest, probe):
        ranked = [classifier.ranked(dense.mean(axis=(0, 1)))[0] for dense in TEST]
        assert sum(a == b for a, b in zip(ranked, TRUE)) >= 11


def test_linear_probe_is_ridge_regression() -> None:
    means = mean_features(MAPS)
    probe = linear_probe(means, LABELS, weight=0.2)
    x = np.stack(list(means.values()))
    x = x - x.mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.array([LABELS[name] == "class1" for name in means], float)
    primal = np.linalg.solve(x.T @ x + 0.2 * len(x) * np.eye(x.shape[1]), x.T @ (y - y.mean()))
    np.testing.assert_allclose(probe.matrix[:, 1], primal, atol=1e-9)


def test_clusters_are_the_planted_classes() -> None:
    groups = cluster(mean_features(MAPS), 3)
    assert len(set(groups.values())) == 3
    for label in set(LABELS.values()):
        assert len({groups[name] for name in MAPS if LABELS[name] == label}) == 1
    assert groups == cluster(mean_features(MAPS), 3)
    with pytest.raises(PredictorError, match="cannot make 99 clusters"):
        cluster(mean_features(MAPS), 99)


def test_localizing_with_the_predicted_class(planted_predictor: Predictor) -> None:
    results = planted_predictor.localize(TEST, classifier=nearest_mean(planted_predictor.statistics))
    assert sum(result.label == true for result, true in zip(results, TRUE)) >= 11
    for dense, result in zip(TEST, results):
        (given,) = planted_predictor.localize([dense], label=result.label)
        np.testing.assert_allclose(given.activation, result.activation, atol=1e-6)
        assert [b[:4] for b in given.boxes] == [b[:4] for b in result.boxes]


def test_refusals(planted_predictor: Predictor) -> None:
    with pytest.raises(PredictorError, match="no pixels to classify"):
        planted_predictor.localize(TEST[:1], classifier=lambda images: np.zeros((1, 3)))
    with pytest.raises(PredictorError, match="two or more classes"):
        nearest_mean(localization.fit(MAPS).statistics)
    other = linear_probe(mean_features(MAPS), {name: label + "x" for name, label in LABELS.items()})
    with pytest.raises(PredictorError, match="was not fitted"):
        planted_predictor.localize(TEST[:1], classifier=other)
