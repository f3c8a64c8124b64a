"""Fundamental matrices against OpenCV, NumPy and planted camera pairs."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from retrieval.verification import epipolar
from retrieval.verification.residuals import squared_epipolar_distance
from tests.retrieval import planted

from_seven = jax.jit(epipolar.from_seven)
distance = jax.jit(squared_epipolar_distance)


def normalised(points):
    return ((points - [512, 384]) / 512).astype("f")


def test_cubic_roots_against_numpy():
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=(300, 4)).astype("f")
    coefficients[:20, 0] = 0.0  # quadratic: the third root is at infinity
    coefficients[20:40, 3] = 0.0
    roots, real = jax.jit(epipolar._cubic_roots)(*jnp.asarray(coefficients.T))
    agreeing = 0
    for polynomial, found, usable in zip(coefficients, np.asarray(roots), np.asarray(real)):
        exact = np.roots(polynomial.astype(float))
        exact = np.sort(exact[np.abs(exact.imag) < 1e-9].real)
        mine = np.sort(found[usable])
        agreeing += len(mine) == len(exact) and np.allclose(mine, exact, rtol=1e-2, atol=1e-2)
    # Double roots are where float32 may see one root too many or too few.
    assert agreeing >= 295


def test_seven_points_against_opencv():
    truth = planted.two_views(pairs=30, matches=7, outliers=0, noise=0)
    into = np.array([[1 / 512, 0, -1], [0, 1 / 512, -0.75], [0, 0, 1]])
    src, dst = normalised(truth.src), normalised(truth.dst)
    found = from_seven(jnp.asarray(src), jnp.asarray(dst))
    nearest = []
    for i in range(30):
        mine = np.asarray(found.transform).reshape(30, 3, 3, 3)[i][np.asarray(found.usable).reshape(30, 3)[i]]
        peer = cv2.findFundamentalMat(truth.src[i].astype(float), truth.dst[i].astype(float), cv2.FM_7POINT)[0]
        assert len(mine) == len(peer) // 3
        back = np.linalg.inv(into)
        expected = back.T @ truth.transform[i] @ back
        expected /= np.linalg.norm(expected)
        nearest.append(min(min(np.linalg.norm(f - expected), np.linalg.norm(f + expected)) for f in mine))
        # Every candidate satisfies its seven constraints and is singular.
        residuals = distance(
            [list(row[..., None]) for row in jnp.moveaxis(jnp.asarray(mine), 0, -1)],
            tuple(src[i].T),
            tuple(dst[i].T),
            src_to_dst_scale=jnp.float32(1),
        )
        assert np.sqrt(residuals).max() < 1e-3
        assert np.abs(np.linalg.det(mine)).max() < 1e-4
    assert np.median(nearest) < 1e-3
    assert np.mean(np.array(nearest) < 0.05) > 0.9


def test_seven_coincident_points_give_no_matrix():
    points = jnp.zeros((1, 7, 2)).at[:, 3:].set(0.5)
    found = from_seven(points, points)
    assert not found.usable.any()
    assert jnp.isfinite(found.transform).all()
