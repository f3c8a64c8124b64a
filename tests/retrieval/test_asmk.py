"""ASMK against the formulas of the paper written out densely, and what becomes of it on disk and in change."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from delf_jax.errors import ModelError, SearchIndexError
from delf_jax.features import LocalFeatures
from retrieval.asmk import Codebook, InvertedFile, Kernel, aggregate, train
from retrieval.asmk import inverted_file as inverted_file_module
from retrieval.asmk.codebook import reservoir

WORDS, DIMENSION = 24, 20


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def codebook() -> Codebook:
    return Codebook(0.8 * unit(np.random.default_rng(0).normal(size=(WORDS, DIMENSION))), "f" * 64)


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    return [unit(generator.normal(size=(count, DIMENSION))) for count in (40, 7, 1, 25, 60, 0, 33)]


def dense_vlad(descriptors: np.ndarray, codebook: Codebook, assignments: int = 1) -> np.ndarray:
    """V(X_c) of every word c, [k, d], by loops and Euclidean distances alone."""
    sums = np.zeros((WORDS, DIMENSION))
    for x in descriptors.astype(np.float64):
        distances = [np.linalg.norm(x - c) for c in codebook.centroids]
        for word in np.argsort(distances)[:assignments]:
            sums[word] += x - codebook.centroids[word]
    return sums


def dense_similarity(query: np.ndarray, photo: np.ndarray, kernel: Kernel, weights: np.ndarray) -> float:
    """K(X, Y) of two dense sums of residuals, equations 1, 14 and 15 of Tolias et al."""
    total, norms = 0.0, [0.0, 0.0]
    for ours, theirs, weight in zip(query, photo, weights):
        here = [np.linalg.norm(one) > 1e-6 for one in (ours, theirs)]
        norms = [norm + weight * there for norm, there in zip(norms, here)]
        if all(here):
            a, b = (
                np.sign(one) / DIMENSION**0.5 if kernel.binary else one / np.linalg.norm(one) for one in (ours, theirs)
            )
            u = float(a @ b)
            total += weight * (np.sign(u) * abs(u) ** kernel.alpha if u > kernel.tau else 0.0)
    return total / (norms[0] * norms[1]) ** 0.5 if all(norms) else 0.0


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("alpha", "tau", "idf", "assignments"), [(3.0, 0.0, False, 1), (1.0, 0.05, True, 3)])
def test_scores_are_those_of_the_formula(
    binary: bool, alpha: float, tau: float, idf: bool, assignments: int,
    codebook: Codebook, photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    kernel = Kernel(binary=binary, alpha=alpha, tau=tau, idf=idf)
    file = InvertedFile.build(([photo] for photo in photos), codebook, kernel=kernel)
    query = np.concatenate([photos[0][:15], photos[3][:10]])
    vlads = [dense_vlad(photo, codebook) for photo in photos]
    shown = np.sum([np.linalg.norm(vlad, axis=1) > 1e-6 for vlad in vlads], axis=0)
    weights = np.log(len(photos) / np.maximum(shown, 1)) ** 2 if idf else np.ones(WORDS)
    asked = dense_vlad(query, codebook, assignments)
    expected = [dense_similarity(asked, vlad, kernel, weights) for vlad in vlads]
    for entries in (1 << 20, 10):  # all at once, and in groups
        monkeypatch.setattr(inverted_file_module, "_ENTRIES", entries)
        scores = file.scores(query, assignments=assignments)
        assert scores[5] == -np.inf
        np.testing.assert_allclose(
            np.where(np.isfinite(scores), scores, 0), expected, atol=2e-3 if not binary else 1e-6
        )
    assert np.argmax(scores) == np.argmax(expected) == 0


def test_a_photo_is_alike_itself(codebook: Codebook, photos: list[np.ndarray]) -> None:
    """g makes K(X, X) = 1."""
    for kernel in (Kernel(), Kernel(binary=False), Kernel(idf=True)):
        file = InvertedFile.build(([photo] for photo in photos), codebook, kernel=kernel)
        for place, photo in enumerate(photos):
            if len(photo):
                assert file.scores(photo)[place] == pytest.approx(1, abs=1e-3)


def test_regions_count_alike(codebook: Codebook, photos: list[np.ndarray]) -> None:
    """R-ASMK by its formula: the mean of the regions' unit VLADs, made unit vectors word by word."""
    regions = [photos[0], photos[0][:3], photos[5], photos[1]]
    mean = np.zeros((WORDS, DIMENSION))
    for region in regions:
        vlad = dense_vlad(region, codebook)
        mean += vlad / max(np.linalg.norm(vlad), 1e-12) / len(regions)
    found = aggregate(regions, codebook)
    np.testing.assert_array_equal(found.words, np.flatnonzero(np.linalg.norm(mean, axis=1) > 1e-6))
    np.testing.assert_allclose(found.vectors, unit(mean[found.words]), atol=1e-5)
    plain, twice = aggregate([photos[0]], codebook), aggregate([photos[0], photos[0]], codebook)
    np.testing.assert_allclose(twice.vectors, plain.vectors, atol=1e-5)


