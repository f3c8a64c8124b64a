"""Fitting, localizing, merging and forgetting, on feature maps with planted objects."""

import dataclasses

import numpy as np
import pytest

import localization
from delf_jax.errors import PredictorError
from localization.predictor import Predictor
from tests.localization.planted import CHANNELS, LABELS, MAPS, planted


def test_finds_the_planted_object(planted_predictor: Predictor) -> None:
    for seed in range(100, 110):
        dense, (top, left, bottom, right) = planted(seed)
        (result,) = planted_predictor.localize([(dense, (80, 100))])
        assert result.found
        x0, y0, x1, y1, score = result.boxes[0]
        overlap = max(0, min(x1, right * 10) - max(x0, left * 10)) * max(0, min(y1, bottom * 10) - max(y0, top * 10))
        union = (x1 - x0) * (y1 - y0) + (right - left) * (bottom - top) * 100 - overlap
        assert overlap / union > 0.5
        share = (x1 - x0) * (y1 - y0) / 8000
        assert 0.5 * result.score * share < score < result.score * share
        assert result.masks[0].shape == result.activation.shape == (80, 100)
        assert result.masks[0].any()


def test_cells_are_where_the_grid_says(planted_predictor: Predictor) -> None:
    dense, (top, left, bottom, right) = planted(100)
    placed = (dense, (320, 640), localization.Grid((20, 40), (8, 16)))  # in a part of the photo only
    (result,) = planted_predictor.localize([placed])
    x0, y0, x1, y1, _ = result.boxes[0]
    np.testing.assert_allclose([y0, y1], [20 + 8 * top, 20 + 8 * (bottom - 1)], atol=8)
    np.testing.assert_allclose([x0, x1], [40 + 16 * left, 40 + 16 * (right - 1)], atol=16)
    assert planted_predictor.explain(placed, (40 + 16 * left, 20 + 8 * top)).value == pytest.approx(
        planted_predictor.explain(dense, (left, top)).value, rel=1e-5
    )
    photos = localization.fit({"placed": placed, **MAPS}).points.photos
    assert photos.take([0])[0].position(np.array([2, 3])) == (40 + 3 * 16, 20 + 2 * 8)


def test_nothing_to_find(planted_predictor: Predictor) -> None:
    background = np.abs(np.random.default_rng(0).normal(size=(8, 10, CHANNELS))).astype(np.float32)
    background[..., :16] *= 0.2
    (result,) = planted_predictor.localize([background])
    assert not result.found
    assert result.boxes == []
    assert result.score < 0


def test_merged_shards_equal_the_whole() -> None:
    names = list(MAPS)
    parts = [localization.fit({n: MAPS[n] for n in names[i::3]}, max_points=300) for i in range(3)]
    whole = localization.fit(MAPS, max_points=300)
    merged = parts[0] + parts[1] + parts[2]
    np.testing.assert_allclose(merged.solution.w, whole.solution.w, atol=1e-7)
    assert len(merged.points) == len(whole.points) == 300
    np.testing.assert_array_equal(merged.points.norm, whole.points.norm)
    np.testing.assert_array_equal(merged.points.unit, whole.points.unit)
    with pytest.raises(PredictorError, match="photo is in both"):
        parts[0] + whole
    strict = dataclasses.replace(parts[0], found_threshold=0.3, points=None)
    assert (strict + parts[1]).found_threshold == (parts[1] + strict).found_threshold == 0.3


def test_forgotten_photos_leave_nothing(planted_predictor: Predictor) -> None:
    names = list(MAPS)
    rest = planted_predictor - localization.fit({n: MAPS[n] for n in names[:4]}, labels=LABELS)
    again = localization.fit({n: MAPS[n] for n in names[4:]})
    np.testing.assert_allclose(rest.solution.w, again.solution.w, atol=1e-9)
    assert [p.name for p in rest.points.photos] == names[4:]
    assert not {photo.name for photo in rest.points.photos.take(rest.points.photo)} & set(names[:4])


def test_classes_have_their_own_direction(planted_predictor: Predictor) -> None:
    dense, _ = planted(60, label=2)
    own, other = (planted_predictor.localize([dense], label=name)[0] for name in ("class2", "class0"))
    assert own.score > other.score
    with pytest.raises(PredictorError, match="not fitted"):
        planted_predictor.localize([dense], label="class9")


def test_explaining_needs_points() -> None:
    fitted = localization.fit(MAPS, max_points=0)
    with pytest.raises(PredictorError, match="without points"):
        fitted.explain(planted(1)[0])


def test_forgets_only_what_it_knows(planted_predictor: Predictor) -> None:
    stranger = localization.fit({"stranger": planted(70)[0]}, labels=lambda name: "class0")
    with pytest.raises(PredictorError, match="stranger: cannot be forgotten"):
        planted_predictor - stranger


def test_maps_of_one_cell_and_one_row(planted_predictor: Predictor) -> None:
    dense, (top, left, _, right) = planted(60)
    cell = dense[top : top + 1, left : left + 1]
    row = dense[top : top + 1]
    one, flat, strip = planted_predictor.localize([(cell, (400, 3)), np.zeros_like(dense), (row, (2, 10 * 30))])
    assert one.score > 0  # but there is nothing beside it
    assert (one.found, one.boxes, one.activation.shape) == (False, [], (400, 3))
    assert (flat.found, flat.score, flat.boxes) == (False, 0, [])
    x0, y0, x1, y1, _ = strip.boxes[0]
    assert (y0, y1) == (0, 2)
    np.testing.assert_allclose([x0, x1], [left * 30, right * 30], atol=15)
    point = planted_predictor.explain((cell, (400, 3)), (2, 399))
    assert point.value == pytest.approx(one.score, abs=1e-5)


def test_misuse_is_named(planted_predictor: Predictor) -> None:
    plain = localization.fit(dict(list(MAPS.items())[:2]), max_points=10)
    with pytest.raises(PredictorError, match="fit it with labels"):
        plain.localize([MAPS["photo0.npy"]], classifier=lambda images: images)
    for use in (plain.localize, lambda photos: plain.explain(photos[0])):
        with pytest.raises(PredictorError, match="7 channels, those of the predictor 32"):
            use([np.ones((4, 5, 7), np.float32)])
    flat = localization.fit({**MAPS, "flat": np.ones_like(MAPS["photo0.npy"])}, labels={"flat": "wall"})
    with pytest.raises(PredictorError, match=r"class 'wall': .* hardly vary"):
        flat.direction("wall")
    with pytest.raises(PredictorError, match=r"broken: .* NaN"):
        localization.fit(
            {"broken": np.zeros((8, 8, 3), np.uint8)},
            encoder=localization.CallableEncoder(lambda images: np.full((8, 2, 2, 4), np.nan), name="broken"),
        )
