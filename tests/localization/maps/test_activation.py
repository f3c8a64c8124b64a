"""Maps and their upsampling against independent arithmetic."""

import cv2
import jax
import numpy as np
import pytest

from delf_jax.models.layers import valid_cells
from localization.maps.activation import activation_map, align_corners_matrix, upsample


def test_worked_by_hand() -> None:
    w = np.array([0.6, -0.8], np.float32)
    dense = np.array([[[3.0, 0.0], [0.0, 2.0]], [[4.0, 3.0], [0.0, 0.0]]], np.float32)
    result = activation_map(dense, w, np.array([2, 2]))
    # cosines .6, -.8, (.48 - .48) = 0, and 0 for the zero feature
    np.testing.assert_allclose(result.activation, [[1, 0], [0, 0]], atol=1e-6)
    assert float(result.peak) == pytest.approx(0.6)
    assert float(result.high) == pytest.approx(0.6)


def test_no_object_gives_zeros_not_nan() -> None:
    w = np.array([1.0, 0.0], np.float32)
    negative = activation_map(np.array([[[-1.0, 1.0], [-2.0, 1.0]]], np.float32), w, np.array([1, 2]))
    assert not np.asarray(negative.activation).any()
    assert float(negative.peak) < 0
    constant = activation_map(np.ones((2, 2, 2), np.float32), w, np.array([2, 2]))
    assert not np.asarray(constant.activation).any()
    assert float(constant.low) == float(constant.high) > 0


def test_padding_never_changes_a_map() -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(4, 5, 8)).astype(np.float32)
    padded = np.full((7, 9, 8), 50, np.float32)
    padded[:4, :5] = dense
    w = rng.normal(size=8).astype(np.float32)
    alone = activation_map(dense, w, np.array([4, 5]))
    inside = activation_map(padded, w, np.array([4, 5]))
    np.testing.assert_allclose(inside.activation[:4, :5], alone.activation, atol=1e-6)
    assert not np.asarray(inside.activation)[4:].any()
    assert not np.asarray(inside.activation)[:, 5:].any()
    assert float(inside.peak) == pytest.approx(float(alone.peak))
    big = upsample(inside.activation, np.array([4, 5]), np.array([32, 40]), (48, 64))
    np.testing.assert_allclose(
        big[:32, :40], upsample(alone.activation, np.array([4, 5]), np.array([32, 40]), (32, 40)), atol=1e-6
    )
    assert not np.asarray(big)[32:].any()


def test_batch_equals_single_under_jit() -> None:
    rng = np.random.default_rng(1)
    dense = rng.normal(size=(3, 4, 4, 6)).astype(np.float32)
    w = rng.normal(size=6).astype(np.float32)
    sizes = np.array([[4, 4], [2, 3], [1, 4]])
    batch = jax.jit(activation_map)(dense, w, sizes)
    for i in range(3):
        single = activation_map(dense[i], w, sizes[i])
        np.testing.assert_allclose(batch.activation[i], single.activation, atol=1e-6)


def test_upsampling_equals_remap_with_aligned_corners() -> None:
    rng = np.random.default_rng(2)
    small = rng.random((5, 7)).astype(np.float32)
    ys, xs = np.meshgrid(np.linspace(0, 4, 33), np.linspace(0, 6, 50), indexing="ij")
    y0, x0 = np.minimum(ys.astype(int), 3), np.minimum(xs.astype(int), 5)
    fy, fx = ys - y0, xs - x0
    expected = (
        small[y0, x0] * (1 - fy) * (1 - fx)
        + small[y0 + 1, x0] * fy * (1 - fx)
        + small[y0, x0 + 1] * (1 - fy) * fx
        + small[y0 + 1, x0 + 1] * fy * fx
    )
    np.testing.assert_allclose(upsample(small, np.array([5, 7]), np.array([33, 50]), (33, 50)), expected, atol=2e-6)
    # It is not the usual half-pixel resize.
    assert np.abs(cv2.resize(small, (50, 33), interpolation=cv2.INTER_LINEAR) - expected).max() > 0.01


def test_matrix_edges() -> None:
    one = np.asarray(align_corners_matrix(np.array(1), np.array(4), 3, 6))
    np.testing.assert_allclose(one[:4], np.tile([1, 0, 0], (4, 1)))
    assert not one[4:].any()
    np.testing.assert_allclose(align_corners_matrix(np.array(2), np.array(3), 2, 3), [[1, 0], [0.5, 0.5], [0, 1]])
    assert np.asarray(valid_cells(np.array([1, 2]), 2, 3)).tolist() == [[True, True, False], [False, False, False]]
