"""Pairs of packaged photos: COLMAP's geometry is right for the same scene, and strangers get none."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

import retrieval
from delf_jax.features import LocalFeatures
from delf_jax.interchange.pairs import PairMatches, all_pairs
from tests.retrieval.sift import sift_features

STRANGERS = ("box", "camera", "coffee", "home", "building")
# Half the side of graf1 and graf3, so that their pixels count as two.
MAX_SIDE = 400


@pytest.fixture(scope="module")
def photos(demo_photos: Path) -> dict[str, LocalFeatures]:
    names = ("graf1", "graf3", *STRANGERS)
    return {name: sift_features(demo_photos / f"{name}.jpg", 500) for name in names} | {
        "nothing": LocalFeatures.empty((480, 640), 128)
    }


@pytest.fixture(scope="module")
def found(photos: dict[str, LocalFeatures]) -> dict[tuple[str, str], PairMatches]:
    pytest.importorskip("pycolmap")
    return {(pair.a, pair.b): pair for pair in retrieval.match_pairs(photos, all_pairs(photos), max_side=MAX_SIDE)}


def test_unrelated_photos_get_no_geometry(found: dict[tuple[str, str], PairMatches]) -> None:
    assert list(found) == list(all_pairs(("graf1", "graf3", *STRANGERS)))
    assert min(len(pair.rows) for pair in found.values()) > 20
    assert [names for names, pair in found.items() if pair.fundamental is not None] == [("graf1", "graf3")]
    assert [names for names, pair in found.items() if pair.verified.any()] == [("graf1", "graf3")]


def test_inliers_agree_with_the_known_homography(
    found: dict[tuple[str, str], PairMatches], photos: dict[str, LocalFeatures], demo_photos: Path
) -> None:
    pair = found["graf1", "graf3"]
    numbers = re.search(r"<data>(.*?)</data>", (demo_photos / "H1to3p.xml").read_text(), re.DOTALL)
    assert numbers is not None
    homography = np.array(numbers[1].split(), float).reshape(3, 3)
    a, b = (photos[name].keypoints[rows] for name, rows in zip(("graf1", "graf3"), pair.rows.T))
    a, b = (np.c_[points, np.ones(len(points))] for points in (a, b))
    moved = a @ homography.T
    right = np.linalg.norm(moved[:, :2] / moved[:, 2:] - b[:, :2], axis=1) < 16
    assert right.sum() > 50
    assert pair.verified[right].mean() > 0.8
    assert right[pair.verified].mean() > 0.9
    # Inliers alone lie within 8 pixels of the reduced photo of both epipolar lines.
    assert pair.fundamental is not None
    lines, lines_back = a @ pair.fundamental.T, b @ pair.fundamental
    shorter = np.minimum(*(np.linalg.norm(each[:, :2], axis=1) for each in (lines, lines_back)))
    np.testing.assert_array_equal(np.abs(np.sum(lines * b, axis=1)) / shorter < 16, pair.verified)


def test_each_photo_is_reduced_by_itself(
    found: dict[tuple[str, str], PairMatches], photos: dict[str, LocalFeatures]
) -> None:
    half = dataclasses.replace(photos["graf3"], keypoints=photos["graf3"].keypoints / 2, image_size=(320, 400))
    (pair,) = retrieval.match_pairs(photos | {"graf3": half}, [("graf1", "graf3")], max_side=MAX_SIDE)
    whole = found["graf1", "graf3"]
    np.testing.assert_array_equal(pair.verified, whole.verified)
    assert pair.fundamental is not None
    assert whole.fundamental is not None
    np.testing.assert_allclose(pair.fundamental, np.diag([2, 2, 1]) @ whole.fundamental, rtol=1e-9)


def test_photos_that_share_only_a_frame_get_no_geometry() -> None:
    pytest.importorskip("pycolmap")
    rng = np.random.default_rng(0)
    along = np.linspace(20, 620, 16)
    frame = np.concatenate([np.stack([along, np.full(16, y)], axis=1) for y in (8, 24, 456, 472)])
    photos = {
        name: LocalFeatures(
            keypoints=np.r_[frame, rng.uniform((100, 80), (540, 400), (60, 2))].astype("f"),
            scales=np.ones(124, "f"),
            scores=np.ones(124, "f"),
            descriptors=np.eye(124, 128, dtype="f"),
            image_size=(480, 640),
        )
        for name in "ab"
    }
    (pair,) = retrieval.match_pairs(photos, [("a", "b")], max_side=640)
    assert len(pair.rows) == 124
    assert pair.fundamental is None
    assert not pair.verified.any()
    photos["b"] = dataclasses.replace(photos["a"])
    (copy,) = retrieval.match_pairs(photos, [("a", "b")], max_side=640)
    assert copy.fundamental is not None
