from pathlib import Path

import numpy as np
import pytest

from delf_jax import drawing
from delf_jax.features import LocalFeatures
from delf_jax.photos.load import load_photo
from retrieval import draw
from retrieval.draw import Panel

GREY = 128


def features(points: list[tuple[float, float]], *, size: tuple[int, int], scale: float = 1.0) -> LocalFeatures:
    n = len(points)
    return LocalFeatures(
        keypoints=np.array(points, np.float32).reshape(n, 2),
        scales=np.full(n, scale, np.float32),
        scores=np.linspace(1, 0.5, n, dtype=np.float32),
        descriptors=np.zeros((n, 4), np.float32),
        image_size=size,
    )


def panel(points: list[tuple[float, float]], *, size: tuple[int, int] = (100, 160), scale: float = 1.0) -> Panel:
    return Panel(np.full((*size, 3), GREY, np.uint8), features(points, size=size, scale=scale))


def colourful(picture: np.ndarray) -> np.ndarray:
    """Where a grey picture was drawn upon."""
    return picture.max(axis=-1).astype(int) - picture.min(axis=-1) > 20


def test_photos_stand_side_by_side_at_the_asked_height() -> None:
    canvas = draw.draw_matches(panel([]), panel([], size=(200, 100)), np.zeros((0, 2)), np.zeros((0, 2)), height=300)
    assert canvas.shape == (300, 480 + drawing.GAP + 150, 3)
    assert canvas.dtype == np.uint8
    assert (canvas[:, 480 : 480 + drawing.GAP] == drawing.BACKGROUND).all()


def test_an_inlier_line_leads_from_point_to_point() -> None:
    canvas = draw.draw_matches(panel([]), panel([]), np.array([[20.0, 50]]), np.array([[140.0, 50]]), height=100)
    drawn = colourful(canvas)
    start, end = 20, 160 + drawing.GAP + 140
    assert drawn[50, start : end + 1].all()
    assert not drawn[:, : start - 6].any()
    assert not drawn[:, end + 7 :].any()
    assert not drawn[:40].any()
    assert not drawn[60:].any()


def test_outliers_are_not_drawn() -> None:
    a, b = np.array([[20.0, 20], [20, 80]]), np.array([[140.0, 20], [140, 80]])
    canvas = draw.draw_matches(panel([]), panel([]), a, b, where=np.array([True, False]), height=100)
    drawn = colourful(canvas)
    assert drawn[20, 20:300].all()
    assert not drawn[70:].any()


def test_neighbours_get_like_colours_and_far_points_others() -> None:
    a = np.array([[10.0, 20], [12, 22], [150, 80]])
    canvas = draw.draw_matches(panel([]), panel([]), a, np.array([[10.0, 90], [80, 90], [150, 90]]), height=100)
    first, near, far = (canvas[int(y), int(x)].astype(int) for x, y in a)
    assert np.abs(first - near).sum() < 60 < np.abs(first - far).sum()


def test_points_belong_to_the_original_even_if_the_picture_is_smaller() -> None:
    small = Panel(np.full((100, 160, 3), GREY, np.uint8), features([(639.5, 399.5)], size=(800, 1280)))
    np.testing.assert_allclose(small.to_picture(np.asarray(small.features.keypoints, np.float64)), [[79.5, 49.5]])
    np.testing.assert_allclose(small.radii(), [1.0])


@pytest.mark.parametrize(("scale", "radius"), [(1.0, 8), (0.5, 16), (0.25, 32)])
def test_circles_are_sized_by_scale(scale: float, radius: int) -> None:
    row = colourful(draw.draw_keypoints(panel([(80, 50)], scale=scale)))[50]
    assert row[[80 - radius, 80 + radius]].all()
    assert not row[80 - radius + 3 : 80 + radius - 2].any()
    assert not row[: 80 - radius - 2].any()


def test_real_photos_of_different_sizes(demo_photos: Path) -> None:
    rng = np.random.default_rng(0)
    panels = []
    for name in ("graf1", "box"):
        photo = load_photo(demo_photos / f"{name}.jpg", max_side=400)
        height, width = photo.original_size
        points = [(float(x), float(y)) for x, y in rng.uniform((0, 0), (width, height), (50, 2))]
        panels.append(Panel(photo.pixels, features(points, size=photo.original_size, scale=0.7)))
    before = [p.pixels.copy() for p in panels]
    ends = [np.asarray(p.features.keypoints, np.float64) for p in panels]
    canvas = draw.draw_matches(*panels, *ends, caption="graf1 and box", accepted=False, height=240)
    assert canvas.shape[0] == 240 + drawing.CAPTION_HEIGHT
    assert draw.draw_keypoints(panels[0]).shape == panels[0].pixels.shape
    for p, pixels in zip(panels, before, strict=True):
        np.testing.assert_array_equal(p.pixels, pixels)  # pictures are drawn on copies
