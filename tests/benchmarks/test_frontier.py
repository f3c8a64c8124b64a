"""The frontier takes the features of every setting from few extractions: they must be what each would have given."""

import json
from pathlib import Path

import numpy as np
import pytest

import delf_jax
from benchmarks import frontier, frontier_points
from benchmarks.frontier_points import Point
from delf_jax.errors import DelfError


def test_some_scales_of_one_extraction_are_an_extraction_at_these_scales(demo_photos: Path, tiny_model: Path) -> None:
    photo = demo_photos / "graf1.jpg"  # 800 x 640, so it is reduced
    point = Point(160, (0.7071, 1.4142), features=10)
    settings = {"max_side": point.max_side, "scorer": "norm"}
    (everything,) = delf_jax.load(tiny_model, scales=frontier_points.ALL_SCALES, max_features=4000, **settings)([photo])
    (expected,) = delf_jax.load(tiny_model, scales=point.scales, max_features=point.features, **settings)([photo])
    found = frontier_points.at_scales(everything, point)
    assert len(found) == len(expected) == 10
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=0.05)
    np.testing.assert_allclose(found.scales, expected.scales, rtol=1e-5)


@pytest.mark.parametrize(
    ("longest", "max_side", "side"),
    [(1050, 1024, 1024), (640, 1024, 640), (640, 640, 640), (640, 480, 640), (500, 640, 640), (384, 1024, 384)],
)
def test_a_photo_is_extracted_at_the_smallest_size_that_leaves_it_the_same(
    longest: int, max_side: int, side: int
) -> None:
    assert frontier_points._reduced_to(longest, max_side) == side


def test_a_run_goes_on_with_the_committed_rows_and_loses_none() -> None:
    results = Path(frontier.__file__).parent / "results" / "frontier.json"
    document = json.loads(results.read_text())
    settings = document["settings"] | {"log10_nfa": frontier._THRESHOLD, "timed_photos": frontier._TIMED_PHOTOS}
    assert frontier._measured_before(results, settings) == document["rows"]
    with pytest.raises(DelfError, match="other settings"):
        frontier._measured_before(results, settings | {"weights": "0" * 64})
    assert frontier._measured_before(results.with_name("none.json"), settings) == []
