"""The benchmark measures what it says, on features small enough to check by hand and on a real pair."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import exhaustive
from benchmarks.accuracy import Options, ask, measure, recall_at_false_accepts, table
from benchmarks.datasets import RetrievalSet
from benchmarks.exhaustive import Answer
from benchmarks.feature_cache import cached_features, strongest
from benchmarks.methods import Method
from benchmarks.rootsift import RootSift
from delf_jax.errors import ImageError
from delf_jax.features import LocalFeatures
from retrieval.matching import mutual_nearest


def _features(count: int, *, seed: int, dimension: int = 32) -> LocalFeatures:
    generator = np.random.default_rng(seed)
    descriptors = generator.normal(size=(count, dimension)).astype(np.float32)
    return LocalFeatures(
        keypoints=generator.uniform(0, 400, (count, 2)).astype(np.float32),
        scales=np.ones(count, np.float32),
        scores=np.sort(generator.uniform(size=count)).astype(np.float32)[::-1].copy(),
        descriptors=descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
        image_size=(400, 400),
    )


@pytest.mark.parametrize("ratio", [None, 0.9])
def test_putative_matches_are_those_of_the_library(ratio: float | None) -> None:
    a, b = _features(70, seed=1).descriptors, _features(50, seed=2).descriptors
    pairs, cosines = exhaustive.putative(a, b, ratio=ratio)
    expected = mutual_nearest(a, b, ratio=ratio)
    rows = np.flatnonzero(np.asarray(expected.where))
    np.testing.assert_array_equal(pairs, np.stack([rows, np.asarray(expected.index)[rows]], axis=1))
    np.testing.assert_allclose(np.sqrt(2 - 2 * cosines), np.asarray(expected.distance)[rows], atol=1e-4)
    assert len(exhaustive.putative(a[:0], b)[0]) == 0


@pytest.mark.parametrize("matching", [None, exhaustive.Matching(ratio=0.9)])
def test_a_moved_copy_is_found_among_strangers(matching: exhaustive.Matching | None) -> None:
    query = _features(80, seed=0)
    moved = dataclasses.replace(query, keypoints=query.keypoints * 0.5 + 30)
    database = [_features(60, seed=5), moved, _features(90, seed=6), _features(80, seed=7)]
    photos = [Path(str(i)) for i in range(5)]
    dataset = RetrievalSet("toy", (photos[4],), tuple(photos[:4]), (frozenset({1}),))
    method = Method("toy", lambda _: [], {}, matching=matching)
    features = dict(zip(photos, [*database, query]))
    answers = ask(dataset, features, method, Options(methods=()), threshold=-5.0)[0]
    assert answers[0].photo == 1
    assert answers[0].inliers >= 76
    assert answers[0].log10_nfa < -20
    assert all(answer.log10_nfa > -5 for answer in answers[1:])


def test_numbers_of_a_row_worked_by_hand() -> None:
    photos = tuple(Path(str(i)) for i in range(4))
    dataset = RetrievalSet("toy", photos, photos, tuple(frozenset({i}) for i in range(4)))
    found = [
        [Answer(0, 30, -20.0), Answer(1, 5, 1.0)],
        [Answer(1, 12, -6.0)],
        [Answer(0, 9, -3.0), Answer(2, 8, -2.0)],
        [],
    ]
    unknown = [[Answer(0, 9, -4.0), Answer(1, 8, -7.0)], [Answer(2, 7, -2.0)], []]
    row = measure(dataset, found, unknown, threshold=-5.0)
    assert row["top1"] == 50.0
    assert row["top5"] == 75.0
    assert row["map"] == pytest.approx(100 * (1 + 1 + 0.5 + 0) / 4)
    # By confidence: right 20, stranger 7, right 6, wrong 3, stranger 2: precisions 1/1 and 2/3, over four queries.
    assert row["gap"] == pytest.approx(100 * (1 + 2 / 3) / 4)
    assert row["accepted_right"] == 50.0
    assert row["accepted_wrong"] == 0
    assert row["strangers_accepted"] == 1
    assert row["recall_at_0"] == 25.0
    assert row["recall_at_1"] == 50.0
    assert row["wrong"] == ["2", "3"]
    assert "75.0" in table([{"method": "toy", "features": 10, **row}])


def test_recall_without_any_stranger_counts_every_right_answer() -> None:
    sure, right = np.array([3.0, -np.inf]), np.array([True, False])
    assert recall_at_false_accepts(sure, right, np.array([]), allowed=0) == 0.5


def test_features_are_extracted_once_and_come_back_whole(tmp_path: Path) -> None:
    photos = [tmp_path / f"{i}.jpg" for i in range(3)]
    for photo in photos:
        photo.write_bytes(photo.name.encode())
    asked: list[Path] = []

    def extract(missing: Sequence[Path]) -> list[LocalFeatures]:
        asked.extend(missing)
        return [_features(4 + int(photo.stem), seed=int(photo.stem)) for photo in missing]

    def run(**description: int) -> list[LocalFeatures]:
        return cached_features(extract, photos, description=description, folder=tmp_path / "cache", batch=2)

    first = run(size=1)
    again = run(size=1)
    assert asked == photos
    for one, other in zip(first, again):
        np.testing.assert_array_equal(one.descriptors, other.descriptors)
        assert one.image_size == other.image_size == (400, 400)
    photos[1].write_bytes(b"another photo")
    run(size=1)
    assert asked == [*photos, photos[1]]
    run(size=2)
    assert asked[4:] == photos
    np.testing.assert_array_equal(strongest(first[2], 2).scores, first[2].scores[:2])


def test_rootsift_finds_the_same_wall_from_another_angle(demo_photos: Path) -> None:
    sift = RootSift(max_features=600)
    paths = {path.stem: path for path in demo_photos.iterdir()}
    query, target, other = (sift(paths[name]) for name in ("graf3", "graf1", "chelsea"))
    assert len(query) == 600
    np.testing.assert_allclose(np.linalg.norm(query.descriptors, axis=1), 1, atol=1e-3)
    assert np.all(np.diff(query.scores) <= 0)
    answers = exhaustive.search(
        query,
        [other, target],
        matching=exhaustive.Matching(ratio=0.85, inlier_radius=10.0, cell=8.0),
        threshold=-2.0,
        key=jax.random.key(0),
    )
    assert answers[0].photo == 1
    assert answers[0].log10_nfa < -2 < answers[1].log10_nfa


def test_rootsift_names_a_photo_that_it_cannot_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    with pytest.raises(ImageError, match="broken"):
        RootSift()(broken)
