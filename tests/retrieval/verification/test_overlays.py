"""Frames, watermarks and captions: photos made by hand, of features alone, with and without them."""

import numpy as np
import pytest

import retrieval
from delf_jax.features import Domain, LocalFeatures
from retrieval.verification.overlays import _fixed_maps, on_overlay

# (width, height) of the photos.
SIZE = np.array([640, 480])


def photo(points: np.ndarray, size: np.ndarray = SIZE) -> LocalFeatures:
    """Feature i of every photo has descriptor i, so they match in this order."""
    count = len(points)
    return LocalFeatures(
        keypoints=points.astype("f"),
        scales=np.ones(count, "f"),
        scores=np.ones(count, "f"),
        descriptors=np.eye(count, 200, dtype="f"),
        image_size=(int(size[1]), int(size[0])),
    )


def spread(seed: int, count: int = 60, *, margin: float = 0.15) -> np.ndarray:
    """Places at random, ``margin`` of the photo's sides away from its border."""
    return np.random.default_rng(seed).uniform(margin, 1 - margin, (count, 2)) * SIZE


def frame(size: np.ndarray = SIZE) -> np.ndarray:
    """40 places along the border, in proportion to the photo."""
    along, across = np.linspace(0.05, 0.95, 10), np.full(10, 0.04)
    sides = [(along, across), (along, 1 - across), (across, along), (1 - across, along)]
    return np.concatenate([np.stack(side, axis=1) for side in sides]) * size


def on(a: LocalFeatures, b: LocalFeatures, inliers: np.ndarray) -> np.ndarray:
    rows = np.stack([np.arange(len(a))] * 2, axis=1)
    domains = (Domain.whole(a.image_size, 1000), Domain.whole(b.image_size, 1000))
    return on_overlay(a, b, rows, inliers, domains=domains)


@pytest.mark.parametrize("size", [SIZE, SIZE * 2, np.array([800, 480])])
def test_a_frame_around_different_photos_is_an_overlay(size: np.ndarray) -> None:
    a, b = photo(np.r_[frame(), spread(0)]), photo(np.r_[frame(size), spread(1) * size / SIZE], size)
    is_frame = np.arange(100) < 40
    found = on(a, b, is_frame)
    np.testing.assert_array_equal(found[:40], True)
    assert found[40:].sum() <= 2  # by chance at the same place
    # Of what agrees on the transform, half must stay in place.
    leave, first = np.flatnonzero(~found), np.arange(100) < 18
    assert on(a, b, first | np.isin(np.arange(100), leave[:18])).any()
    assert not on(a, b, first | np.isin(np.arange(100), leave[:19])).any()


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 1)])
def test_a_watermark_keeps_its_size_in_pixels_and_its_distance_to_a_corner(corner: tuple[float, float]) -> None:
    size = np.array([1000, 700])
    mark = np.random.default_rng(2).uniform(-40, 40, (20, 2))
    place = np.array([60, 60]) + np.array(corner) * -120
    a = photo(np.r_[mark + place + corner * SIZE, spread(0)])
    b = photo(np.r_[mark + place + corner * size, spread(1) * size / SIZE], size)
    assert on(a, b, np.arange(80) < 20)[:20].all()


def test_copies_have_no_overlay() -> None:
    places = np.r_[frame(), spread(0)]
    every = np.ones(100, bool)
    noise = np.random.default_rng(3).normal(0, 2, places.shape)
    assert not on(photo(places), photo(places + noise), every).any()
    assert not on(photo(places), photo(places / 2 + noise, SIZE / 2), every).any()
    # Cut at the right and below: what is left stays in place, and what is gone matches anywhere.
    size = SIZE * 0.75
    is_left = (places < size).all(axis=1)
    cut = np.where(is_left[:, None], places, spread(4, 100) * 0.75)
    assert not on(photo(places), photo(cut, size), is_left).any()
    # A caption over one of them.
    is_free = places[:, 1] < 0.8 * SIZE[1]
    captioned = np.where(is_free[:, None], places, spread(5, 100) * [1, 0.2] + SIZE * [0, 0.8])
    assert not on(photo(places), photo(captioned), is_free).any()


def test_a_photo_that_has_moved_is_no_overlay() -> None:
    a, b = photo(np.r_[frame(), spread(0)]), photo(np.r_[frame() + 25, spread(1)])
    assert not on(a, b, np.arange(100) < 40).any()
    assert not on(a, b, np.zeros(100, bool)).any()


def test_overlays_of_photos_of_one_size_do_not_move() -> None:
    scales, shifts = _fixed_maps((480, 640), (480, 640))
    np.testing.assert_array_equal(scales, [[1, 1]])
    np.testing.assert_array_equal(shifts, [[0, 0]])


def test_different_photos_in_one_frame_are_refused() -> None:
    found = retrieval.match(photo(np.r_[frame(), spread(0)]), photo(np.r_[frame(), spread(1)]))
    assert not found.accepted
    assert found.overlay >= 40
    assert found.putative == 100 - found.overlay
    assert found.confidence.endswith(f"; {found.overlay} matches on an overlay of both photos do not count")


def test_photos_of_one_thing_in_one_frame_are_accepted_by_it() -> None:
    turn = np.array([[0.8, -0.2], [0.2, 0.8]])
    inside = spread(0)[:30]
    moved = (inside - SIZE / 2) @ turn.T + SIZE / 2
    found = retrieval.match(
        photo(np.r_[frame(), inside, spread(1, 20)]), photo(np.r_[frame(), moved, spread(2, 20)]), threshold=-5.0
    )
    assert found.accepted
    assert 40 <= found.overlay <= 45
    assert found.transform is not None
    np.testing.assert_allclose(found.transform[:2, :2], turn, atol=0.02)
    assert not set(found.rows[:, 0]) & set(range(40))
    # Matches of the middle stay in place too, so it is a little less sure than without the frame.
    alone = retrieval.match(photo(np.r_[inside, spread(1, 20)]), photo(np.r_[moved, spread(2, 20)]), threshold=-5.0)
    assert alone.overlay == 0
    assert alone.log10_nfa <= found.log10_nfa < 0.8 * alone.log10_nfa
