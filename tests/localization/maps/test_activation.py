"""Maps and their upsampling against independent arithmetic."""

import cv2
import jax
import numpy as np
import pytest

from delf_jax.models.layers import valid_cells
from localization.grid import Grid, aligned_corners, equal_patches
from localization.maps.activation import activation_map, interpolation_matrix, resample, upsample


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
    cells, size, grid = np.array([4, 5]), np.array([32, 40]), Grid((3, 2), (8, 7))
    big = upsample(inside.activation, cells, grid, size, (48, 64))
    np.testing.assert_allclose(big[:32, :40], upsample(alone.activation, cells, grid, size, (32, 40)), atol=1e-6)
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
    cells, size = np.array([5, 7]), np.array([33, 50])
    np.testing.assert_allclose(
        upsample(small, cells, aligned_corners(cells, size), size, (33, 50)), expected, atol=2e-6
    )
    patches = upsample(small, cells, equal_patches(cells, size), size, (33, 50))
    np.testing.assert_allclose(patches, cv2.resize(small, (50, 33), interpolation=cv2.INTER_LINEAR), atol=2e-6)


def test_a_hot_cell_is_drawn_at_its_centre() -> None:
    maps = np.zeros((2, 4, 5), np.float32)
    maps[0, 2, 3] = maps[1, 0, 4] = 1
    cells, sizes = np.array([[4, 5], [3, 5]]), np.array([[40, 60], [28, 44]])
    grid = Grid(np.array([[3, 5], [0, 2]]), np.array([[8, 10], [9, 8]]))
    one, other = np.asarray(upsample(maps, cells, grid, sizes, (40, 60)))
    assert one[3 + 2 * 8, 5 + 3 * 10] == one.max() == 1
    assert one[3 + 2 * 8 - 4, 35] == one[19, 35 + 5] == 0.5
    assert (other[0, 2 + 4 * 8 : 44] == 1).all()  # behind the last centre the map goes on
    assert not other[:, 44:].any()
    assert not other[28:].any()


def test_a_coarse_map_is_sampled_at_the_cells_of_a_fine_one() -> None:
    slope = np.arange(4, dtype=np.float32)[None] * np.ones((4, 1), np.float32)  # x / 32 at the centres of its cells
    fine = Grid((0, 0), (16, 16))
    found = resample(slope, np.array([4, 4]), Grid((0, 0), (32, 32)), fine, onto_hw=np.array([7, 7]), shape=(8, 8))
    np.testing.assert_allclose(found[:7, :7], np.tile(np.arange(7) / 2, (7, 1)), atol=1e-6)
    assert not np.asarray(found)[:, 7].any()


def test_grids_follow_the_photo_when_it_is_resized() -> None:
    # At half the size pixel p covers pixels 2 p and 2 p + 1: its centre is 2 p + .5.
    grid = Grid(np.array([0.0, 3.0]), np.array([32.0, 16.0])).resized((10, 20), (20, 40))
    np.testing.assert_allclose(grid, [[0.5, 6.5], [64, 32]])
    np.testing.assert_allclose(aligned_corners(np.array([1, 3]), np.array([300, 1])), [[0, 0], [299, 0]])
    np.testing.assert_allclose(equal_patches(np.array([4, 1]), np.array([40, 7])), [[4.5, 3], [10, 7]])


def test_matrix_edges() -> None:
    one = np.asarray(interpolation_matrix(np.array([-1.0, 0.0, 5.0]), np.array(1), 3))
    np.testing.assert_allclose(one, np.tile([1, 0, 0], (3, 1)))
    between = interpolation_matrix(np.array([0.0, 0.25, 1.0]), np.array(2), 2)
    np.testing.assert_allclose(between, [[1, 0], [0.75, 0.25], [0, 1]])
    assert np.asarray(valid_cells(np.array([1, 2]), 2, 3)).tolist() == [[True, True, False], [False, False, False]]
