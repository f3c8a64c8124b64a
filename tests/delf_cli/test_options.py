"""Which settings the options of a command come to."""

import dataclasses

import pytest

from delf_cli.options import ExtractionOptions
from delf_jax.settings import ExtractionSettings

OF_AN_INDEX = ExtractionSettings(model="other", scales=(0.3,), max_side=320, max_features=7)
FAST = OF_AN_INDEX.with_preset("fast")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ExtractionOptions(), OF_AN_INDEX),
        (ExtractionOptions(preset="fast"), FAST),
        (ExtractionOptions(preset="fast", max_side=500), dataclasses.replace(FAST, max_side=500)),
        (ExtractionOptions(max_features=9), dataclasses.replace(OF_AN_INDEX, max_features=9)),
    ],
)
def test_options_win_over_a_preset_and_a_preset_over_the_index(
    options: ExtractionOptions, expected: ExtractionSettings
) -> None:
    assert options.settings(OF_AN_INDEX) == expected
