"""Pictures of localizations and explanations."""

import io

import numpy as np
from PIL import Image

from delf_jax import drawing
from localization import draw
from localization.localizing import Localization
from localization.maps.boxes import Box
from localization.representers.explain import Explanation
from localization.representers.values import RepresenterPoint

SIZE = (200, 320)


def localization() -> Localization:
    """Found in a photo of SIZE, seen at half of it: a large region and a small one inside each other's box."""
    activation = np.zeros((100, 160), np.float32)
    activation[20:60, 40:120] = 1
    large, small = np.zeros((2, 100, 160), bool)
    large[20:60, 40:120] = True
    small[70:80, 10:30] = True
    boxes = [Box(80, 40, 240, 120, 0.5), Box(20, 140, 60, 160, 0.2)]
    return Localization(True, 0.5, boxes, activation, [large, small], SIZE)


def point(x: float, y: float, *, importance: float = 1e-5) -> RepresenterPoint:
    file = io.BytesIO()
    Image.new("RGB", (80, 40), (0, 90, 0)).save(file, "JPEG")
    return RepresenterPoint(
        image="folder/photo.jpg",
        xy=(x, y),
        image_size=(400, 800),
        label=None,
        thumbnail=file.getvalue(),
        importance=importance,
        similarity=0.7,
        value=0.1,
        share=0.04,
        cumulative=0.04,
    )


def test_boxes_and_heat_lie_on_the_photo_at_any_size() -> None:
    picture = draw.draw_localization(np.full((100, 160, 3), 128, np.uint8), localization())
    assert picture.shape == (100, 160, 3)
    green = (np.abs(picture.astype(int) - drawing.GREEN).sum(axis=-1) < 60).nonzero()
    assert abs(green[1].min() - 10) <= 2  # the small box
    assert abs(green[1].max() - 120) <= 2  # the large one
    assert abs(green[0].min() - 20) <= 2
    brightness = picture.astype(int).sum(axis=-1)
    assert brightness[40, 80] > brightness[90, 100] + 100


def test_masks_are_numbered_in_pixels_of_the_original() -> None:
    numbers = draw.number_masks(localization())
    assert numbers.shape == SIZE
    assert set(np.unique(numbers)) == {0, 1, 2}
    rows, columns = (numbers == 1).nonzero()
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (80, 40, 240, 120)


def test_a_training_place_is_marked_where_it_is() -> None:
    row = draw.draw_points([point(599.5, 199.5), point(0, 0)])
    tile = row[: row.shape[1] // 2, : (row.shape[1] - drawing.GAP) // 2]
    white = (tile[: tile.shape[1] // 2].min(axis=-1) > 200).nonzero()
    # The photo is drawn at 168 x 84.
    np.testing.assert_allclose([white[1].mean(), white[0].mean()], [0.75 * 168, 0.5 * 84], atol=2)


def test_a_training_photo_may_be_a_line() -> None:
    file = io.BytesIO()
    Image.new("RGB", (1, 448), (0, 90, 0)).save(file, "JPEG")
    line = RepresenterPoint(**(vars(point(0, 0)) | {"thumbnail": file.getvalue(), "image_size": (448, 1)}))
    assert draw.draw_points([line]).shape == draw.draw_points([point(0, 0)]).shape


def test_the_sheet_shows_both_signs_and_keeps_the_photo() -> None:
    photo = np.full((100, 160, 3), 128, np.uint8)
    explained = Explanation(0.5, [point(5, 5)] * 8, [point(5, 5, importance=-1e-5)] * 8, points_scanned=16)
    for where in (None, (100.0, 80.0), (80.0, 40.0, 240.0, 120.0)):
        sheet = draw.draw_explanation(photo, localization(), explained, where, height=200)
        for colour in (drawing.GREEN, drawing.RED):
            assert (sheet == colour).all(axis=-1).any()
    assert (photo == 128).all()
    bare = Explanation(0.5, [point(5, 5), RepresenterPoint(**(vars(point(5, 5)) | {"thumbnail": None}))], [], 2)
    assert draw.draw_explanation(photo, localization(), bare, height=200).shape[1] == sheet.shape[1]
