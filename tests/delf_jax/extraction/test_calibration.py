"""Which threshold a calibration gives, and its description in files."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import delf_jax
from delf_jax.errors import ModelError
from delf_jax.extraction.calibration import Calibration
from delf_jax.extraction.head import Head
from delf_jax.files import model_file
from delf_jax.settings import ExtractionSettings
from tests.calibrations import CALIBRATION

GROUPS = dataclasses.replace(
    CALIBRATION,
    verified=100,
    photos=100,
    photos_tested=10_000,
    fall=0.5,
    feature_counts=(200, 600),
    thresholds=(-2.0, -3.0, -4.0),
)


@pytest.mark.parametrize(
    ("query", "threshold"),
    [
        ({"features": 199}, -2.0),
        ({"features": 200}, -3.0),
        ({"features": 600}, -4.0),
        ({"features": 10, "photos": 100}, -2.0),
        ({"features": 10, "photos": 10_000}, -3.0),
        # Ten of a hundred: the best of a ranking by votes, so judged as if all had been verified.
        ({"features": 10, "photos": 10_000, "verified": 10}, -4.0),
        ({"features": 10, "photos": 10, "verified": 10}, -2.0),
        ({"features": 10, "photos": 10, "verified": 1}, -3.0),
        ({"features": 10, "photos": 0, "verified": 0}, -2.0),
    ],
)
def test_the_threshold_of_a_query(query: dict[str, int], threshold: float) -> None:
    assert GROUPS.threshold(**query) == pytest.approx(threshold)


def test_more_photos_verified_than_were_tested_are_not_covered() -> None:
    assert [GROUPS.covers(verified) for verified in (0, 100, 101)] == [True, True, False]
    # Where all photos were verified, each counts as a chance, and the threshold falls with their number.
    assert dataclasses.replace(GROUPS, photos_tested=100).covers(101)


@pytest.mark.parametrize(
    ("settings", "fingerprint", "fits"),
    [
        (ExtractionSettings(), "f" * 64, True),
        (ExtractionSettings(max_features=300, scales=(1.0,)), "f" * 64, True),
        (ExtractionSettings(), None, False),
        (ExtractionSettings(), "e" * 64, False),
        (ExtractionSettings(scorer="norm"), "f" * 64, False),
        (ExtractionSettings(detection="cells"), "f" * 64, False),
    ],
)
def test_it_is_for_the_features_that_it_was_made_with(
    settings: ExtractionSettings, fingerprint: str | None, fits: bool
) -> None:
    assert GROUPS.fits(settings, fingerprint) == fits
    found = Head(calibrations=(GROUPS,)).calibration(settings, fingerprint)
    assert found == (GROUPS if fits else None)


def test_a_head_keeps_its_calibrations(tmp_path: Path) -> None:
    other = dataclasses.replace(GROUPS, scorer="norm", feature_counts=(), thresholds=(-2.5,))
    Head(calibrations=(GROUPS, other)).save(tmp_path / "head.safetensors")
    assert Head.open(tmp_path / "head.safetensors").calibrations == (GROUPS, other)


def test_the_packaged_model_is_calibrated_for_its_default_features_alone() -> None:
    extractor = delf_jax.load()
    settings, fingerprint = extractor.settings, extractor.fingerprint
    found = extractor.head.calibration(settings, fingerprint)
    assert found is not None
    assert -5 < found.threshold(features=500) < -2
    assert found.wrong_per_thousand == 20
    assert found.strangers >= 149  # none of so many accepted proves 20 in 1000
    # No stranger had more features, and no index more photos.
    assert found.in_words(61, 357).endswith("(tested up to 60 photos, not with 61; up to 356 features, not with 357)")
    assert "tested" not in found.in_words(60, 356)
    assert extractor.head.calibration(dataclasses.replace(settings, scorer="norm"), fingerprint) is None
    assert extractor.head.calibration(settings, "f" * 64) is None
    without_pca = delf_jax.load(head=dataclasses.replace(extractor.head, pca=None))
    assert without_pca.head.calibration(settings, without_pca.fingerprint) is None


DAMAGES: list[Any] = [
    {"thresholds": [-2.0]},
    {"thresholds": [-2.0, float("nan"), -4.0]},
    {"thresholds": "abc"},
    {"thresholds": None},
    {"feature_counts": [600, 200]},
    {"feature_counts": [200, 200]},
    {"strangers": 0},
    {"strangers": "many"},
    {"photos": 1.5},
    {"confidence": 1.0},
    {"wrong_per_thousand": 0},
    {"fall": -1.0},
    {"colour": "red"},
    {"fall": 10**400},
    "abc",
    ["thresholds"],
    5,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_a_damaged_description_is_refused(damage: Any, tmp_path: Path) -> None:
    assert Calibration.from_json(GROUPS.to_json()) == GROUPS
    damaged = GROUPS.to_json() | damage if isinstance(damage, dict) else damage
    with pytest.raises((TypeError, ValueError)):
        Calibration.from_json(damaged)
    path = tmp_path / "head.safetensors"
    Head(calibrations=(GROUPS,)).save(path)
    description, tensors = model_file.read(path)
    description["calibrations"][0] = damaged
    model_file.write(path, tensors, description)
    with pytest.raises(ModelError, match="its calibration is damaged"):
        Head.open(path)
