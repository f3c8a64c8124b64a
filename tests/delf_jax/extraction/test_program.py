"""The program as a pure function: its configuration is static, its output has fixed shapes."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

import delf_jax
from delf_jax.extraction import program


def test_equal_configurations_share_a_program_and_rows_are_padded(tiny_model: Path) -> None:
    options = {"scales": (1.0,), "max_side": 64, "max_features": 20, "detection": "cells"}
    first, second = (delf_jax.load(tiny_model, **options) for _ in range(2))
    assert first.config == second.config
    extract = jax.jit(program.extract, static_argnames="config")
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    valid_hw = np.array([[64, 64], [0, 0]], np.int32)
    found = extract(first.params, images, valid_hw, config=first.config)
    extract(second.params, images, valid_hw, config=second.config)
    assert extract._cache_size() == 1
    # 4 x 4 cells of 16 pixels fill 16 of 20 rows, and an empty photo fills none.
    assert found.descriptors.shape == (2, 20, 16)
    assert found.valid.tolist() == [[True] * 16 + [False] * 4, [False] * 20]
    for rows in (found.keypoints, found.scales, found.scores, found.descriptors):
        assert not np.asarray(rows)[~np.asarray(found.valid)].any()


def test_settings_are_part_of_the_configuration(tiny_model: Path) -> None:
    config = delf_jax.load(tiny_model).config
    other = dataclasses.replace(config, settings=dataclasses.replace(config.settings, max_features=7))
    assert config != other
    assert hash(config) != hash(other)


def test_a_quantile_is_of_all_places_and_the_strongest_of_the_rest_are_kept(tiny_model: Path) -> None:
    options = {"scales": (1.0,), "max_side": 64, "detection": "cells"}
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    scores = {}
    for most, quantile in ((16, None), (4, 0.5), (16, 0.5)):
        config = delf_jax.load(tiny_model, max_features=most, quantile=quantile, **options)
        found = program.extract(config.params, images, np.array([[64, 64]], np.int32), config=config.config)
        scores[most, quantile] = np.asarray(found.scores)[np.asarray(found.valid)]
    # Of 16 cells, 8 are in the better half: all of them, or the best 4.
    np.testing.assert_array_equal(scores[16, 0.5], scores[16, None][:8])
    np.testing.assert_array_equal(scores[4, 0.5], scores[16, None][:4])


FINE, COARSE = 72.5**2 + 64**2 - 16**2, 81**2 + 64**2 - 32**2


@pytest.mark.parametrize(
    ("scales", "textured", "expected"),
    [
        # Cells of 16 pixels, centred at every sixteenth pixel from 0 on; they end at 56.5, half a cell behind 48.
        ((1.0,), [np.s_[:, :]], (0, 0, 56.5, 56.5, 56.5**2)),
        ((1.0,), [np.s_[16:48, :]], (0, 8.5, 56.5, 40.5, 56.5 * 32)),  # letterbox bars: 16 and 32 are left
        ((1.0,), [np.s_[:, :32]], (0, 0, 24.5, 56.5, 24.5 * 56.5)),  # a clear sky at the right
        ((1.0,), [np.s_[:0, :0]], (0, 0, 0, 0, 0)),
        # Two corners: 5 x 5 and 4 x 4 cells see them, and share one.
        ((1.0,), [np.s_[:64, :64], np.s_[64:, 64:]], (0, 0, 120.5, 120.5, FINE)),
        # With 3 x 3 and 2 x 2 cells of 32 pixels, which share one.
        (
            (1.0, 0.5),
            [np.s_[:64, :64], np.s_[64:, 64:]],
            (0, 0, 120.5, 120.5, (FINE / 16**2 + COARSE / 32**2) / (1 / 16**2 + 1 / 32**2)),
        ),
    ],
)
def test_the_domain_is_where_a_photo_shows_something(
    tiny_model: Path,
    scales: tuple[float, ...],
    textured: list[tuple[slice, slice]],
    expected: tuple[float, ...],
) -> None:
    extractor = delf_jax.load(tiny_model, scales=scales, max_features=20, detection="cells", scorer="norm")
    side = 64 * len(textured)
    images = np.full((1, side, side, 3), 200, np.uint8)
    for part in textured:
        images[0][part] = np.random.default_rng(0).integers(0, 256, images[0][part].shape, np.uint8)
    found = extractor.apply(extractor.params, images, np.array([[side, side]], np.int32))
    np.testing.assert_allclose(np.ravel(found.domain), [*expected, 1], rtol=1e-6)


def test_peaks_lie_away_from_the_border(tiny_model: Path) -> None:
    extractor = delf_jax.load(tiny_model, scales=(1.0,), max_features=20, scorer="norm")
    images = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), np.uint8)
    found = extractor.apply(extractor.params, images, np.array([[96, 128]], np.int32))
    # 1.6 cells of 16 pixels at every edge are left out.
    expected = [25.6, 25.6, 102.4, 70.4, 76.8 * 44.8, 1]
    np.testing.assert_allclose(np.ravel(found.domain), expected, rtol=1e-5)
