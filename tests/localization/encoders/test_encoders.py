"""The packaged encoder on real photos: the same numbers by every way, and predictors that open by themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import delf_jax
import localization
from delf_jax.errors import ImageError, PredictorError
from delf_jax.extraction.head import Head
from delf_jax.photos.load import load_photo
from localization.encoders.base import DenseFeatures
from localization.encoders.choosing import open_encoder
from localization.encoders.extractor_encoder import ExtractorEncoder, run_at_scales
from localization.encoders.map_encoder import read_map
from localization.localizing import mean_over_scales
from localization.maps.activation import cosine_map, upsample
from localization.predictor import Predictor

NAMES = ("flower.jpg", "china.jpg", "coffee.jpg", "chelsea.jpg")


@pytest.fixture(scope="module")
def encoder() -> ExtractorEncoder:
    return ExtractorEncoder(delf_jax.load(head=Head(), scorer="norm", max_side=128), layer="conv5")


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
encoder = ExtractorEncoder(delf_jax.load(head=Head(), scorer="norm", max_side=128), layer="conv5")
fitted = localization.fit({photos!r}, encoder=encoder)
(found,) = fitted.localize({photos!r}[:1])
print(len(encoder.extractor.devices), fitted.solution.tau, *fitted.solution.w[:20], *found.boxes[0])
"""


@pytest.mark.slow
def test_two_devices_give_what_one_gives(
    predictor: Predictor, photos: list[Path], on_devices: Callable[[int, str], str]
) -> None:
    printed = on_devices(2, SHARDED.format(photos=[str(photo) for photo in photos]))
    devices, tau, *rest = (float(number) for number in printed.split())
    assert devices == 2
    assert tau == pytest.approx(predictor.solution.tau, rel=1e-5)
    np.testing.assert_allclose(rest[:20], predictor.solution.w[:20], atol=1e-5)
    np.testing.assert_allclose(rest[20:], predictor.localize(photos[:1])[0].boxes[0], rtol=1e-3)


def test_opens_and_localizes_by_itself(predictor: Predictor, photos: list[Path], tmp_path: Path) -> None:
    predictor.save(tmp_path / "p")
    opened = Predictor.open(tmp_path / "p")
    (given,), (found,) = predictor.localize(photos[:1]), opened.localize(photos[:1])
    np.testing.assert_allclose(found.activation, given.activation, atol=1e-5)
    pixels = load_photo(photos[0], max_side=128).pixels
    assert found.activation.shape == pixels.shape[:2]
    assert found.found
    height, width = found.image_size
    x0, y0, x1, y1, _ = found.boxes[0]
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    explanation = opened.explain(photos[0], (width / 2, height / 2), top=3)
    assert explanation.excitatory[0].image == str(photos[0])  # its own position is among the training points
    assert explanation.excitatory[0].thumbnail[:2] == b"\xff\xd8"


def test_another_backbone_is_refused(encoder: ExtractorEncoder) -> None:
    with pytest.raises(PredictorError, match="not the one that the predictor was fitted on"):
        open_encoder(dict(encoder.description) | {"backbone": "0" * 64})
    with pytest.raises(PredictorError, match="give it again with encoder="):
        open_encoder({"kind": "callable", "name": "mine"})


def test_predictor_and_encoder_must_belong_together(predictor: Predictor, tmp_path: Path) -> None:
    predictor.save(tmp_path / "p")
    with pytest.raises(PredictorError, match="this predictor was fitted on"):
        Predictor.open(tmp_path / "p", encoder=localization.MapEncoder()).localize([np.zeros((2, 2, 4), np.float32)])


def test_unreadable_photos_come_back_as_errors(predictor: Predictor, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    results = dict(predictor.localize_stream([(0, photos[0]), (1, tmp_path / "bad.jpg")]))
    assert results[0].found
    assert isinstance(results[1], ImageError)


def test_maps_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="save a float array"):
        read_map(np.zeros((3, 3)))
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object))
    with pytest.raises(ImageError, match=r"not a readable \.npy"):
        read_map(tmp_path / "objects.npy")
    for broken in (np.zeros((0, 3, 4)), np.full((2, 3, 4), np.nan)):
        with pytest.raises(ImageError, match="compute it again"):
            read_map(broken)


def test_map_at_several_scales_is_the_mean_of_the_maps(predictor: Predictor, photos: list[Path]) -> None:
    def coarse(arguments: dict[str, np.ndarray], dense: DenseFeatures) -> dict[str, Any]:
        values, cells = mean_over_scales(dense, lambda features: cosine_map(features, arguments["w"]))
        return {"values": values, "cells": cells}

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
        finer = np.asarray(upsample(half["values"], half["cells"], one["cells"], one["values"].shape))
        np.testing.assert_allclose(both["values"][:h, :w], (one["values"] + finer)[:h, :w] / 2, atol=1e-5)
        assert found.score == pytest.approx(both["values"][:h, :w].max(), abs=1e-5)
        assert found.score != pytest.approx(one["values"][:h, :w].max(), abs=1e-5)


def test_scales_that_cannot_be(predictor: Predictor, photos: list[Path]) -> None:
    with pytest.raises(PredictorError, match="each above 0"):
        predictor.localize(photos[:1], scales=(1.0, 0.0))
    maps = {"a": np.random.default_rng(0).random((4, 4, 8)).astype(np.float32)}
    with pytest.raises(PredictorError, match="one size only"):
        localization.fit(maps).localize(maps.values(), scales=(1.0, 2.0))


def test_reopened_encoder_takes_batches_as_asked(encoder: ExtractorEncoder) -> None:
    opened = open_encoder(encoder.description, batch_size=3)
    assert isinstance(opened, ExtractorEncoder)
    assert opened.extractor.batch_size == 3
    assert opened.description == encoder.description
