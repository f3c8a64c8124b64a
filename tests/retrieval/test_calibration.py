"""Calibrating an index on strangers."""

import dataclasses
import math
from pathlib import Path

import pytest

import retrieval
from delf_jax.errors import SearchIndexError
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
    for settings in (retrieval.SearchSettings(model="similarity"), retrieval.SearchSettings(neighbours=59)):
        other = index.search(query, settings=settings).acceptance
        assert (other.threshold, other.calibration) == (-5.0, None)
        assert other.guarantee.startswith("no bound known (this kind of search was not calibrated); ")
    assert index.search(query, threshold=-3.0).acceptance.calibration is None
    assert index.search(query, threshold=-math.inf).acceptance.guarantee.endswith("come to it never")
    # Of ten photos two were verified.
    index.calibrate(dataclasses.replace(made, verified=2, photos_tested=10))
    assert index.search(query, verify=2).acceptance.calibration is not None
    above = index.search(query, verify=3).acceptance
    assert (above.calibration, above.other_search) == (None, True)


def test_a_photo_counts_without_votes_too(index: retrieval.Index, demo_photos: Path) -> None:
    query = sift_features(demo_photos / "leuvenB.jpg", 150)
    one_vote = retrieval.SearchSettings(neighbours=1)
    alone = LocalFeatures.empty((60, 80), 128)
    photos = [("leuvenA", index.features("leuvenA")), *((f"nothing {i}", alone) for i in range(9))]
    small, large = (retrieval.Index.build(photos[:count], backend="exact", threshold=-5.0) for count in (1, 10))
    first, second = (of.search(query, settings=one_vote).matches[0].log10_nfa for of in (small, large))
    assert first is not None
    assert second == pytest.approx(first + 1, abs=1e-3)


@pytest.mark.parametrize("other", [{"fingerprint": "e" * 64}, {"fingerprint": ""}, {"scorer": "learned"}])
def test_a_calibration_of_other_features_is_refused(index: retrieval.Index, other: dict[str, str]) -> None:
    made = calibration.calibrated(index, found(473), wrong_per_thousand=10)
    before = index.calibration
    with pytest.raises(SearchIndexError, match="made with another model, scorer or detection than the index"):
        index.calibrate(dataclasses.replace(made, **other))  # type: ignore[arg-type]
    assert index.calibration == before


def test_an_index_of_an_unknown_model_has_its_own_calibration_alone(index: retrieval.Index) -> None:
    photos = [("leuvenA", index.features("leuvenA"))]
    unknown = retrieval.Index.build(photos, backend="exact", settings=ExtractionSettings())
    assert (unknown.calibration, unknown.threshold) == (None, -5.0)
    with pytest.raises(SearchIndexError, match="calibrate this index"):
        unknown.calibrate(calibration.calibrated(index, found(473), wrong_per_thousand=10))
    own = calibration.calibrated(unknown, found(473), wrong_per_thousand=10)
    unknown.calibrate(own)
    assert unknown.calibration == own
