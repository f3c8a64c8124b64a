"""Solvers of planar transforms against planted transforms and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval.verification import planar
from retrieval.verification.transforms import SAMPLE_SIZE
from tests.retrieval import planted

from_samples = jax.jit(planar.from_samples, static_argnames="model")
refit = jax.jit(planar.refit, static_argnames="model")


@pytest.mark.parametrize("model", ["similarity", "affine", "homography"])
def test_minimal_samples_and_refit_recover_the_plant(model):
    truth = planted.planar(model, pairs=20, matches=30, outliers=0, noise=0)
    m = SAMPLE_SIZE[model]
    src, dst = ((points - [512, 384]) / 512 for points in (truth.src, truth.dst))
    # The corners of a wide quadrilateral, so that float32 is not asked to extrapolate.
    corners = np.array([[-0.8, -0.6], [0.8, -0.5], [0.7, 0.6], [-0.7, 0.5]], "f")[:m]
    into = np.array([[512, 0, 512], [0, 512, 384], [0, 0, 1.0]])
    transform = np.linalg.inv(into) @ truth.transform @ into
    at = np.broadcast_to(corners, (20, m, 2))
    found = from_samples(jnp.asarray(at), jnp.asarray(planted.apply(transform, at), jnp.float32), model=model)
    assert found.usable.all()
    np.testing.assert_allclose(planted.apply(np.asarray(found.transform), src), dst, atol=1e-4)
    for i in range(3):
        rough = jnp.asarray(transform[i : i + 1] * [[1.02, 1, 1], [1, 0.98, 1], [1, 1, 1]], jnp.float32)
        for _ in range(3):
            step = refit(rough, jnp.asarray(src[i]), jnp.asarray(dst[i]), jnp.ones((1, 30)), model=model)
            rough = step.transform
            assert step.usable.all()
        np.testing.assert_allclose(planted.apply(np.asarray(rough[0]), src[i]), dst[i], atol=1e-4)


def test_weighted_affine_is_least_squares():
    rng = np.random.default_rng(0)
    src, dst, weights = rng.normal(size=(40, 2)), rng.normal(size=(40, 2)), rng.uniform(0, 1, 40)
    dst = dst * 0.1 + src
    root = np.sqrt(weights)[:, None]
    expected = np.linalg.lstsq(np.c_[src, np.ones(40)] * root, dst * root, rcond=None)[0].T
    found = refit(
        jnp.eye(3)[None],
        jnp.asarray(src, jnp.float32),
        jnp.asarray(dst, jnp.float32),
        jnp.asarray(weights, jnp.float32)[None],
        model="affine",
    )
    np.testing.assert_allclose(found.transform[0, :2], expected, atol=1e-5)


TRIANGLE = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("model", "src", "dst"),
    [
        ("similarity", [[0.3, 0.3], [0.3, 0.3]], [[0.0, 0.0], [1.0, 0.0]]),  # one point
        ("similarity", [[0.0, 0.0], [1.0, 0.0]], [[0.3, 0.3], [0.3, 0.3]]),  # onto one point
        ("affine", [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]], TRIANGLE),  # from a line
        ("affine", TRIANGLE, [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]),  # onto a line
        ("affine", TRIANGLE, [[0.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]),  # mirrored
        ("affine", TRIANGLE, [[0.0, 0.0], [1.0, 0.0], [0.0, 0.1]]),  # ten times narrower one way
        ("affine", TRIANGLE, [[0.0, 0.0], [0.01, 0.0], [0.0, 0.01]]),  # a hundred times smaller
        ("homography", [*TRIANGLE, [1.0, 1.0]], [[0.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [-1.0, 1.0]]),  # mirrored
        ("homography", [*TRIANGLE, [1.0, 1.0]], [*TRIANGLE, [0.2, 0.2]]),  # across the horizon
        ("homography", [*TRIANGLE, [0.5, 0.5]], [*TRIANGLE, [0.9, 0.9]]),  # three in a line
    ],
)
def test_degenerate_and_implausible_samples_are_refused(model, src, dst):
    found = from_samples(jnp.array([src]), jnp.array([dst]), model=model)
    assert not found.usable.any()
    assert jnp.isfinite(found.transform).all()


@pytest.mark.parametrize("model", ["similarity", "affine", "homography"])
def test_refit_refuses_points_lines_and_mirrors(model):
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (30, 2)).astype("f")
    line = points[:, :1] * np.array([[1, 0.5]], "f")
    start, weights = jnp.eye(3)[None], np.ones((1, 30), "f")
    refused = {
        "a point": refit(start, points * 0, points, weights, model=model),
        "nothing": refit(start, points, points, weights * 0, model=model),
    }
    # The least-squares similarity of a mirror image is small and worthless, but it is a similarity.
    if model != "similarity":
        refused["a line"] = refit(start, line, line, weights, model=model)
        refused["a mirror"] = refit(start, points, points * np.array([-1, 1], "f"), weights, model=model)
    for name, found in refused.items():
        assert not found.usable.any(), name
        assert jnp.isfinite(found.transform).all(), name


def test_single_correspondence_carries_point_and_scale():
    src, dst = jnp.array([[0.2, 0.1], [0.5, -0.4]]), jnp.array([[0.3, 0.3], [0.0, 0.1]])
    found = planar.from_single_correspondences(src, dst, jnp.array([2.0, 0.0]), jnp.array([True, True]))
    assert found.usable.tolist() == [True, False]
    np.testing.assert_allclose(planted.apply(np.asarray(found.transform[0]), np.asarray(src[0])), dst[0], atol=1e-6)
    np.testing.assert_allclose(found.transform[0, :2, :2], 2 * np.eye(2))
