"""Peaks, the border rule, sampling, thresholds and the top-k, each worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from delf_jax.extraction.keypoints import above, clear_of_border, peaks, sample


def peaks_of(strength: list[list[float]], where: object = True) -> tuple[np.ndarray, np.ndarray]:
    """``peaks`` of one map."""
    values = jnp.asarray([strength], jnp.float32)
    found, offsets = peaks(values, where=jnp.broadcast_to(jnp.asarray(where, bool), values.shape))
    return np.asarray(found[0]), np.asarray(offsets[0])


def test_a_parabola_places_a_peak_between_cells() -> None:
    found, offsets = peaks_of([[1, 1, 1], [2, 4, 3], [1, 3, 1]])
    assert np.argwhere(found).tolist() == [[1, 1]]
    # Rows 1, 4, 3: (3 - 1) / (2 (8 - 4)); columns 2, 4, 3: (3 - 2) / (2 (8 - 5)).
    np.testing.assert_allclose(offsets[1, 1], [1 / 4, 1 / 6], rtol=1e-6)


def test_a_peak_at_the_edge_of_the_map_stays_at_its_cell() -> None:
    found, offsets = peaks_of([[5, 3, 0], [2, 1, 0]])
    assert np.argwhere(found).tolist() == [[0, 0]]
    assert offsets[0, 0].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("strength", "expected"),
    [
        ([[2, 4, 4, 2]], [(0, 1)]),
        ([[1, 4, 4, 4]], [(0, 1)]),
        ([[4, 4, 4], [4, 4, 4], [4, 4, 4]], [(0, 0)]),
        ([[4, 4, 9], [4, 4, 4], [9, 4, 4]], [(0, 0), (0, 2), (2, 0)]),
        ([[9, 4, 4], [4, 4, 4]], [(0, 0)]),  # every other cell has an equal or a stronger one before it
        ([[4, 1], [1, 4]], [(0, 0), (1, 1)]),
    ],
)
def test_of_equal_neighbours_the_first_is_the_peak(
    strength: list[list[float]], expected: list[tuple[int, int]]
) -> None:
    found, _ = peaks_of(strength)
    assert list(map(tuple, np.argwhere(found).tolist())) == expected


def test_a_peak_that_two_equal_cells_share_lies_between_them() -> None:
    _, offsets = peaks_of([[2, 4, 4, 2]])
    np.testing.assert_allclose(offsets[0, 1], [0, 0.5], atol=1e-6)


def test_a_peak_does_not_lean_on_a_cell_that_does_not_count() -> None:
    found, offsets = peaks_of([[1, 5, 9, 2]], where=[[True, True, False, True]])
    assert found.tolist() == [[False, True, False, True]]
    assert not offsets[found].any()
    # Across, where both neighbours count, the parabola through 3, 5, 1 places it: (1 - 3) / (2 (10 - 4)).
    found, offsets = peaks_of([[1, 3, 1], [1, 5, 9], [1, 1, 1]], where=[[True] * 3, [True, True, False], [True] * 3])
    assert found[1, 1]
    np.testing.assert_allclose(offsets[1, 1], [-1 / 6, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        # 1.6 cells of 20 x 10 pixels: x + 0.5 in (32, 88) of 120 pixels, y + 0.5 in (16, 64) of 80 pixels.
        ((31.4, 40), False),
        ((31.6, 40), True),
        ((87.4, 40), True),
        ((87.6, 40), False),
        ((60, 15.4), False),
        ((60, 15.6), True),
        ((60, 63.4), True),
        ((60, 63.6), False),
    ],
)
def test_keypoints_near_the_border_are_left_out(point: tuple[float, float], expected: bool) -> None:
    keypoints = jnp.asarray(point, jnp.float32).reshape(1, 1, 1, 2)
    assert (
        clear_of_border(keypoints, jnp.array([[80, 120]]), jnp.array([20.0, 10.0]).reshape(1, 1, 1, 2)).item()
        is expected
    )


def test_samples_are_bilinear_and_stay_inside_the_map() -> None:
    dense = jnp.asarray([[[0, 10, 20], [30, 40, 50]]], jnp.float32)[..., None]
    positions = jnp.array([[[1, 2], [0.25, 0], [0, 1.5], [0.5, 1.5], [-1, 9], [7, 0.5]]])
    expected = [50, 7.5, 15, (10 + 20 + 40 + 50) / 4, 20, 35]
    np.testing.assert_allclose(sample(dense, positions)[0, :, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("threshold", "quantile", "expected"),
    [
        (None, None, [5, 4, 3, 2]),
        (3.0, None, [5, 4, 3]),  # a score at the threshold stays
        (None, 0.5, [5, 4]),  # floor(0.5 * 4) = 2: counted from 0, the third smallest of 2, 3, 4, 5
        (None, 0.3, [5, 4, 3]),  # floor(0.3 * 4) = 1
        (None, 0.0, [5, 4, 3, 2]),
        (3.0, 0.5, [5, 4]),  # of the scores 3, 4, 5 that the threshold leaves
        (9.0, 0.5, []),
    ],
)
def test_thresholds_and_quantiles(threshold: float | None, quantile: float | None, expected: list[float]) -> None:
    scores = jnp.array([[5.0, 4, 3, 2, 1]])
    where = jnp.array([[True, True, True, True, False]])
    kept = above(scores, where=where, threshold=threshold, quantile=quantile)
    assert scores[kept].tolist() == expected


def test_a_quantile_is_of_each_photo() -> None:
    scores = jnp.array([[9.0, 8, 7, 6], [4, 3, 2, 1]])
    kept = above(scores, where=jnp.ones((2, 4), bool), quantile=0.5)
    assert kept.tolist() == [[True, True, False, False]] * 2
