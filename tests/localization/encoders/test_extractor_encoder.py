"""An extractor as an encoder: sums and maps on its devices, at one scale and at several."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import delf_jax
import localization
from delf_jax.errors import ImageError, PredictorError
from delf_jax.extraction.head import Head
from localization.encoders.base import DenseFeatures
from localization.encoders.extractor_encoder import ExtractorEncoder, run_at_scales
from localization.localizing import mean_over_scales
from localization.maps.activation import cosine_map, resample
from localization.predictor import Predictor

NAMES = ("flower.jpg", "china.jpg", "coffee.jpg", "chelsea.jpg")


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> ExtractorEncoder:
    return ExtractorEncoder(delf_jax.load(str(tiny_model), head=Head(), scorer="norm", max_side=128), layer="conv5")


@pytest.fixture(scope="module")
def photos(demo_photos: Path) -> list[Path]:
    return [demo_photos / name for name in NAMES]


@pytest.fixture(scope="module")
def predictor(encoder: ExtractorEncoder, photos: list[Path]) -> Predictor:
    return localization.fit(photos, encoder=encoder)


def test_sums_equal_those_of_the_maps(encoder: ExtractorEncoder, photos: list[Path], predictor: Predictor) -> None:
    maps = {}
    for name, found in encoder.extractor.dense_stream(((str(p), p) for p in photos), name="conv5"):
        assert not isinstance(found, ImageError)
        maps[name] = found[0][0]
    features = np.concatenate([m.reshape(-1, m.shape[-1]) for m in maps.values()]).astype(np.float64)
    total = predictor.statistics.total
    assert total.count == len(features)
    np.testing.assert_allclose(total.feature, features.sum(0), rtol=1e-4, atol=1e-2)
    from_maps = localization.fit(maps)
    np.testing.assert_allclose(from_maps.solution.w, predictor.solution.w, atol=1e-5)


SHARDED = """
import delf_jax, localization
from delf_jax.extraction.head import Head
from localization.encoders.extractor_encoder import ExtractorEncoder
encoder = ExtractorEncoder(delf_jax.load({model!r}, head=Head(), scorer="norm", max_side=128), layer="conv5")
fitted = localization.fit({photos!r}, encoder=encoder)
(found,) = fitted.localize({photos!r}[:1])
print(len(encoder.extractor.devices), fitted.solution.tau, *fitted.solution.w[:20], *found.boxes[0])
"""


@pytest.mark.slow
def test_two_devices_give_what_one_gives(
    predictor: Predictor, photos: list[Path], on_devices: Callable[[int, str], str]
) -> None:
    printed = on_devices(
        2, SHARDED.format(model=predictor.statistics.encoder["model"], photos=[str(photo) for photo in photos])
    )
    devices, tau, *rest = (float(number) for number in printed.split())
    assert devices == 2
    assert tau == pytest.approx(predictor.solution.tau, rel=1e-5)
    np.testing.assert_allclose(rest[:20], predictor.solution.w[:20], atol=1e-5)
    np.testing.assert_allclose(rest[20:], predictor.localize(photos[:1])[0].boxes[0], rtol=1e-3)


def test_predictor_and_encoder_must_belong_together(predictor: Predictor, tmp_path: Path) -> None:
    predictor.save(tmp_path / "p")
    with pytest.raises(PredictorError, match="this predictor was fitted on"):
        Predictor.open(tmp_path / "p", encoder=localization.MapEncoder()).localize([np.zeros((2, 2, 4), np.float32)])


def test_unreadable_photos_come_back_as_errors(predictor: Predictor, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    results = dict(predictor.localize_stream([(0, photos[0]), (1, tmp_path / "bad.jpg")]))
    assert results[0].found
    assert isinstance(results[1], ImageError)


def test_map_at_several_scales_is_the_mean_of_the_maps(predictor: Predictor, photos: list[Path]) -> None:
    def coarse(arguments: dict[str, np.ndarray], dense: DenseFeatures) -> dict[str, Any]:
        values, level = mean_over_scales(dense, lambda features: cosine_map(features, arguments["w"]))
        return {"values": values, "cells": level.cells_hw, "grid": level.grid}

    arguments = {"w": predictor.direction()}
    rows: dict[tuple[float, ...], dict[str, Any]] = {}
    photos = photos[:2]
    for scales in ((1.0,), (0.5,), (1.0, 0.5)):
        stream = run_at_scales(predictor.running_encoder, coarse, arguments, ((p.name, p) for p in photos), scales)
        rows[scales] = {name: row for name, _, row in stream}
    turned = predictor.localize(photos, scales=(0.5, 1.0))
    for photo, found in zip(photos, turned, strict=True):
        one, half, both = (rows[scales][photo.name] for scales in ((1.0,), (0.5,), (1.0, 0.5)))
        h, w = (int(n) for n in one["cells"])
        assert tuple(both["cells"]) == (h, w)
        assert max(half["cells"]) < max(h, w)
        place = {"onto_hw": one["cells"], "shape": one["values"].shape}
        finer = np.asarray(resample(half["values"], half["cells"], half["grid"], one["grid"], **place))
        np.testing.assert_allclose(both["values"][:h, :w], (one["values"] + finer)[:h, :w] / 2, atol=1e-5)
        assert found.score == pytest.approx(both["values"][:h, :w].max(), abs=1e-5)
        assert found.score != pytest.approx(one["values"][:h, :w].max(), abs=1e-5)


def test_cells_lie_at_the_centres_of_their_receptive_fields(encoder: ExtractorEncoder) -> None:
    """A square that moves by two strides moves its own change of the features by as many pixels, at every scale."""
    fine, stride = ExtractorEncoder(encoder.extractor, layer="conv3"), 8

    def maps(arguments: None, dense: DenseFeatures) -> list[tuple[Any, Any]]:
        return [(level.features, level.grid) for level in (dense, *dense.other_scales)]

    photos = {0: np.full((128, 128, 3), 90, np.uint8)}
    for left in (48, 48 + 2 * stride):
        photos[left] = photos[0].copy()
        photos[left][60:69, left : left + 9] = 255
    rows = {left: row for left, _, row in fine.run(maps, None, photos.items(), scales=(1.0, 2.0))}
    for (plain, grid), (before, _), (after, _) in zip(*rows.values()):
        columns = [np.square(square - plain).sum(axis=(0, 2)) for square in (before, after)]
        x = [grid.first[1] + grid.step[1] * (energy @ np.arange(len(energy))) / energy.sum() for energy in columns]
        assert x[1] - x[0] == pytest.approx(2 * stride, abs=1)
        assert x[0] == pytest.approx(52, abs=stride / 2)
    (_, first), (_, second) = rows[0]
    centres = fine.extractor.cell_centres(np.array([[128, 128]]), "conv3", 16, 16)[0]
    np.testing.assert_allclose(first.first + 3 * first.step, centres[3, 3][::-1])
    # The network sees the photo at twice its size: 2 p and 2 p + 1 are what pixel p was.
    np.testing.assert_allclose(second.first, (first.first + 0.5) / 2 - 0.5)
    np.testing.assert_allclose(second.step, first.step / 2)


def test_bad_scales_are_refused(predictor: Predictor, photos: list[Path]) -> None:
    with pytest.raises(PredictorError, match="each above 0"):
        predictor.localize(photos[:1], scales=(1.0, 0.0))
    maps = {"a": np.random.default_rng(0).random((4, 4, 8)).astype(np.float32)}
    with pytest.raises(PredictorError, match="one size only"):
        localization.fit(maps).localize(maps.values(), scales=(1.0, 2.0))
