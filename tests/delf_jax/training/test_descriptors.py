"""The projection that matches teach: which features see the same spot, and what the projection keeps."""

import numpy as np
import pytest

from delf_jax.extraction.descriptors import describe
from delf_jax.extraction.pca import PcaStatistics
from delf_jax.features import LocalFeatures
from delf_jax.training.descriptors.correspondences import correspondences
from delf_jax.training.descriptors.whitening import PairStatistics, solve


def features(keypoints: list[tuple[float, float]], scales: list[float]) -> LocalFeatures:
    count = len(keypoints)
    ones = np.ones(count, np.float32)
    points = np.array(keypoints, np.float32).reshape(count, 2)
    return LocalFeatures(points, np.array(scales, np.float32), ones, np.ones((count, 2), np.float32), (100, 100))


def test_correspondences_are_near_each_other_and_see_as_much() -> None:
    # b is a, twice as large and moved by (10, 0): a feature at scale 1 of a sees as much as one at scale 0.5 of b.
    transform = np.array([[2.0, 0, 10], [0, 2, 0], [0, 0, 1]])
    a = features([(0, 0), (20, 0), (40, 0), (60, 0), (62, 0)], [1, 1, 1, 1, 1])
    b = features([(130, 0), (10, 11), (50, 13), (90, 0)], [0.5, 0.5, 0.5, 1])
    # Row 0 ends 11 pixels from row 1. Row 1 is 13 from its own. Row 2 is where row 3 is, which sees half as much. Rows
    # 3 and 4 end near row 0, and the nearer one takes it.
    assert correspondences(a, b, transform, pixel=1.0).tolist() == [[0, 1], [3, 0]]
    # Where a pixel stands for 1.2 pixels of the original, 13 are near enough.
    assert correspondences(a, b, transform, pixel=1.2).tolist() == [[0, 1], [1, 2], [3, 0]]
    assert correspondences(a, features([], []), transform, pixel=1.0).shape == (0, 2)


def planted(pairs: int = 4000) -> tuple[PcaStatistics, PairStatistics]:
    """Views of spots in 12 directions: the first 4 tell spots apart, the next 4 change widely with the view."""
    rng = np.random.default_rng(0)
    spots, spread = rng.normal(size=(pairs, 12)) * ([1.0] * 4 + [0.0] * 8), [0.1] * 4 + [2.0] * 4 + [0.2] * 4
    a, b = (spots + rng.normal(size=(pairs, 12)) * spread for _ in range(2))
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
    return PcaStatistics.of(a) + PcaStatistics.of(b), PairStatistics.of(a, b)


def share_of(basis: np.ndarray, directions: slice) -> float:
    return float((basis[:, directions] ** 2).sum() / (basis**2).sum())


def test_what_changes_between_views_counts_less() -> None:
    statistics, pairs = planted()
    assert share_of(statistics.solve(4).basis, slice(4, 8)) > 0.99
    assert share_of(solve(statistics, pairs, 4, shrinkage=0.1).basis, slice(0, 4)) > 0.99


def test_without_knowledge_of_pairs_it_is_the_pca_and_fewer_dimensions_are_its_first_rows() -> None:
    statistics, pairs = planted()
    found, pca = solve(statistics, pairs, 6, shrinkage=1.0), statistics.solve(6)
    np.testing.assert_allclose(found.basis / np.linalg.norm(found.basis, axis=1, keepdims=True), pca.basis, atol=1e-5)
    np.testing.assert_allclose(found.mean, pca.mean)
    np.testing.assert_allclose(solve(statistics, pairs, 3).basis, solve(statistics, pairs, 6).basis[:3], atol=1e-6)


def test_descriptors_are_those_of_the_extractor() -> None:
    statistics, _ = planted(50)
    pca = statistics.solve(4)
    unit = np.random.default_rng(2).normal(size=(9, 12)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for whiten in (True, False):
        head = {"pca_mean": pca.mean, "pca_projection": pca.projection(whiten=whiten)}
        np.testing.assert_allclose(pca.descriptors(unit, whiten=whiten), describe(unit, head), atol=1e-5)


def test_sums_of_parts_are_those_of_all() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 30, 5))
    parts = PairStatistics.zero(5) + PairStatistics.of(a[:10], b[:10]) + PairStatistics.of(a[10:], b[10:])
    whole = PairStatistics.of(a, b)
    assert parts.count == whole.count == 30
    np.testing.assert_allclose(parts.moment, whole.moment)
    np.testing.assert_allclose(whole.moment, sum(np.outer(x, x) for x in a - b))


def test_nothing_is_learned_of_no_pairs() -> None:
    statistics, _ = planted(50)
    with pytest.raises(ValueError, match="no two photos are proved to show the same place"):
        solve(statistics, PairStatistics.zero(12), 4)
