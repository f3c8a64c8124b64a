"""Crops and warps of real photos, and of images that tell where each pixel came from."""

from pathlib import Path

import numpy as np
import pytest

from delf_jax.photos.load import load_photo
from delf_jax.training.augmentation import AreaCrop, Augmentation, SquareCrop, Warp, Whole

ALL = [SquareCrop(120, 96), SquareCrop(96, 96, random=False), AreaCrop(96), Whole(96), Warp(96)]


@pytest.fixture(scope="module")
def photo(demo_photos: Path) -> np.ndarray:
    return load_photo(demo_photos / "building.jpg", max_side=256).pixels


def where(height: int, width: int) -> np.ndarray:
    """An image whose red is x and whose green is y, both at most 255."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("augment", ALL, ids=lambda augment: type(augment).__name__)
@pytest.mark.parametrize("shape", [(200, 131), (131, 200), (96, 96), (30, 400), (1, 1)])
def test_views_have_their_size_whatever_the_photo(augment: Augmentation, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (*shape, 3), np.uint8)
    for seed in range(5):
        view = augment(pixels, np.random.default_rng(seed))
        assert view.pixels.shape == (96, 96, 3)
        assert view.pixels.dtype == np.uint8
        height, width = view.valid_hw
        assert not view.pixels[height:].any()
        assert not view.pixels[:, width:].any()
        assert max(height, width) <= 96


@pytest.mark.parametrize("augment", ALL, ids=lambda augment: type(augment).__name__)
def test_equal_generators_give_equal_views(augment: Augmentation, photo: np.ndarray) -> None:
    before = photo.copy()
    first, same = (augment(photo, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first.pixels, same.pixels)
    np.testing.assert_array_equal(photo, before)
    other = augment(photo, np.random.default_rng(8))
    random = not isinstance(augment, Whole) and getattr(augment, "random", True)
    assert random != np.array_equal(first.pixels, other.pixels)


def test_the_papers_crop_stays_in_the_central_square() -> None:
    image = where(100, 200)
    lefts, tops = set(), set()
    for seed in range(200):
        view = SquareCrop(100, 90)(image, np.random.default_rng(seed)).pixels
        left, top = int(view[0, 0, 0]), int(view[0, 0, 1])
        np.testing.assert_array_equal(view, image[top : top + 90, left : left + 90])
        lefts.add(left)
        tops.add(top)
    assert lefts == set(range(50, 61))
    assert tops == set(range(11))
    centre = SquareCrop(100, 90, random=False)(image, np.random.default_rng(0)).pixels
    np.testing.assert_array_equal(centre, image[5:95, 55:145])


def test_the_official_crop_has_the_published_areas_and_aspects_and_no_mirror() -> None:
    image = where(240, 240)
    areas, aspects = [], []
    for seed in range(400):
        view = AreaCrop(64)(image, np.random.default_rng(seed)).pixels.astype(float)
        # Ends of the view in the photo, from its slope.
        width, height = (view[32, -1, 0] - view[32, 0, 0]) * 64 / 63, (view[-1, 32, 1] - view[0, 32, 1]) * 64 / 63
        assert width > 0
        assert height > 0
        areas.append(width * height / 240**2)
        aspects.append(width / height)
    assert 0.07 < min(areas) < 0.1
    assert 0.8 < max(areas) <= 1.01
    # Uniform between .08 and 1, less the crops that do not fit.
    assert 0.45 < np.mean(areas) < 0.55
    assert 0.72 < min(aspects) < 0.8
    assert 1.25 < max(aspects) < 1.39


def test_whole_photos_are_padded_and_never_enlarged(photo: np.ndarray) -> None:
    small = photo[:50, :80]
    view = Whole(96)(small, np.random.default_rng(0))
    assert view.valid_hw == (50, 80)
    np.testing.assert_array_equal(view.pixels[:50, :80], small)
    large = Whole(96)(where(100, 200), np.random.default_rng(0))
    assert large.valid_hw == (48, 96)


def test_warps_show_photo_only_from_many_places_and_angles() -> None:
    height, width = 180, 240
    image = where(height, width)
    image[..., 2] = 255
    turns, covered = [], np.zeros((height, width), bool)
    for seed in range(200):
        view = Warp(64, light=0)(image, np.random.default_rng(seed)).pixels
        # Blue is 255 all over the photo, so a border of any other colour would show.
        assert view[..., 2].min() == 255
        x, y = view[..., 0].astype(float), view[..., 1].astype(float)
        covered[view[..., 1], view[..., 0]] = True
        turns.append(np.degrees(np.arctan2(y[32, 48] - y[32, 16], x[32, 48] - x[32, 16])))
        # Never mirrored: x grows to the right and y downwards, at every place.
        assert (x[:, -1] > x[:, 0]).all()
        assert (y[-1] > y[0]).all()
    assert -40 < min(turns) < -8
    assert 8 < max(turns) < 40
    assert abs(np.mean(turns)) < 3
    assert covered.mean() > 0.95


def test_light_changes_colours_not_places(photo: np.ndarray) -> None:
    gradients = []
    for seed in range(30):
        # Without light, the random numbers of the geometry are the same.
        plain = Warp(96, light=0)(photo, np.random.default_rng(seed)).pixels.astype(float)
        lit = Warp(96)(photo, np.random.default_rng(seed)).pixels.astype(float)
        assert np.abs(plain - lit).mean() > 1
        gradients.append(np.corrcoef(plain.mean(axis=2).ravel(), lit.mean(axis=2).ravel())[0, 1])
    assert min(gradients) > 0.8
    assert np.median(gradients) > 0.95


def test_warping_does_not_alias() -> None:
    # Lines one pixel wide become grey when the view is a quarter as large, and nothing else.
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    warp = Warp(64, area=(0.9, 1.0), angle=2, corners=0.02, light=0)
    for seed in range(5):
        view = warp(stripes, np.random.default_rng(seed)).pixels
        assert np.abs(view.astype(float) - 127.5).max() < 40
