"""Residuals and costs: by hand, and the quick way over blocks against the plain one."""

import jax.numpy as jnp
import numpy as np
import pytest

from retrieval.verification.residuals import BLOCK, Kind, normalised, squared_epipolar_distance, without_gaps
from retrieval.verification.transforms import Hypotheses, entries

rng = np.random.default_rng(0)


def matches(n=20, *, scales=None, where=None):
    src, dst = (rng.uniform(0, 100, (n, 2)).astype("f") for _ in range(2))
    where = np.ones(n, bool) if where is None else where
    return normalised(jnp.asarray(src), jnp.asarray(dst), jnp.asarray(where), scales, jnp.float32(10))


def test_residuals_cost_and_weights_by_hand():
    src = np.array([[0, 0], [100, 0], [0, 100], [50, 50]], "f")
    dst = src + np.array([[0, 0], [0, 0], [0, 4], [30, 40]], "f")
    found = normalised(jnp.asarray(src), jnp.asarray(dst), jnp.ones(4, bool), None, jnp.float32(10))[2]
    side = 2 / 104  # of a pixel in the target frame, whose longer side is 104 pixels
    assert float(found.squared_threshold) == pytest.approx((10 * side) ** 2, rel=1e-5)
    # The identity in pixels, as a transform between the frames.
    identity = np.array([[1, 0, (50 - 50) * side], [0, 1, (50 - 52) * side], [0, 0, 1]], "f")
    identity[:2, :2] *= side * 50
    squared = found.squared_residuals(jnp.asarray(identity)[None], model="affine")
    np.testing.assert_allclose(squared[0], np.array([0, 0, 4, 50]) ** 2 * side**2, atol=1e-6)
    assert found.inliers(jnp.asarray(identity), model="affine").tolist() == [True, True, True, False]
    cost = found.cost(squared, jnp.array([True]))
    np.testing.assert_allclose(cost, (4**2 + 10**2) * side**2, rtol=1e-4)
    assert jnp.isinf(found.cost(squared, jnp.array([False]))).all()
    np.testing.assert_allclose(found.weights(squared, 1.0)[0], [1, 1, (1 - 0.16) ** 2, 0], atol=1e-4)


def test_epipolar_distance_is_the_larger_one_by_hand():
    # A camera that moves sideways: epipolar lines are rows, and the points are half a row apart.
    sideways = jnp.array([[[0, 0, 0], [0, 0, -1], [0, 1, 0.0]]])
    rows = [list(row) for row in entries(sideways)]
    points = (jnp.float32(3), jnp.float32(1)), (jnp.float32(7), jnp.float32(1.5))
    assert float(squared_epipolar_distance(rows, *points, src_to_dst_scale=jnp.float32(1))[0]) == pytest.approx(0.25)
    # One pixel of the source is as long as two of the target, so the distance in the source is the larger one.
    assert float(squared_epipolar_distance(rows, *points, src_to_dst_scale=jnp.float32(2))[0]) == pytest.approx(1.0)


@pytest.mark.parametrize("model", ["affine", "homography", "fundamental"])
def test_cost_over_blocks_is_the_plain_cost(model):
    found = matches(2 * BLOCK + 4, where=np.arange(2 * BLOCK + 4) < BLOCK + 3)[2]
    transform = jnp.asarray(np.eye(3) + 0.1 * rng.normal(size=(5, 3, 3)), jnp.float32)
    usable = jnp.array([True, True, False, True, True])
    plain = found.cost(found.squared_residuals(transform, model=model), usable)
    quick = found.cost_of_many([Kind(Hypotheses(transform, usable), model, 1.0)])[0]
    np.testing.assert_allclose(quick, plain, rtol=1e-5)


def test_magnification_is_that_between_the_frames():
    scales = jnp.array([1.0, 0.5, 0.0, 2.0]), jnp.array([0.5, 0.5, 1.0, 0.0])
    into_src, into_dst, found = matches(4, scales=scales)
    ratio = into_dst[0, 0] / into_src[0, 0]
    # Where a scale is not known, neither is the magnification.
    np.testing.assert_allclose(found.magnification, [2 * ratio, ratio, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("where", [[False, True, True, False, True, False], [True, True, True, False, False, False]])
def test_padding_moves_behind_the_matches(where):
    where = np.array(where)
    given = matches(6, where=where)[2]
    found = without_gaps(given)
    np.testing.assert_array_equal(found.where, [True] * 3 + [False] * 3)
    np.testing.assert_array_equal(found.src[:3], given.src[where])
    np.testing.assert_array_equal(found.dst[:3], given.dst[where])
