"""When something counts as found: planted photos with and without the object."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import localization
from delf_jax.errors import ImageError, PredictorError
from localization.fitting.found_threshold import calibrate_on_empty, empty_part, found_threshold
from localization.representers.found_scores import lower_bound
from tests.localization.planted import planted


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


def test_fitted_photos_say_from_which_score_on_something_is_found() -> None:
    rng = np.random.default_rng(3)
    encoder = localization.CallableEncoder(ramp, name="ramp", size=64)
    photos = {str(level): photo(level, rng) for level in range(150, 210, 3)}
    fitted = localization.fit(photos, encoder=encoder)
    scores = [found.score for found in fitted.localize(photos.values())]
    assert fitted.found_threshold == pytest.approx(lower_bound(np.array(scores)), abs=2e-3)
    assert 0 < fitted.found_threshold < min(scores)
    # A sample of their positions does not hold the largest cosine of each photo: some photos are looked at again.
    sampled = localization.fit(photos, encoder=encoder, max_points=50)
    assert sampled.found_threshold == pytest.approx(lower_bound(np.array(scores)), abs=1e-4)
    assert localization.fit(photos, encoder=encoder, max_points=0).found_threshold == 0
    # Parts and whole agree, and so does what is left after forgetting.
    names = list(photos)
    parts = [localization.fit({n: photos[n] for n in names[i::2]}, encoder=encoder) for i in range(2)]
    assert (parts[0] + parts[1]).found_threshold == pytest.approx(fitted.found_threshold, abs=1e-5)
    assert (fitted - parts[1]).found_threshold == pytest.approx(parts[0].found_threshold, abs=1e-5)
    calibrated = calibrate_on_empty(fitted, [photo(0, rng)])
    assert calibrated.found_threshold == fitted.found_threshold  # an empty photo is no reason to lower it


def test_a_photo_of_one_colour_holds_nothing(predictor: localization.Predictor) -> None:
    (plain,) = predictor.localize([np.full((40, 50, 3), 230, np.uint8)])
    assert (plain.found, plain.boxes) == (False, [])
    assert plain.score > predictor.found_threshold  # the level alone would not tell


def of_two_classes(**options: Any) -> localization.Predictor:
    photos = {str(i): planted(i, label=i % 2)[0] for i in range(40)}
    return localization.fit(photos, labels=lambda name: f"class{int(name) % 2}", **options)


def test_each_class_has_its_own_threshold() -> None:
    strong, weak = (localization.fit({str(i): planted(i, label=k)[0] for i in range(k, 40, 2)}) for k in (0, 1))
    both = of_two_classes()
    assert both.found_threshold_of("class0") == pytest.approx(strong.found_threshold, abs=1e-5)
    assert both.found_threshold_of("class1") == pytest.approx(weak.found_threshold, abs=1e-5)
    assert both.found_threshold_of(None) == both.found_threshold


def test_classes_have_the_common_threshold_where_points_are_a_sample() -> None:
    sampled = of_two_classes(max_points=200)
    assert len(sampled.points) == 200
    assert sampled.found_threshold_of("class0") == sampled.found_threshold > 0.3


def test_a_threshold_that_was_raised_holds_for_classes_too(tmp_path: Path) -> None:
    fitted = of_two_classes()
    own = fitted.found_threshold_of("class0")
    raised = calibrate_on_empty(fitted, [planted(40, label=0)[0]])  # as surely found as the fitted ones
    assert raised.found_threshold > max(own, fitted.found_threshold)
    raised.save(tmp_path / "raised")
    opened = localization.Predictor.open(tmp_path / "raised")
    assert raised.found_threshold_of("class0") == opened.found_threshold_of("class0") == raised.found_threshold
    # Not above what the photos of the class exceed.
    lowest = dataclasses.replace(fitted, found_threshold=0.0)
    assert lowest.found_threshold_of("class0") == own


def test_the_bound_is_one_of_tolerance() -> None:
    """The share of photos beyond the bound of a normal sample is 1 % or less in 95 of 100 samples."""
    rng = np.random.default_rng(0)
    for count in (12, 200):
        bounds = np.array([lower_bound(rng.normal(10, 1, count)) for _ in range(2000)])
        missed = np.mean(bounds > 10 - 2.326)
        assert missed == pytest.approx(0.05, abs=0.02)
    assert lower_bound(np.array([0.5])) == lower_bound(np.array([])) == 0


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
