"""Presets change what features cost and bring, and nothing else."""

import dataclasses
from pathlib import Path

import pytest

import delf_jax
from delf_jax.settings import ExtractionSettings, Preset


def test_default_is_what_is_used_without_a_preset() -> None:
    assert ExtractionSettings().with_preset("default") == ExtractionSettings()


@pytest.mark.parametrize("preset", ["fast", "default", "best"])
def test_a_preset_keeps_everything_else(preset: Preset) -> None:
    own = ExtractionSettings("other", "norm", 7, 320, (0.3,), "cells", "bfloat16", 1, 0.5, 0.1)
    changed = dataclasses.asdict(own.with_preset(preset)).items() - dataclasses.asdict(own).items()
    assert {name for name, _ in changed} == {"scales", "max_side", "max_features"}


def test_what_is_given_besides_a_preset_wins(tiny_model: Path) -> None:
    settings = ExtractionSettings(scorer="norm", scales=(0.3,))
    fast = delf_jax.load(tiny_model, preset="fast", settings=settings, max_features=5).settings
    assert fast == dataclasses.replace(settings.with_preset("fast"), model=str(tiny_model), max_features=5)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ValueError, match="preset is 'slow'; it must be one of: fast, default, best"):
        ExtractionSettings().with_preset("slow")
