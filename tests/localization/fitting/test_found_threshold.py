"""When something counts as found: planted photos with and without the object."""

from pathlib import Path

import numpy as np
import pytest

import localization
from delf_jax.errors import ImageError, PredictorError
from localization.fitting.found_threshold import (
    calibrate_beside_objects,
    calibrate_on_empty,
    empty_part,
    found_threshold,
)


def ramp(images: np.ndarray) -> np.ndarray:
    """Bright cells are long features of one kind, dark ones short features of another."""
    bright = images.reshape(len(images), 8, 8, 8, 8, 3).mean(axis=(2, 4, 5)).astype(np.float32)[..., None]
    return np.concatenate([bright, np.full_like(bright, 60)], axis=-1)


def photo(level: int, rng: np.random.Generator) -> np.ndarray:
    pixels = rng.integers(0, 40, (64, 64, 3), np.uint8)
    pixels[16:40, 16:40] += np.uint8(level)
    return pixels


@pytest.fixture(scope="module")
def predictor() -> localization.Predictor:
    rng = np.random.default_rng(0)
    encoder = localization.CallableEncoder(ramp, name="ramp", size=64)
    return localization.fit([photo(200, rng) for _ in range(6)], encoder=encoder, max_points=0)


def test_threshold_lets_few_empty_photos_through(predictor: localization.Predictor) -> None:
    rng = np.random.default_rng(1)
    empty = [photo(int(level), rng) for level in rng.integers(20, 90, 40)]
    changed = calibrate_on_empty(predictor, empty, false_alarms=0.1)
    assert changed.found_threshold > predictor.found_threshold
    assert 1 <= sum(found.found for found in changed.localize(empty)) <= 4
    assert all(found.found for found in changed.localize([photo(200, rng) for _ in range(5)]))


def test_unreadable_photos(predictor: localization.Predictor, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no")
    failed: list[ImageError] = []
    good = photo(30, np.random.default_rng(2))
    changed = calibrate_on_empty(predictor, [bad, good], on_error=failed.append)
    assert [error.source for error in failed] == [str(bad)]
    assert changed.found_threshold == pytest.approx(predictor.localize([good])[0].score)
    with pytest.raises(ImageError):
        calibrate_on_empty(predictor, [bad])
    with pytest.raises(PredictorError, match="without the object"):
        calibrate_on_empty(predictor, [bad], on_error=failed.append)


def test_beside_what_is_found(predictor: localization.Predictor, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no")
    wide = [np.pad(photo(200, rng), ((0, 0), (0, 100), (0, 0)), mode="reflect") for _ in range(3)]
    for pixels in wide:
        pixels[:, 64:] //= 8
    failed: list[ImageError] = []
    changed = calibrate_beside_objects(predictor, [*wide, bad], on_error=failed.append)
    assert [error.source for error in failed] == [str(bad)]
    strips = [pixels[:, int(predictor.localize([pixels])[0].boxes[0].x1) + 1 :] for pixels in wide]
    assert changed.found_threshold == pytest.approx(max(one.score for one in predictor.localize(strips)), abs=0.05)
    with pytest.raises(PredictorError, match="without the object"):
        calibrate_beside_objects(predictor, [photo(200, rng)])


def test_strip_beside_all_objects() -> None:
    assert empty_part([(10, 90, 50, 99), (20, 10, 200, 30)], (300, 250)) == (0, 99, 250, 300)
    assert empty_part([(10, 10, 240, 290)], (300, 250)) is None
    assert empty_part([(0, 0, 99.2, 300)], (300, 250)) == (100, 0, 250, 300)
    assert empty_part([(-5, 0, 300, 100)], (300, 250)) == (0, 100, 250, 300)


def test_at_most_the_share_of_scores_exceeds_the_threshold() -> None:
    scores = np.random.default_rng(1).normal(size=200)
    threshold = found_threshold(scores.tolist(), false_alarms=0.1)
    assert threshold in scores
    assert 0.09 < (scores > threshold).mean() <= 0.1
