"""Sizes and interpolation weights worked out by hand; both ways to resize agree."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delf_jax.extraction import pyramid
from delf_jax.models.layers import valid_cells


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((480, 640), 0.5, (240, 320)),
        ((5, 7), 0.5, (3, 4)),  # halves are rounded upwards
        ((333, 1000), 0.7071, (235, 707)),
        ((333, 1000), 2.0, (666, 2000)),
        ((1, 9), 0.25, (1, 2)),  # a photo keeps at least one pixel
        ((0, 0), 0.25, (0, 0)),
    ],
)
def test_scaled_sizes(size: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    assert tuple(pyramid.scaled_size(jnp.array(size), scale).tolist()) == expected


def test_weights_of_a_reduction_by_hand() -> None:
    # Four samples to two: centres 0.5 and 2.5, triangle 1 - distance / 2, each row divided by its sum 7/4.
    expected = np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7
    np.testing.assert_allclose(pyramid.interpolation_matrix(jnp.int32(4), jnp.int32(2), 4, 2), expected, atol=1e-6)


def test_weights_of_an_enlargement_by_hand() -> None:
    # Two samples to four: centres -0.25, 0.25, 0.75 and 1.25. Beyond the outer samples there is nothing to mix with.
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    np.testing.assert_allclose(pyramid.interpolation_matrix(jnp.int32(2), jnp.int32(4), 2, 4), expected, atol=1e-6)


def test_padding_has_no_weight() -> None:
    found = np.asarray(pyramid.interpolation_matrix(jnp.int32(4), jnp.int32(2), 6, 3))
    np.testing.assert_allclose(found[:2, :4], np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7, atol=1e-6)
    assert not found[2:].any()
    assert not found[:, 4:].any()


def test_a_photo_reduced_by_hand() -> None:
    photo = np.zeros((1, 6, 5, 1), np.float32)
    photo[0, :4, :4, 0] = np.array([0, 70, 140, 210])[:, None]
    (resized,) = pyramid.resize_by_taps(jnp.asarray(photo), jnp.array([[4, 4]]), scales=[0.5])
    assert resized.shape == (1, 3, 3, 1)
    # (3 * 0 + 3 * 70 + 140) / 7 and (70 + 3 * 140 + 3 * 210) / 7
    np.testing.assert_allclose(resized[0, ..., 0], [[50, 50, 0], [160, 160, 0], [0, 0, 0]], atol=1e-4)


def padded_photos(sizes: Any) -> Any:
    photos = np.random.default_rng(0).integers(1, 256, (len(sizes), 40, 48, 3)).astype(np.float32)
    return jnp.where(valid_cells(sizes, 40, 48)[..., None], photos, 0)


def test_scale_one_keeps_the_pixels_in_products_too() -> None:
    photos = padded_photos(jnp.array([(40, 47)]))
    (planes,) = pyramid.resize_by_matrices(photos, jnp.array([(40, 47)]), scales=[1.0], dtype=jnp.bfloat16)
    assert planes.dtype == jnp.bfloat16
    for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)):
        expected = photos[0, row::2, column::2].transpose(2, 0, 1)
        np.testing.assert_array_equal(planes[0, :, row, column].astype(jnp.float32), expected)


def test_taps_give_what_matrices_give() -> None:
    scales = (0.1, 0.2, 0.3536, 0.7071, 1.4142, 2.0)
    sizes = jnp.array([(33, 47), (17, 5), (40, 48), (7, 3), (3, 2), (1, 1), (0, 0)])
    photos = padded_photos(sizes)
    by_matrices, by_taps = (
        jax.jit(resize, static_argnames="scales")(photos, sizes, scales=scales)
        for resize in (pyramid.resize_by_matrices, pyramid.resize_by_taps)
    )
    for scale, planes, found in zip(scales, by_matrices, by_taps, strict=True):
        expected = planes.transpose(0, 4, 2, 5, 3, 1).reshape(len(sizes), 2 * planes.shape[4], 2 * planes.shape[5], 3)
        expected = expected[:, : found.shape[1], : found.shape[2]]
        np.testing.assert_allclose(found, expected, atol=1e-3)
        for row, (height, width) in enumerate(pyramid.scaled_size(sizes, scale).tolist()):
            assert not np.asarray(found[row, height:]).any()
            assert not np.asarray(found[row, :, width:]).any()
            assert np.asarray(found[row, :height, :width]).all()


def test_bfloat16_products_stay_within_a_grey_level() -> None:
    sizes = jnp.array([(40, 48), (17, 29)])
    photos = padded_photos(sizes)
    exact, rounded = (
        pyramid.resize_by_matrices(photos, sizes, scales=(0.7071, 2.0), dtype=dtype)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    for expected, found in zip(exact, rounded, strict=True):
        difference = np.abs(np.asarray(found, np.float32) - np.asarray(expected))
        assert 0 < difference.mean() < 0.3
        assert difference.max() < 2
