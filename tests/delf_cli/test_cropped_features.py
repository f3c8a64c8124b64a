"""Features of a part of a photo: where they lie, and where they can lie, in pixels of the whole photo."""

from pathlib import Path

import numpy as np
import pytest

import delf_jax
from delf_cli.cropped_features import extract_inside_boxes
from delf_jax.features import Domain, LocalFeatures


# Cells of 16 pixels of the reduced part are centred at 0, 16, ...; the last ends 7.5 pixels before the edge.
@pytest.mark.parametrize(("as_in_whole", "pixel", "side"), [(False, 2, 113), (True, 4, 98)])
def test_the_domain_is_the_part(tiny_model: Path, as_in_whole: bool, pixel: float, side: float) -> None:
    settings = {"scales": (1.0,), "detection": "cells", "scorer": "norm", "max_features": 20}
    extractor = delf_jax.load(tiny_model, max_side=64, **settings)
    photo = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    (_, found), (_, whole) = extract_inside_boxes(
        extractor, [photo, photo], [(64, 32, 192, 160), None], as_in_whole=as_in_whole
    )
    assert isinstance(found, LocalFeatures)
    assert isinstance(whole, LocalFeatures)
    np.testing.assert_allclose(np.ravel(found.domain), Domain(64, 32, 64 + side, 32 + side, side**2, pixel))
    np.testing.assert_allclose(np.ravel(whole.domain), Domain(0, 0, 226, 226, 226**2, 4))
    assert found.image_size == whole.image_size == (256, 256)
    assert len(found) == (128 // pixel // 16) ** 2
