"""Any function from images to feature maps is an encoder."""

from pathlib import Path

import numpy as np
import pytest

import localization
from delf_jax.errors import PredictorError


def test_any_function_is_an_encoder(demo_photos: Path) -> None:
    def colours(images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        cells = images.reshape(len(images), 8, 8, 8, 8, 3).mean(axis=(2, 4))
        return np.concatenate([cells, np.maximum(128 - cells, 0)], axis=-1)

    encoder = localization.CallableEncoder(colours, name="colours", size=64)
    corners = localization.CallableEncoder(colours, name="colours", size=64, grid=localization.Grid((0, 0), (8, 8)))
    photos = [demo_photos / "flower.jpg", demo_photos / "china.jpg", demo_photos / "coffee.jpg"]
    fitted = localization.fit(photos, encoder=encoder)
    (result,) = fitted.localize([photos[0]])
    assert result.activation.shape == (64, 64)
    assert result.image_size[0] != 64
    assert all(0 <= b.x0 < b.x1 <= result.image_size[1] for b in result.boxes)
    assert next(iter(fitted.points.photos)).thumbnail[:2] == b"\xff\xd8"
    # Cells of 8 x 8 pixels are equal patches: the centre of the first is 3.5 of 64 pixels.
    photo = next(iter(fitted.points.photos))
    x, y = photo.position(np.array([0, 0]))
    height, width = photo.size
    assert (x, y) == pytest.approx((4 * width / 64 - 0.5, 4 * height / 64 - 0.5))
    at_corner = next(iter(localization.fit(photos[:1], encoder=corners).points.photos))
    assert at_corner.position(np.array([0, 0])) == pytest.approx((width / 128 - 0.5, height / 128 - 0.5))
    with pytest.raises(PredictorError, match="wrap a function"):
        localization.fit(photos, encoder=colours)
