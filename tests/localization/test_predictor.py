"""Fitting, localizing, merging and keeping a predictor, on feature maps with planted objects."""

from pathlib import Path

import numpy as np
import pytest

import localization
from delf_jax.errors import ImageError, PredictorError
from localization.predictor import Predictor, damaged_files, read_manifest

CHANNELS = 32


def planted(
    seed: int, *, label: int = 0, cells: tuple[int, int] = (8, 10)
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A map [h, w, C] with one object of long features of its class; and its cells (top, left, bottom, right)."""
    rng = np.random.default_rng(seed)
    h, w = cells
    dense = np.abs(rng.normal(size=(h, w, CHANNELS))).astype(np.float32)
    dense[..., :16] *= 0.2
    top, left = rng.integers(0, h - 4), rng.integers(0, w - 5)
    bottom, right = top + rng.integers(3, 5), left + rng.integers(3, 6)
    dense[top:bottom, left:right, :8] += 3.0
    dense[top:bottom, left:right, 8 + label] += 4.0
    return dense, (int(top), int(left), int(bottom), int(right))


PLANTED = {f"photo{seed}.npy": planted(seed, label=seed % 3) for seed in range(12)}
MAPS = {name: dense for name, (dense, _) in PLANTED.items()}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return localization.fit(MAPS, labels=lambda name: f"class{int(name[5:-4]) % 3}")


def test_finds_the_planted_object(predictor: Predictor) -> None:
    for seed in range(100, 110):
        dense, (top, left, bottom, right) = planted(seed)
        (result,) = predictor.localize([(dense, (80, 100))])
        assert result.found
        x0, y0, x1, y1, score = result.boxes[0]
        overlap = max(0, min(x1, right * 10) - max(x0, left * 10)) * max(0, min(y1, bottom * 10) - max(y0, top * 10))
        union = (x1 - x0) * (y1 - y0) + (right - left) * (bottom - top) * 100 - overlap
        assert overlap / union > 0.5
        assert score == pytest.approx(result.score, abs=0.05)
        assert result.masks[0].shape == result.activation.shape == (80, 100)
        assert result.masks[0].any()


def test_nothing_to_find(predictor: Predictor) -> None:
    background = np.abs(np.random.default_rng(0).normal(size=(8, 10, CHANNELS))).astype(np.float32)
    background[..., :16] *= 0.2
    (result,) = predictor.localize([background])
    assert not result.found
    assert result.boxes == []
    assert result.score < 0


def test_calibration_bounds_false_alarms(predictor: Predictor) -> None:
    scores = np.random.default_rng(1).normal(size=200) * 0.1
    calibrated = predictor.calibrated(scores, false_alarms=0.1)
    assert (scores > calibrated.found_threshold).mean() <= 0.1
    assert calibrated.found_threshold < scores.max()


def test_merged_shards_equal_the_whole(predictor: Predictor) -> None:
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
    strict = parts[0].calibrated([0.3])
    assert (strict + parts[1]).found_threshold == (parts[1] + strict).found_threshold == 0.3


def test_forgotten_photos_leave_nothing(predictor: Predictor) -> None:
    names = list(MAPS)
    rest = predictor - localization.fit({n: MAPS[n] for n in names[:4]}, labels=lambda n: f"class{int(n[5:-4]) % 3}")
    again = localization.fit({n: MAPS[n] for n in names[4:]})
    np.testing.assert_allclose(rest.solution.w, again.solution.w, atol=1e-9)
    assert [p.name for p in rest.points.photos] == names[4:]
    assert not {photo.name for photo in rest.points.photos.take(rest.points.photo)} & set(names[:4])


def test_saved_and_opened(predictor: Predictor, tmp_path: Path) -> None:
    kept = predictor.calibrated([0.05])
    kept.save(tmp_path / "p")
    kept.save(tmp_path / "p")
    opened = Predictor.open(tmp_path / "p")
    assert opened.found_threshold == 0.05
    dense = planted(50)[0]
    (a,), (b,) = kept.localize([dense]), opened.localize([dense])
    np.testing.assert_array_equal(a.activation, b.activation)
    assert a.boxes == b.boxes
    assert opened.explain(dense, (4, 4)).excitatory == kept.explain(dense, (4, 4)).excitatory
    assert list(opened.points.photos) == list(kept.points.photos)


def test_refitted_is_kept(predictor: Predictor, tmp_path: Path) -> None:
    refitted = predictor.refitted("bce", weight=0.05)
    assert 0.9 < refitted.solution.w @ predictor.solution.w < 1 - 1e-6
    refitted.save(tmp_path / "p")
    opened = Predictor.open(tmp_path / "p")
    np.testing.assert_array_equal(opened.solution.w, refitted.solution.w)
    alpha = opened.explainer.importance
    np.testing.assert_allclose(alpha @ opened.points.unit.astype(np.float64), opened.solution.w, atol=1e-3)
    with pytest.raises(PredictorError, match="only closed-form predictors add up"):
        predictor + refitted
    with pytest.raises(PredictorError, match="only closed-form predictors subtract"):
        predictor - refitted


def test_damage_is_noticed(predictor: Predictor, tmp_path: Path) -> None:
    predictor.save(tmp_path / "p")
    units = tmp_path / "p" / "points" / "units.npy"
    data = bytearray(units.read_bytes())
    data[-3] ^= 1
    units.write_bytes(data)
    with pytest.raises(PredictorError, match=r"points/units.npy is missing or damaged"):
        Predictor.open(tmp_path / "p")
    assert damaged_files(tmp_path / "p", read_manifest(tmp_path / "p")) == ["points/units.npy"]
    with pytest.raises(PredictorError, match="no predictor there"):
        Predictor.open(tmp_path / "q")
    (tmp_path / "p" / "manifest.json").write_text("{")
    with pytest.raises(PredictorError, match="manifest is damaged"):
        Predictor.open(tmp_path / "p")


def test_files_and_their_failures(tmp_path: Path) -> None:
    paths = []
    for seed in range(3):
        np.save(tmp_path / f"{seed}.npy", planted(seed)[0])
        paths.append(tmp_path / f"{seed}.npy")
    (tmp_path / "bad.npy").write_bytes(b"not an array")
    failures: list[ImageError] = []
    fitted = localization.fit([*paths, tmp_path / "bad.npy"], on_error=failures.append)
    assert fitted.statistics.photos == 3
    assert len(failures) == 1
    assert "bad.npy" in str(failures[0])
    with pytest.raises(ImageError, match=r"bad\.npy"):
        localization.fit([*paths, tmp_path / "bad.npy"])
    results = dict(fitted.localize_stream(enumerate([paths[0], tmp_path / "bad.npy"])))
    assert results[0].found
    assert isinstance(results[1], ImageError)


def test_classes_have_their_own_direction(predictor: Predictor) -> None:
    dense, _ = planted(60, label=2)
    own, other = (predictor.localize([dense], label=name)[0] for name in ("class2", "class0"))
    assert own.score > other.score
    with pytest.raises(PredictorError, match="not fitted"):
        predictor.localize([dense], label="class9")


def test_norm_clipping_takes_two_passes() -> None:
    clipped = localization.fit(MAPS, norm_quantile=0.9)
    norms = np.concatenate([np.linalg.norm(m, axis=-1).ravel() for m in MAPS.values()])
    cap = clipped.statistics.norm_cap
    assert cap == pytest.approx(np.quantile(norms, 0.9), rel=0.06)
    assert clipped.points.norm.max() <= cap * (1 + 1e-6)


def test_any_function_is_an_encoder(demo_photos: Path) -> None:
    def colours(images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        cells = images.reshape(len(images), 8, 8, 8, 8, 3).mean(axis=(2, 4))
        return np.concatenate([cells, np.maximum(128 - cells, 0)], axis=-1)

    encoder = localization.CallableEncoder(colours, name="colours", size=64)
    photos = [demo_photos / "flower.jpg", demo_photos / "china.jpg", demo_photos / "coffee.jpg"]
    fitted = localization.fit(photos, encoder=encoder)
    (result,) = fitted.localize([photos[0]])
    assert result.activation.shape == (64, 64)
    assert result.image_size[0] != 64
    assert all(0 <= b.x0 < b.x1 <= result.image_size[1] for b in result.boxes)
    assert next(iter(fitted.points.photos)).thumbnail[:2] == b"\xff\xd8"
    with pytest.raises(PredictorError, match="wrap a function"):
        localization.fit(photos, encoder=colours)


def test_explaining_needs_points() -> None:
    fitted = localization.fit(MAPS, max_points=0)
    with pytest.raises(PredictorError, match="without points"):
        fitted.explain(planted(1)[0])


def test_never_takes_the_place_of_something_else(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"mine")
    (tmp_path / "file").write_bytes(b"mine")
    for name in ("photos", "file"):
        with pytest.raises(PredictorError, match="something else than a predictor"):
            predictor.save(tmp_path / name)
    assert (tmp_path / "photos" / "a.jpg").read_bytes() == b"mine"
    (tmp_path / "empty").mkdir()
    predictor.save(tmp_path / "empty")
    assert Predictor.open(tmp_path / "empty").statistics.photos == 12


def test_forgets_only_what_it_knows(predictor: Predictor) -> None:
    stranger = localization.fit({"stranger": planted(70)[0]}, labels=lambda name: "class0")
    with pytest.raises(PredictorError, match="stranger: cannot be forgotten"):
        predictor - stranger


def test_maps_of_one_cell_and_one_row(predictor: Predictor) -> None:
    dense, (top, left, _, right) = planted(60)
    cell = dense[top : top + 1, left : left + 1]
    row = dense[top : top + 1]
    one, flat, strip = predictor.localize([(cell, (400, 3)), np.zeros_like(dense), (row, (2, 10 * 30))])
    assert one.score > 0  # but there is nothing beside it
    assert (one.found, one.boxes, one.activation.shape) == (False, [], (400, 3))
    assert (flat.found, flat.score, flat.boxes) == (False, 0, [])
    x0, y0, x1, y1, _ = strip.boxes[0]
    assert (y0, y1) == (0, 2)
    step = 299 / 9
    np.testing.assert_allclose([x0, x1], [left * step, (right - 1) * step], atol=step)
    point = predictor.explain((cell, (400, 3)), (2, 399))
    assert point.value == pytest.approx(one.score, abs=1e-5)


def test_misuse_is_named(predictor: Predictor) -> None:
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
