"""The benchmark of growth: what its numbers are of."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import retrieval
from benchmarks import growth, growth_photos, growth_probe
from delf_jax.features import LocalFeatures
from tests.conftest import ROOT
from tests.retrieval.sift import sift_features


@pytest.fixture(scope="module")
def sources(demo_photos: Path) -> list[LocalFeatures]:
    return [sift_features(demo_photos / f"{name}.jpg", 150) for name in ("graf1", "box", "coffee")]


def test_a_photo_depends_on_its_number_alone(sources: list[LocalFeatures]) -> None:
    several = dict(growth_photos.warped(sources, 5))
    ((name, alone),) = growth_photos.warped(sources, 1, start=4)
    assert name == list(several)[4]
    for column in ("keypoints", "scales", "scores", "descriptors"):
        np.testing.assert_array_equal(getattr(alone, column), getattr(several[name], column))
    assert alone.descriptors.shape == (growth_photos.FEATURES, growth_photos.DIMENSION)
    np.testing.assert_allclose(np.linalg.norm(alone.descriptors, axis=1), 1, rtol=1e-5)


def test_views_of_one_photo_are_found_and_others_are_not(sources: list[LocalFeatures]) -> None:
    index = retrieval.Index.build(growth_photos.warped(sources, 6), backend="exact")
    ((_, query),) = growth_photos.warped(sources, 1, start=1, seed=1)
    found = index.search(query)
    assert {match.image for match in found.matches if match.accepted} == {"0000001", "0000004"}


def test_views_of_a_place_are_one_group(sources: list[LocalFeatures]) -> None:
    count = 4 * growth_photos.VIEWS
    found = retrieval.group(retrieval.Index.build(growth_photos.views_of_places(sources, count), backend="exact"))
    assert [len(each.names) for each in found.groups] == [growth_photos.VIEWS] * 4
    for each in found.groups:
        assert len({name.partition("/")[0] for name in each.names}) == 1


def test_features_are_kept_and_tiles_are_photos(sources: list[LocalFeatures], tmp_path: Path) -> None:
    growth_photos.save_features(tmp_path / "features.npz", sources)
    for kept, given in zip(growth_photos.open_features(tmp_path / "features.npz"), sources, strict=True):
        np.testing.assert_array_equal(kept.descriptors, given.descriptors)
        assert kept.image_size == tuple(given.image_size)
    growth_photos.write_tiles(tmp_path / "tiles", 3)
    for tile in sorted((tmp_path / "tiles").iterdir()):
        with Image.open(tile) as photo:
            assert photo.size == (160, 120)
            assert np.asarray(photo).std() > 5


@pytest.mark.slow
def test_every_part_measures_itself(sources: list[LocalFeatures], tiny_model: Path, tmp_path: Path) -> None:
    growth_photos.save_features(tmp_path / "features.npz", sources)
    growth_photos.write_tiles(tmp_path / "tiles-20", 20)
    for part, shards in (("extract", 0), ("fit-localizer", 0), ("group", 0), ("index", 2), ("search", 2)):
        row = growth_probe.probe(
            growth_probe.Options(part=part, photos=20, data=tmp_path, model=str(tiny_model), shards=shards)
        )
        assert 0 < row["before_megabytes"] <= row["peak_megabytes"]
    assert row["ms_votes"] < row["ms_query"]
    (tmp_path / "index-20-2").rename(tmp_path / "index")
    command = [sys.executable, "-m", "benchmarks.growth_probe", "index", "--photos", "20", "--data", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    shown = growth.table([{"part": "index", "photos": 20} | json.loads(ended.stdout)])
    assert "MB at most" in shown
