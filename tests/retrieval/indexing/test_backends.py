"""The two nearest-neighbour backends give the same answers, and keep giving them when rows come and go."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from delf_jax.errors import SearchIndexError
from retrieval.indexing.backends import backend_class
from retrieval.indexing.backends.exact_backend import ExactBackend
from retrieval.nearest import ROWS

scann_backend = pytest.importorskip("retrieval.indexing.backends.scann_backend")
ScannBackend = scann_backend.ScannBackend


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def descriptors(demo_photos: Path) -> list[np.ndarray]:
    """RootSIFT of the packaged photos, centred: real descriptors with real clusters."""
    found = []
    for path in sorted(demo_photos.glob("*.jpg")):
        _, sift = cv2.SIFT_create(1000).detectAndCompute(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), None)
        found.append(np.sqrt(sift / sift.sum(axis=1, keepdims=True)))
    mean = np.concatenate(found).mean(axis=0)
    return [unit(part - mean) for part in found]


def recall(ids: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(ids, truth)]))


@pytest.mark.parametrize("count", [3, 60, ROWS, ROWS + 1, 9000])
def test_exact_is_the_sorted_matrix_product(count: int) -> None:
    rng = np.random.default_rng(count)
    rows, queries = unit(rng.normal(size=(count, 16))), unit(rng.normal(size=(70, 16)))
    ids, similarities = ExactBackend.build(rows).search(queries, 10)
    scores = queries @ rows.T
    truth = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    assert ids.shape == (70, min(10, count))
    np.testing.assert_array_equal(ids, truth)
    np.testing.assert_allclose(similarities, np.take_along_axis(scores, truth, axis=1), atol=1e-6)


def test_exact_leaves_out_products_that_are_no_numbers() -> None:
    rows, queries = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[:2]
    rows[3], queries[1] = np.nan, np.inf
    ids, similarities = ExactBackend.build(rows).search(queries, 4)
    assert ids.tolist() == [[0, 1, 2, -1], [-1] * 4]
    np.testing.assert_array_equal(similarities, [[1, 0, 0, -np.inf], [-np.inf] * 4])


def test_exact_puts_the_lower_id_first_among_equals() -> None:
    rows = np.tile(np.eye(4, dtype=np.float32), (ROWS, 1))
    ids, similarities = ExactBackend.build(rows).search(np.eye(4, dtype=np.float32), 5)
    np.testing.assert_array_equal(ids, np.arange(4)[:, None] + 4 * np.arange(5))
    np.testing.assert_array_equal(similarities, 1)


def test_scann_finds_what_exact_finds_on_real_descriptors(descriptors: list[np.ndarray]) -> None:
    queries, rows = descriptors[0][:500], np.concatenate(descriptors[1:])
    assert len(rows) > scann_backend.EXHAUSTIVE_BELOW
    truth, similarities = ExactBackend.build(rows).search(queries, 60)
    ids, found = ScannBackend.build(rows).search(queries, 60)
    assert recall(ids, truth) >= 0.95
    same = ids[:, 0] == truth[:, 0]
    assert same.mean() > 0.95
    np.testing.assert_allclose(found[same, 0], similarities[same, 0], atol=1e-3)


@pytest.mark.parametrize("backend", [ExactBackend, ScannBackend])
@pytest.mark.parametrize("many", [False, True])
def test_rows_come_and_go(backend: type, many: bool, descriptors: list[np.ndarray], tmp_path: Path) -> None:
    rows = np.concatenate(descriptors)[: 11_000 if many else 3000]
    added = rows[-300:]
    first = backend.build(rows[:-300])
    if many:
        first.save(tmp_path)
        first = backend.open(tmp_path, rows[:-300])
    removed = np.array([0, 17, 18, 900, 901, 902, len(rows) - 301])
    present = np.concatenate([np.delete(rows[:-300], removed, axis=0), added])
    changed = first.update(removed, present)

    (tmp_path / "changed").mkdir()
    changed.save(tmp_path / "changed")
    again = backend.open(tmp_path / "changed", present)
    truth, _ = ExactBackend.build(present).search(rows[::20], 20)
    for searcher in (changed, again):
        ids, _ = searcher.search(rows[::20], 20)
        assert ids.max() < len(present)
        assert recall(ids, truth) > 0.95
    own, _ = again.search(added, 1)
    assert np.mean(own[:, 0] == np.arange(len(present) - 300, len(present))) > 0.97


def test_threads_share_the_queries_equally() -> None:
    assert [scann_backend._batch(n, 2) for n in (1, 167, 500, 1000, 1100)] == [16, 84, 250, 250, 184]


def test_scann_is_trained_again_after_many_changes(descriptors: list[np.ndarray]) -> None:
    rows = np.concatenate(descriptors)[:12_000]
    grown = ScannBackend.build(rows[:3000]).update(np.array([], np.int64), rows)
    np.testing.assert_array_equal(grown._rows, np.arange(12_000))
    assert grown._changed == 0


def test_a_few_rows_and_no_queries() -> None:
    for backend in (ExactBackend, ScannBackend):
        searcher = backend.build(np.eye(8, dtype=np.float32)[:2])
        ids, similarities = searcher.search(np.eye(8, dtype=np.float32)[:1], 60)
        np.testing.assert_array_equal(ids, [[0, 1]])
        np.testing.assert_allclose(similarities, [[1, 0]], atol=1e-6)
        assert searcher.search(np.zeros((0, 8), np.float32), 60)[0].shape == (0, 2)


def test_backend_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend_class("auto") is ScannBackend
    assert backend_class("exact") is ExactBackend
    with pytest.raises(SearchIndexError, match="choose auto, scann or exact"):
        backend_class("faiss")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert backend_class("auto") is ExactBackend
    with pytest.raises(SearchIndexError, match="pip install scann"):
        backend_class("scann")
