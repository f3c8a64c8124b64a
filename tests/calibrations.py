"""A calibration that needs no strangers, to be changed by ``dataclasses.replace``."""

from delf_jax.extraction.calibration import Calibration

CALIBRATION = Calibration(
    wrong_per_thousand=1,
    confidence=0.95,
    strangers=3200,
    fingerprint="f" * 64,
    scorer="learned",
    detection="peaks",
    verified=5,
    photos=5,
    photos_tested=5,
    features_tested=1000,
    fall=1.0,
    thresholds=(-7.5,),
)