def test_a_descriptor_on_its_centroid_has_no_direction(codebook: Codebook) -> None:
    assert len(aggregate([codebook.centroids[:3]], codebook).words) == 0


def test_photos_come_and_go(codebook: Codebook, photos: list[np.ndarray]) -> None:
    file = InvertedFile.build(([photo] for photo in photos[:5]), codebook)
    changed = file.update(np.array([False, True, False, True, False]), [[photos[6]], [photos[5]], [photos[1]]])
    fresh = InvertedFile.build(([photos[i]] for i in (0, 2, 4, 6, 5, 1)), codebook)
    for name in ("offsets", "photos", "vectors"):
        np.testing.assert_array_equal(getattr(changed, name), getattr(fresh, name))
    assert changed.photo_count == 6


def test_it_is_the_same_after_save_and_open(codebook: Codebook, photos: list[np.ndarray], tmp_path: Path) -> None:
    for binary, bytes_an_entry in ((True, 3), (False, 2 * DIMENSION)):
        file = InvertedFile.build(([photo] for photo in photos), codebook, kernel=Kernel(binary=binary, idf=True))
        assert file.vectors.nbytes == len(file) * bytes_an_entry
        file.save(tmp_path)
        again = InvertedFile.open(tmp_path)
        assert (again.kernel, again.photo_count, again.nbytes) == (file.kernel, len(photos), file.nbytes)
        np.testing.assert_array_equal(again.scores(photos[0]), file.scores(photos[0]))


def features(descriptors: np.ndarray) -> LocalFeatures:
    n = len(descriptors)
    return LocalFeatures(
        np.zeros((n, 2), np.float32), np.ones(n, np.float32), np.ones(n, np.float32), descriptors, (9, 9)
    )


def test_k_means_is_as_good_as_scikit_learn() -> None:
    sklearn_cluster = pytest.importorskip("sklearn.cluster")
    points = unit(np.random.default_rng(3).normal(size=(3000, 16)))
    found = train([features(part) for part in np.split(points, 20)], words=40, seed=5)

    def distortion(centroids: np.ndarray) -> float:
        return float(np.square(points[:, None] - centroids).sum(axis=-1).min(axis=1).mean())

    peer = sklearn_cluster.KMeans(40, init="random", n_init=3, random_state=5).fit(points)
    assert distortion(found.centroids) <= 1.02 * distortion(peer.cluster_centers_)
    means = np.stack([points[found.nearest(points)[:, 0] == word].mean(axis=0) for word in range(40)])
    assert np.abs(found.centroids - means).max() < 0.02


def test_k_means_leaves_no_word_empty() -> None:
    """Ten things, fifty times each: the first centroids are copies of few of them."""
    things = unit(np.random.default_rng(6).normal(size=(10, 8)))
    found = train([features(np.repeat(things, 50, axis=0))], words=10, seed=1)
    assert sorted(found.nearest(things)[:, 0]) == list(range(10))


def test_words_are_the_nearest_by_distance(codebook: Codebook, photos: list[np.ndarray]) -> None:
    distances = np.linalg.norm(photos[0][:, None] - codebook.centroids, axis=-1)
    np.testing.assert_array_equal(codebook.nearest(photos[0], 4), np.argsort(distances, axis=1)[:, :4])
    with pytest.raises(SearchIndexError, match="20 dimensions, these have 8"):
        codebook.nearest(np.zeros((1, 8), np.float32))


def test_the_sample_is_uniform_and_bounded() -> None:
    generator = np.random.default_rng(4)
    times = np.zeros(60)
    for _ in range(300):
        arrays = (np.full((3, 1), number) + np.array([[0], [20], [40]]) for number in range(20))
        kept = reservoir(arrays, 15, generator)[:, 0].astype(int)
        assert len(set(kept)) == 15
        times[kept] += 1
    # Each of 60 rows is kept 75 times of 300, give or take 7.5.
    assert np.all(np.abs(times - 75) < 5 * 7.5)
    whole = reservoir(iter([np.ones((4, 2))]), 15, generator)
    assert whole.shape == (4, 2)
    assert reservoir(iter([]), 15, generator).shape == (0, 0)


def test_too_few_descriptors_for_the_words() -> None:
    with pytest.raises(SearchIndexError, match="5 words need more than 3 descriptors"):
        train([features(np.eye(3, 4, dtype=np.float32))], words=5)


def test_a_codebook_keeps_its_model_and_refuses_other_files(codebook: Codebook, tmp_path: Path) -> None:
    codebook.save(tmp_path / "codebook")
    again = Codebook.open(tmp_path / "codebook")
    np.testing.assert_array_equal(again.centroids, codebook.centroids)
    assert again.fingerprint == codebook.fingerprint
    (tmp_path / "other").write_bytes(b"x" * 64)
    for name, said in (("other", "damaged"), ("nowhere", "no such model file")):
        with pytest.raises(ModelError, match=said):
            Codebook.open(tmp_path / name)


def test_entries_of_a_word_are_in_the_order_of_photos(codebook: Codebook, photos: list[np.ndarray]) -> None:
    file = InvertedFile.build(([photo] for photo in photos), codebook)
    for begin, end in itertools.pairwise(file.offsets):
        assert np.all(np.diff(file.photos[begin:end]) > 0)
