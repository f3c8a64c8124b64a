"""What a network sees of a padded photo."""

import numpy as np
import pytest

from delf_jax.models.backbone import BackboneConfig, normalised
from delf_jax.models.resnet import ResNetConfig


@pytest.mark.parametrize("padding", [np.nan, np.inf, 1e6])
def test_pixels_are_normalised_and_padding_is_zero_whatever_it_holds(padding: float) -> None:
    config = BackboneConfig(ResNetConfig("keras_v1", None), mean=(10, 20, 30), std=(1, 2, 4))
    images = np.full((1, 3, 4, 3), padding, np.float32)
    images[0, :2, :3] = (12, 26, 22)
    expected = np.zeros((1, 3, 4, 3))
    expected[0, :2, :3] = (2, 3, -2)
    np.testing.assert_array_equal(normalised(images, np.array([[2, 3]]), config), expected)
