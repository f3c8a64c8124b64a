"""Heat, captions and sheets: what every picture is made with."""

import numpy as np
import pytest

from delf_jax import drawing

GREY = 128


def test_heat_lies_where_the_cells_are() -> None:
    heat = np.zeros((5, 8), np.float32)
    heat[1, 6] = 1
    hot = drawing.draw_heat(np.full((100, 160, 3), GREY, np.uint8), heat, origin=(7.5, 7.5), step=(20, 20))
    brightness = hot.astype(int).sum(axis=-1)
    y, x = np.unravel_index(brightness.argmax(), brightness.shape)
    assert abs(x - (7.5 + 6 * 20)) <= 1
    assert abs(y - (7.5 + 20)) <= 1
    assert hot.shape == (100, 160, 3)


def test_an_even_map_gives_no_heat() -> None:
    hot = drawing.draw_heat(
        np.full((40, 40, 3), GREY, np.uint8), np.full((3, 3), 7, np.float32), origin=(5, 5), step=(15, 15)
    )
    assert hot.std() < 30
    assert np.isfinite(hot).all()


def test_a_caption_adds_a_line_with_its_dot() -> None:
    plain = np.full((50, 400, 3), GREY, np.uint8)
    for accepted, colour in ((True, drawing.GREEN), (False, drawing.RED)):
        captioned = drawing.with_caption(plain, "12 inliers", accepted=accepted)
        assert (captioned[:50] == plain).all()
        assert (captioned[50 + drawing.CAPTION_HEIGHT // 2, 20] == colour).all()
        assert (captioned[50:, 60:] != drawing.BACKGROUND).any()


def test_stacked_pictures_keep_their_pixels() -> None:
    sheet = drawing.stack([np.full((10, 30, 3), 1, np.uint8), np.full((20, 50, 3), 2, np.uint8)])
    assert sheet.shape == (30 + drawing.GAP, 50, 3)
    assert (sheet[:10, :30] == 1).all()
    assert (sheet[10 + drawing.GAP :] == 2).all()
    with pytest.raises(ValueError, match="at least one picture"):
        drawing.stack([])
