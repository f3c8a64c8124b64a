"""Scores against boxes, by hand, against scikit-learn, and with an attention planted on real photos."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import attention_quality, datasets
from benchmarks.attention_quality import BoxedPhoto, in_box, judge, r_precision, roc_auc
from delf_jax.extraction.head import Head
from delf_jax.features import LocalFeatures


def test_in_box_counts_pixel_edges() -> None:
    points = np.array([[0, 0], [9, 4], [10, 4], [4, 5]], np.float32)
    np.testing.assert_array_equal(in_box(points, (0.0, 0.0, 10.0, 5.0)), [True, True, False, False])


def test_precision_and_auc_worked_by_hand() -> None:
    scores = np.array([5.0, 4.0, 4.0, 1.0, 0.0])
    inside = np.array([True, False, True, False, True])
    assert r_precision(scores, inside) == pytest.approx(2 / 3)
    # Inside against outside: 5 beats both, 4 ties with 4 and beats 1, 0 loses twice.
    assert roc_auc(scores, inside) == pytest.approx((2 + 1.5 + 0) / 6)


def test_auc_is_that_of_scikit_learn() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(3)
    for _ in range(20):
        scores, inside = generator.integers(0, 30, 80) / 7, generator.uniform(size=80) < 0.3
        assert roc_auc(scores, inside) == pytest.approx(sklearn_metrics.roc_auc_score(inside, scores))


def test_a_head_is_judged_by_where_it_looks() -> None:
    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(12), np.arange(9)), axis=-1).reshape(-1, 2) * np.float32(16)
    box = (40.0, 24.0, 120.0, 100.0)
    inside = in_box(grid, box)
    dense = generator.normal(size=(len(grid), 8)).astype(np.float32)
    dense[:, 0] = np.where(inside, 1, -1) + 0.1 * dense[:, 0]
    norms = np.linalg.norm(dense, axis=1)
    cells = LocalFeatures(grid, np.ones(len(grid), np.float32), norms, dense / norms[:, None], (144, 192))
    head = Head(foreground=np.eye(8, dtype=np.float32)[0])
    photos = [BoxedPhoto(Path("a.jpg"), box)]
    assert judge(photos, [cells], head, "foreground") == (1.0, 1.0)
    assert judge(photos, [cells], head, "norm").auc < 0.75


def test_boxes_that_fill_their_photo_are_left_out(shared_data: Path) -> None:
    photos = attention_quality.boxed_photos(shared_data)
    assert len(photos) == 319
    assert {photo.path.parent.name.split("__")[0] for photo in photos} == {"porto"}


def test_missing_boxes_say_how_to_name_their_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--data"):
        attention_quality.boxed_photos(datasets.data_folder(tmp_path))
