"""Frames, bars and flat areas of photos drawn by hand."""

import jax.numpy as jnp
import numpy as np

from delf_jax.extraction.texture import content_box, find_content, has_content, is_textured, texture_map

GREY = 100.0


def flat(height: int, width: int) -> np.ndarray:
    return np.full((1, height, width, 3), GREY, np.float32)


def whole(image: np.ndarray) -> jnp.ndarray:
    return jnp.array([image.shape[1:3]])


def test_the_box_of_a_framed_photo() -> None:
    photo = flat(8, 9)
    photo[0, 2:5, 3:7, 1] += np.array([[0, 7, 0, 7], [7, 0, 7, 0], [0, 7, 0, 7]])
    # Pixels 3 to 6 by 2 to 4; edges lie half a pixel outside their centres.
    assert content_box(jnp.asarray(photo), whole(photo)).tolist() == [[[2.5, 1.5], [6.5, 4.5]]]


def test_six_levels_still_belong_to_the_frame() -> None:
    photo = flat(4, 4)
    photo[0, 1, 2] += 6
    assert content_box(jnp.asarray(photo), whole(photo)).tolist() == [[[-0.5, -0.5], [-0.5, -0.5]]]
    photo[0, 1, 2] += 1
    # One pixel makes its row vary, but no column: nothing is left beside it.
    box = content_box(jnp.asarray(photo), whole(photo))
    assert box[0, :, 1].tolist() == [0.5, 1.5]
    assert box[0, 0, 0] == box[0, 1, 0]


def test_padding_is_no_content() -> None:
    photo = flat(8, 9)
    photo[0, :4, :5] = np.random.default_rng(0).integers(0, 256, (4, 5, 3))
    photo[0, 4:] = 0
    assert content_box(jnp.asarray(photo), jnp.array([[4, 5]])).tolist() == [[[-0.5, -0.5], [4.5, 3.5]]]


def test_windows_around_one_pixel_have_texture() -> None:
    photo = flat(32, 40)
    photo[0, 12, 20, 2] += 3
    # Window i covers the pixels 8 i - 8 to 8 i + 7: row 12 lies in windows 1 and 2, column 20 in windows 2 and 3.
    texture = texture_map(jnp.asarray(photo), whole(photo))
    assert texture.shape == (1, 5, 6)
    assert np.argwhere(texture[0]).tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]
    points = jnp.array([[[20, 12], [16, 11.9], [12.1, 4.1], [12.1, 3.9], [11.9, 12], [28.1, 12], [999, 12]]])
    assert is_textured(texture, points).tolist() == [[True, True, True, False, False, False, False]]


def test_two_levels_are_flat_and_padding_is_not_looked_at() -> None:
    photo = flat(24, 24)
    photo[0, 4, 4] += 2
    photo[0, :, 16:] = 0
    assert not texture_map(jnp.asarray(photo), jnp.array([[24, 16]])).any()


def test_content_is_inside_the_frame_and_not_flat() -> None:
    photo = flat(64, 64)
    for left in (16, 48):
        photo[0, 16:, left : left + 16] = np.random.default_rng(left).integers(0, 256, (48, 16, 3))
    content = find_content(jnp.asarray(photo), whole(photo))
    points = jnp.array([[[[24.0, 40], [24, 12], [40, 40], [8, 40]]]])
    # On the noise, in the frame above it, between the two stripes of noise, in the frame to the left.
    assert has_content(content, points).tolist() == [[[True, False, False, False]]]
