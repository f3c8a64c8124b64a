"""The trap set: overlays that different photos share, and what is counted of their matches."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.overlay_drawings import OVERLAYS
from benchmarks.overlays import Composed, Pair, counted
from retrieval.verification.verify import Match, VerificationSettings


@pytest.mark.parametrize("name", OVERLAYS)
def test_photos_share_the_overlay_and_nothing_else(name: str) -> None:
    dark, light = (np.asarray(OVERLAYS[name](Image.new("RGB", (320, 240), (grey,) * 3))) for grey in (60, 180))
    difference = np.abs(light.astype(int) - dark).max(axis=2)
    # Watermarks are half transparent.
    assert 0.005 < (difference < 100).mean() < 0.8
    assert (difference == 120).mean() > 0.15


def test_what_is_accepted_with_and_without_the_overlay() -> None:
    refused = dataclasses.replace(Match.unverified("", 0.0, VerificationSettings()), log10_nfa=1.0)
    accepted = dataclasses.replace(refused, accepted=True, log10_nfa=-9.0)
    photo = Composed(Path("a.jpg"), "none", "phone")
    found = [refused, dataclasses.replace(refused, overlay=40), accepted, dataclasses.replace(accepted, overlay=40)]
    (row,) = counted((Pair("unrelated", "phone", photo, photo), one) for one in found)
    assert row == {
        "overlay": "phone",
        "kind": "unrelated",
        "pairs": 4,
        "accepted_by_all_matches": 3,
        "with_overlay": 2,
        "accepted": 2,
        "surest": -9.0,
    }
