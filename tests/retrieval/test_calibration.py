"""Calibrating an index on strangers."""

import dataclasses
import math
from pathlib import Path

import pytest

import retrieval
from delf_jax.features import LocalFeatures
from delf_jax.settings import ExtractionSettings
from retrieval import calibration
from retrieval.calibration import CalibrationError, StrangerScore
from tests.retrieval.sift import sift_features


@pytest.fixture(scope="module")
def index(demo_photos: Path) -> retrieval.Index:
    photos = ((name, sift_features(demo_photos / f"{name}.jpg", 150)) for name in ("graf1", "leuvenA", "coffee"))
    settings = ExtractionSettings(scorer="norm")
    return retrieval.Index.build(photos, backend="exact", settings=settings, fingerprint="f" * 64, threshold=-4.5)


def test_the_score_of_a_stranger_is_that_of_its_surest_match(index: retrieval.Index, demo_photos: Path) -> None:
    query = sift_features(demo_photos / "leuvenB.jpg", 150)
    nothing = LocalFeatures.empty((60, 80), 128)
    (found,) = calibration.scores(index, [("leuvenB", query), ("nothing", nothing)])
    matches = index.search(query, threshold=-math.inf).matches
    assert found == StrangerScore(
        "leuvenB", 150, min(m.log10_nfa for m in matches if m.log10_nfa is not None), "leuvenA"
    )
    assert found.log10_nfa < -8


@pytest.mark.parametrize("name", ["coffee", "a copy of it"])
def test_a_photo_of_the_index_is_no_stranger(index: retrieval.Index, demo_photos: Path, name: str) -> None:
    with pytest.raises(CalibrationError, match=f"^{name}: this stranger is .*leave it out"):
        list(calibration.scores(index, [(name, sift_features(demo_photos / "coffee.jpg", 150))]))


def found(count: int) -> list[StrangerScore]:
    """Strangers whose scores are -5, -4.99, and so on, with more and more features."""
    return [StrangerScore(str(i), 10 + i, -5 + i / 100, "graf1") for i in range(count)]


def test_a_calibration_says_what_it_was_made_of(index: retrieval.Index) -> None:
    # 1 % at 95 %: of 473 strangers one may be accepted, of 472 none.
    made = calibration.calibrated(index, found(473), wrong_per_thousand=10)
    assert (made.thresholds, made.feature_counts) == ((-5.0,), ())
    assert calibration.calibrated(index, found(472), wrong_per_thousand=10).thresholds == (-5.01,)
    assert (made.wrong_per_thousand, made.confidence, made.strangers) == (10, 0.95, 473)
    assert (made.fingerprint, made.scorer, made.verified, made.photos) == ("f" * 64, "norm", 3, 3)
    assert (made.photos_tested, made.features_tested) == (3, 482)
    assert made.in_words(3) == "at most 10 wrong in 1000 queries, 95 % sure, from 473 strangers"


def test_many_strangers_are_divided_by_their_features(index: retrieval.Index) -> None:
    made = calibration.calibrated(index, found(900), wrong_per_thousand=20)
    # At 98.3 % one of 300 or 301 may be accepted, and none of 299: the scores -4.99, -2 and 1 decide.
    assert (made.feature_counts, made.thresholds) == ((310, 609), (-5.0, -2.01, 0.0))


@pytest.mark.parametrize(("count", "can"), [(0, ""), (58, "if none is accepted they prove at most 51 .*; ")])
def test_too_few_strangers_are_told_what_they_can_prove(index: retrieval.Index, count: int, can: str) -> None:
    with pytest.raises(CalibrationError, match=f"^{count} strangers are too few: {can}50 in 1000 takes 59$"):
        calibration.calibrated(index, found(count), wrong_per_thousand=50)


def test_an_index_accepts_by_its_calibration(index: retrieval.Index, demo_photos: Path) -> None:
    query = sift_features(demo_photos / "leuvenB.jpg", 150)
    before = index.search(query)
    assert before.acceptance.threshold == -4.5
    assert before.acceptance.guarantee.startswith("no bound known")
    made = calibration.calibrated(index, found(473), wrong_per_thousand=10)
    index.calibrate(made)
    after = index.search(query)
    assert (after.acceptance.threshold, after.acceptance.calibration) == (-5.0, made)
    assert after.matches[0].threshold == -5.0
    # The query has 150 features.
    assert "features" not in after.acceptance.guarantee
    index.calibrate(dataclasses.replace(made, features_tested=149))
    assert index.search(query).acceptance.guarantee.endswith("(tested up to 149 features, not with 150)")
    # Another kind of search keeps the threshold, but nothing is known of its wrong acceptances.
    other = index.search(query, settings=retrieval.SearchSettings(model="similarity")).acceptance
    assert (other.threshold, other.calibration) == (-5.0, None)
    assert index.search(query, threshold=-3.0).acceptance.calibration is None
