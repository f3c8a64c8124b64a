"""Where a photo shows something: inside constant frames and letterbox bars, and where its pixels vary.

A cell of the feature map may only give a feature where both hold: on constant areas, features describe nothing that
could be found again, and they match any other constant area.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from delf_jax.models.layers import valid_cells

# Of 255 grey levels. Compressed photos vary by a few levels inside a frame of one colour.
_FRAME_LEVELS = 6.0
_FLAT_LEVELS = 2.0
_WINDOW = 16
_STRIDE = _WINDOW // 2


class Content(NamedTuple):
    """Where each photo of a batch shows something.

    Attributes:
        box: float32 [b, 2, 2], (x, y) of the corners of the part inside frames and bars; see ``content_box``.
        texture: bool [b, gh, gw]; see ``texture_map``.
    """

    box: Float[Array, "b 2 2"]
    texture: Bool[Array, "b gh gw"]


def find_content(images: Float[Array, "b h w c"], valid_hw: Int[Array, "b 2"]) -> Content:
    """Where the photos of a padded batch show something; float32 pixels in 0-255."""
    return Content(content_box(images, valid_hw), texture_map(images, valid_hw))


def has_content(content: Content, points: Float[Array, "b h w 2"]) -> Bool[Array, "b h w"]:
    """True where a point (x, y) lies inside the content box and on a window of pixels that vary."""
    batch, height, width, _ = points.shape
    box = content.box[:, None, None]
    in_box = ((points > box[..., 0, :]) & (points < box[..., 1, :])).all(axis=-1)
    return in_box & is_textured(content.texture, points.reshape(batch, -1, 2)).reshape(batch, height, width)


def content_box(images: Float[Array, "b h w c"], valid_hw: Int[Array, "b 2"]) -> Float[Array, "b 2 2"]:
    """The part of each photo inside its constant frame or letterbox bars.

    A row at the border belongs to the frame if its pixels differ by at most 6 of 255 levels in every channel. The same
    test is then made for the columns, over the rows that are left.

    Args:
        images: float32 [b, h, w, c] in 0-255.
        valid_hw: int32 [b, 2]; pixels outside are not read.

    Returns:
        float32 [b, 2, 2]: (x, y) of the first and of the last edge, which lie half a pixel outside the centres of the
        first and last pixels. Both edges are the same for a constant photo.
    """
    height, width = images.shape[1:3]
    mask = valid_cells(valid_hw, height, width)
    top, bottom = _varying_span(images, mask, axis=2)
    rows = jnp.arange(height)
    mask &= ((rows >= top[:, None]) & (rows < bottom[:, None]))[:, :, None]
    left, right = _varying_span(images, mask, axis=1)
    return jnp.stack([left, top, right, bottom], axis=-1).reshape(-1, 2, 2) - 0.5


def _varying_span(
    images: Float[Array, "b h w c"], mask: Bool[Array, "b h w"], *, axis: int
) -> tuple[Int[Array, " b"], Int[Array, " b"]]:
    """First and end index of the lines (along the other axis) whose pixels vary along ``axis``."""
    highest = jnp.where(mask[..., None], images, -jnp.inf).max(axis=axis)
    lowest = jnp.where(mask[..., None], images, jnp.inf).min(axis=axis)
    varies = (highest - lowest).max(axis=-1) > _FRAME_LEVELS
    length = varies.shape[1]
    any_line = varies.any(axis=1)
    first = jnp.where(any_line, jnp.argmax(varies, axis=1), 0)
    end = jnp.where(any_line, length - jnp.argmax(varies[:, ::-1], axis=1), 0)
    return first.astype(jnp.int32), end.astype(jnp.int32)


def texture_map(images: Float[Array, "b h w c"], valid_hw: Int[Array, "b 2"]) -> Bool[Array, "b gh gw"]:
    """True where the photo varies: one value for each window of 16 x 16 pixels, every 8 pixels.

    The centre of window (i, j) is pixel (8 i, 8 j). A window whose pixels differ by at most 2 of 255 levels in every
    channel has no texture.

    Args:
        images: float32 [b, h, w, c] in 0-255.
        valid_hw: int32 [b, 2]; pixels outside are not read.
    """
    mask = valid_cells(valid_hw, *images.shape[1:3])[..., None]
    highest = _windows(jnp.where(mask, images, -jnp.inf), jnp.maximum, -jnp.inf)
    lowest = _windows(jnp.where(mask, images, jnp.inf), jnp.minimum, jnp.inf)
    height, width = (side // _STRIDE + 1 for side in images.shape[1:3])
    return ((highest - lowest) > _FLAT_LEVELS).any(axis=-1)[:, :height, :width]


def _windows(images: Float[Array, "b h w c"], extreme: Any, neutral: float) -> Float[Array, "b gh gw c"]:
    """``jnp.maximum`` or ``jnp.minimum`` over every window, each of which is made of four squares of 8 x 8 pixels."""
    for axis in (1, 2):
        squares = -(-images.shape[axis] // _STRIDE)
        padding = [(0, 0)] * 4
        padding[axis] = (0, squares * _STRIDE - images.shape[axis])
        images = jnp.pad(images, padding, constant_values=neutral)
        shape = images.shape
        images = extreme.reduce(images.reshape(*shape[:axis], squares, _STRIDE, *shape[axis + 1 :]), axis=axis + 1)
        padding[axis] = (1, 1)
        images = jnp.pad(images, padding, constant_values=neutral)
        images = extreme(lax.slice_in_dim(images, 0, -1, axis=axis), lax.slice_in_dim(images, 1, None, axis=axis))
    return images


def is_textured(texture: Bool[Array, "b gh gw"], points: Float[Array, "b n 2"]) -> Bool[Array, "b n"]:
    """The value of ``texture_map`` at points (x, y), in pixels of the image that the map was made from."""
    cell = jnp.round(points / _STRIDE).astype(jnp.int32)
    rows = jnp.clip(cell[..., 1], 0, texture.shape[1] - 1)
    columns = jnp.clip(cell[..., 0], 0, texture.shape[2] - 1)
    return jax.vmap(lambda t, r, c: t[r, c])(texture, rows, columns)
