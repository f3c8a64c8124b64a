"""The program as a pure function: its configuration is static, its output has fixed shapes."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

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
