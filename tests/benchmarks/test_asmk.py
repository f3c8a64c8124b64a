"""The benchmark's photo-by-photo ASMK and the inverted file agree; its training photos are other photos."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import asmk as benchmark
from benchmarks import datasets
from delf_jax.features import LocalFeatures
from retrieval import asmk
from tests.retrieval.sift import sift_features

NAMES = ("graf1", "graf3", "box", "coffee", "leuvenA")


@pytest.fixture(scope="module")
def photos(demo_photos: Path) -> list[LocalFeatures]:
    return [sift_features(demo_photos / f"{name}.jpg") for name in NAMES]


def test_photo_by_photo_scores_are_those_of_the_inverted_file(photos: list[LocalFeatures]) -> None:
    codebook = asmk.train(photos[2:], words=50)
    file = asmk.InvertedFile.build(([one.descriptors] for one in photos), codebook, kernel=asmk.Kernel(binary=False))
    slow = benchmark.PhotoByPhoto(photos, codebook)
    for query in photos:
        np.testing.assert_allclose(slow.scores(query), file.scores(query.descriptors), atol=2e-3)


def test_every_stage_finds_the_other_photo_of_the_wall(photos: list[LocalFeatures]) -> None:
    database = photos[1:]
    stages = [*benchmark.voting(database, -8.0), *benchmark.aggregated(database, [asmk.train(photos[2:], words=50)])]
    assert [stage.described["stage"] for stage in stages][:3] == ["votes", "votes", "ASMK*"]
    for stage in stages:
        assert stage.nbytes > 0
        ranked = benchmark.ranked_by(stage.scores(photos[0]), photos[0], database, 4, -8.0, 0)
        assert ranked.photos[0] == 0
        assert len(set(ranked.photos)) == len(ranked.photos)


def test_training_photos_are_none_of_those_searched(shared_data: Path) -> None:
    training = benchmark.training_photos(shared_data)
    assert len(training) > 200
    assert not set(training) & set(datasets.buildings(shared_data).database)
