"""The benchmark measures what it says, on features small enough to check by hand and on a real pair."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import methods, peer_matching, scoring
from benchmarks.datasets import Experiment, RetrievalSet
from benchmarks.errors import Unavailable
from benchmarks.feature_cache import cached_features, strongest
from benchmarks.peer_matching import Answer, Matching
from benchmarks.ranking import Answers, Search, ask
from benchmarks.raw_features import with_head
from benchmarks.rootsift import RootSift
from delf_jax.errors import DelfError, ImageError
from delf_jax.extraction.head import Head
from delf_jax.extraction.pca import Pca
from delf_jax.features import LocalFeatures
from retrieval.verification.matching import mutual_nearest


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
    pairs, cosines = peer_matching.putative(a, b, ratio=ratio)
    expected = mutual_nearest(a, b, ratio=ratio)
    rows = np.flatnonzero(np.asarray(expected.where))
    assert np.all(np.diff(cosines) <= 0)
    order = np.argsort(pairs[:, 0])
    np.testing.assert_array_equal(pairs[order], np.stack([rows, np.asarray(expected.index)[rows]], axis=1))
    np.testing.assert_allclose(np.sqrt(2 - 2 * cosines[order]), np.asarray(expected.distance)[rows], atol=1e-4)
    assert len(peer_matching.putative(a[:0], b)[0]) == 0
    sure, likely = peer_matching.putative(a, b, ratio=ratio, least_cosine=float(cosines[2]))
    np.testing.assert_array_equal(sure, pairs[:3])
    assert likely.min() == cosines[2]


@pytest.mark.parametrize("matching", [None, Matching(ratio=0.9)])
def test_a_moved_copy_is_found_among_strangers(matching: Matching | None) -> None:
    query = _features(80, seed=0)
    moved = dataclasses.replace(query, keypoints=query.keypoints * 0.5 + 30)
    database = [_features(60, seed=5), moved, _features(90, seed=6), _features(80, seed=7)]
    photos = [Path(str(i)) for i in range(5)]
    dataset = RetrievalSet("toy", (photos[4],), tuple(photos[:4]), (frozenset({1}),))
    features = dict(zip(photos, [*database, query]))
    answers = ask(dataset, features, matching, Search(verify=3, threshold=-5.0))
    first = answers.verified[0][0]
    assert first.photo == answers.voted[0][0].photo == 1
    assert first.inliers >= 76
    assert first.confidence > 20
    assert all(answer.confidence < 5 for answer in answers.verified[0][1:])
    without = dataclasses.replace(dataset, relevant=(frozenset({0}),), ignored=(frozenset({1}),))
    answers = ask(without, features, matching, Search(verify=3, threshold=-5.0))
    assert 1 not in {answer.photo for answer in answers.voted[0] + answers.verified[0]}


def test_numbers_of_a_row_worked_by_hand() -> None:
    photos = tuple(Path(str(i)) for i in range(4))
    known = RetrievalSet("toy", photos, photos, tuple(frozenset({i}) for i in range(4)))
    strangers = RetrievalSet("strangers", photos[:3], photos, (frozenset(),) * 3)
    found = [
        [Answer(0, 30, 20.0), Answer(1, 5, -1.0)],
        [Answer(1, 12, 6.0)],
        [Answer(0, 9, 3.0), Answer(2, 8, 2.0)],
        [],
    ]
    voted = [[], [], [], [Answer(2, 0, 0.5), Answer(3, 0, 0.25)]]
    unknown = [[Answer(0, 9, 4.0), Answer(1, 8, 7.0)], [Answer(2, 7, 2.0)], []]
    row = scoring.verified(
        Experiment(known, strangers, ()), Answers(voted, found), Answers([[], [], []], unknown), threshold=-5.0
    )
    assert row["top1"] == 50.0
    assert row["top5"] == 100.0
    # The last query's photo was not verified: it stands where the votes put it.
    assert row["map"] == pytest.approx(100 * (1 + 1 + 0.5 + 0.5) / 4)
    # By confidence: right 20, stranger 7, right 6, wrong 3, stranger 2: precisions 1/1 and 2/3, over four queries.
    assert row["gap"] == pytest.approx(100 * (1 + 2 / 3) / 4)
    assert row["accepted_right"] == 50.0
    assert row["accepted_wrong"] == 0
    assert row["strangers_accepted"] == 1
    assert row["recall_at_0"] == 25.0
    assert row["recall_at_1"] == 50.0
    # All answers to all queries: 20 right, 7 no, 6 right, 4 no, 3 no, 2 right beside a stranger's.
    assert row["precision_recall"] == [[1, 1.0], [2, 0.6667], [3, 0.4286]]
    assert row["queries"] == {"0": [0, 20.0], "1": [0, 6.0], "2": [1, 3.0], "3": [1, None]}
    assert row["surest_strangers"] == {"0": 7.0, "1": 2.0}
    text = scoring.table([{"method": "toy", "features": 10, **row}, {"method": "other", "left_out": "no weights"}])
    assert "75.0" in text
    assert "other is left out: no weights" in text


def test_a_scorer_that_the_head_lacks_is_left_out_and_other_names_are_refused(tmp_path: Path) -> None:
    head = tmp_path / "head.safetensors"
    Head(foreground=np.eye(1024, dtype=np.float32)[0]).save(head)
    request = methods.Request(max_features=10, head=head, collection=(), cache=tmp_path, peer_weights=tmp_path)
    with pytest.raises(Unavailable, match="no 'learned' scorer"):
        methods.method("learned-40", request)
    with pytest.raises(Unavailable, match=r"aliked-n16\.pth"):
        methods.method("aliked", request)
    with pytest.raises(DelfError, match="SCORER"):
        methods.method("surf", request)


def test_fewer_dimensions_are_the_first_components() -> None:
    generator = np.random.default_rng(1)
    basis = np.linalg.qr(generator.normal(size=(8, 8)))[0].astype(np.float32)
    head = Head(pca=Pca(np.zeros(8, np.float32), basis[:5], np.arange(5, 0, -1).astype(np.float32)))
    dense = generator.normal(size=(7, 8)).astype(np.float32)
    norms = np.linalg.norm(dense, axis=1)
    raw = LocalFeatures(np.zeros((7, 2), np.float32), np.ones(7, np.float32), norms, dense / norms[:, None], (9, 9))
    reduced = with_head(raw, methods.of_dimension(head, 3).arrays(), "norm", max_features=4)
    order = np.argsort(-norms)[:4]
    expected = raw.descriptors[order] @ basis[:3].T / np.sqrt([5, 4, 3])
    np.testing.assert_allclose(
        reduced.descriptors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5
    )
    whole = with_head(raw, methods.of_dimension(head, 8).arrays(), "norm")
    np.testing.assert_allclose(whole.descriptors, raw.descriptors[np.argsort(-norms)], atol=1e-6)
    with pytest.raises(DelfError, match="give at most these"):
        methods.of_dimension(head, 6)


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
    sift = RootSift(max_features=300)
    paths = {path.stem: path for path in demo_photos.iterdir()}
    query, target, *others = (sift(paths[name]) for name in ("graf3", "graf1", "chelsea", "home"))
    assert len(query) == 300
    np.testing.assert_allclose(np.linalg.norm(query.descriptors, axis=1), 1, atol=1e-3)
    assert np.all(np.diff(query.scores) <= 0)
    answers = peer_matching.verified(
        query,
        [Answer(i, 0, 1.0) for i in range(3)],
        [*others, target],
        matching=Matching(ratio=0.85, inlier_radius=10.0, cell=8.0),
        threshold=-2.0,
    )
    assert answers[0].photo == 2
    assert answers[0].confidence > 2 > answers[1].confidence


def test_rootsift_names_a_photo_that_it_cannot_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    with pytest.raises(ImageError, match="broken"):
        RootSift()(broken)
