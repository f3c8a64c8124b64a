"""Measures of explanations and of empty photos, on planted photos where the answers are known."""

from pathlib import Path

import pytest

import localization
from benchmarks import empty_photos, explanation_quality
from localization.evaluation.annotated_photo import AnnotatedPhoto
from localization.evaluation.protocols import FittingPhotos
from tests.localization.evaluation.test_evaluation import colours, planted


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[AnnotatedPhoto]:
    folder: Path = tmp_path_factory.mktemp("planted")
    return [planted(folder, seed) for seed in range(16)]


@pytest.fixture(scope="module")
def predictor(photos: list[AnnotatedPhoto]) -> localization.Predictor:
    encoder = localization.CallableEncoder(colours, name="colours", size=64)
    labels = {str(photo.path): str(photo.label) for photo in photos}
    return localization.fit(FittingPhotos(photos[:12], side=224), encoder=encoder, labels=labels)


def test_explanations_point_into_the_objects_of_the_class(
    photos: list[AnnotatedPhoto], predictor: localization.Predictor
) -> None:
    rows = {row["method"]: row for row in explanation_quality.measure(predictor, photos[:12], photos[12:])}
    assert list(rows) == ["value", "centred", "local", "random"]
    for name in ("value", "centred", "local"):
        assert rows[name]["inside_box"] > 0.9
        assert rows[name]["distinct_points"] <= 40
    # Six of twelve training photos are of the class, and one point a photo is shown: 6 of 10.
    assert rows["local"]["same_class"] == pytest.approx(0.6)
    assert {row["photos"] for row in rows.values()} == {4}


def test_calibration_empties_the_empty_photos(photos: list[AnnotatedPhoto], predictor: localization.Predictor) -> None:
    rows = empty_photos.measure(predictor, photos[:12], photos[12:], smallest_side=8)
    assert [row["method"] for row in rows] == ["zero level", "default", "calibrated on empty photos"]
    zero, default, calibrated = rows
    assert (zero["found"], default["found"], calibrated["found"]) == (1, 1, 1)
    assert default["found_in_empty"] <= zero["found_in_empty"]
    assert calibrated["found_in_empty"] <= zero["found_in_empty"]
    assert zero["auc"] == 1
    assert {row["found_in_plain"] for row in rows} == {0}
