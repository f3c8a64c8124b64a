"""Statistics of several processes, each on several devices, add up to those of a single pass."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import delf_jax
import localization
from delf_jax.extraction.head import Head
from localization.encoders.extractor_encoder import ExtractorEncoder
from localization.predictor import Predictor

SHARD = """
import delf_jax, localization
from delf_jax.extraction.head import Head
from localization.encoders.extractor_encoder import ExtractorEncoder
extractor = delf_jax.load({model!r}, head=Head(), scorer="norm", max_side=96)
fitted = localization.fit({photos!r}, encoder=ExtractorEncoder(extractor), labels={labels!r}.get, max_points=300)
fitted.save({out!r})
print(len(extractor.devices))
"""
NAMES = ("box", "box_in_scene", "chelsea", "china", "coffee", "flower", "graf1", "graf3", "leuvenA", "leuvenB")


@pytest.mark.slow
def test_two_processes_of_eight_devices_equal_the_single_pass(
    tiny_model: Path, demo_photos: Path, on_devices: Callable[[int, str], str], tmp_path: Path
) -> None:
    photos = [str(demo_photos / f"{name}.jpg") for name in NAMES]
    labels = {photo: "ab"[number % 2] for number, photo in enumerate(photos)}
    shards = []
    for number, share in enumerate((photos[:7], photos[7:])):
        out = str(tmp_path / str(number))
        source = SHARD.format(model=str(tiny_model), photos=share, labels=labels, out=out)
        assert on_devices(8, source).strip() == "8"
        shards.append(Predictor.open(out))
    merged = shards[0] + shards[1]
    extractor = delf_jax.load(str(tiny_model), head=Head(), scorer="norm", max_side=96)
    whole = localization.fit(photos, encoder=ExtractorEncoder(extractor), labels=labels, max_points=300)
    assert merged.statistics.photos == len(photos)
    assert merged.statistics.total.count == whole.statistics.total.count
    np.testing.assert_allclose(merged.solution.w, whole.solution.w, atol=1e-6)
    for label in "ab":
        np.testing.assert_allclose(merged.direction(label), whole.direction(label), atol=1e-6)
    assert merged.solution.tau == pytest.approx(whole.solution.tau, rel=1e-6)
    assert merged.points is not None
    assert whole.points is not None
    np.testing.assert_allclose(merged.points.norm, whole.points.norm, rtol=1e-4)  # the same positions were kept
