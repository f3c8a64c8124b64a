"""Verification of real photos: transforms in pixels, refusals, and what the settings do."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

import retrieval
from delf_jax.features import LocalFeatures
from retrieval.verification import verify
from retrieval.verification.verify import VerificationSettings, verify_candidates
from tests.retrieval.sift import sift_features


@pytest.fixture(scope="module")
def photos(demo_photos: Path) -> dict[str, LocalFeatures]:
    names = ("leuvenA", "leuvenB", "box", "box_in_scene")
    return {name: sift_features(demo_photos / f"{name}.jpg") for name in names}


@pytest.mark.parametrize(("query", "partner"), [("leuvenB", "leuvenA"), ("box_in_scene", "box")])
def test_the_transform_leads_from_the_query_to_the_photo_in_pixels(
    query: str, partner: str, photos: dict[str, LocalFeatures]
) -> None:
    found = retrieval.match(photos[query], photos[partner], name=partner)
    assert found.accepted
    assert (found.image, found.score) == (partner, 0)
    assert found.log10_nfa is not None
    assert found.log10_nfa < -5
    assert found.transform is not None
    there = distance(found.transform, found.query_points, found.points)[found.is_inlier].max()
    back = distance(np.linalg.inv(found.transform), found.points, found.query_points)[found.is_inlier].max()
    assert found.inliers == found.is_inlier.sum() > 10
    assert min(there, back) < 20
    np.testing.assert_array_equal(found.query_points, photos[query].keypoints[found.rows[:, 0]])
    np.testing.assert_array_equal(found.points, photos[partner].keypoints[found.rows[:, 1]])
    # Arrays have no order: matches are compared and hashed by identity.
    assert found in {found}


def distance(transform: np.ndarray, points: np.ndarray, partners: np.ndarray) -> np.ndarray:
    moved = np.c_[points, np.ones(len(points))] @ transform.T
    return np.linalg.norm(moved[:, :2] / moved[:, 2:] - partners, axis=1)


def test_candidates_keep_their_order_and_do_not_meet(photos: dict[str, LocalFeatures]) -> None:
    names = ("leuvenA", "box", "nothing")
    others = photos | {"nothing": LocalFeatures.empty((480, 640), 128)}
    candidates = [(name, float(votes), others[name]) for votes, name in enumerate(names)]
    together = verify_candidates(photos["box_in_scene"], candidates, VerificationSettings())
    assert [(match.image, match.score) for match in together] == [("leuvenA", 0), ("box", 1), ("nothing", 2)]
    assert [match.accepted for match in together] == [False, True, False]
    alone = retrieval.match(photos["box_in_scene"], photos["box"])
    assert (together[1].inliers, together[1].putative) == (alone.inliers, alone.putative)
    # Three photos are verified in place of one.
    assert together[1].log10_nfa == pytest.approx(alone.log10_nfa + math.log10(3), abs=0.05)
    assert verify_candidates(photos["box"], [], VerificationSettings()) == []


def test_settings_of_verification(photos: dict[str, LocalFeatures]) -> None:
    def verified(**settings: float) -> retrieval.Match:
        return verify_candidates(photos["leuvenB"], [("", 0.0, photos["leuvenA"])], VerificationSettings(**settings))[0]

    found = verified()
    assert verified(photos_verified=100).log10_nfa == pytest.approx(found.log10_nfa + 2, abs=0.01)
    assert not verified(threshold=found.log10_nfa - 0.1).accepted


def test_other_geometry(photos: dict[str, LocalFeatures], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "TRIALS", 100)  # its program is compiled sooner
    found = retrieval.match(photos["leuvenB"], photos["leuvenA"], model="similarity")
    assert found.accepted
    assert found.transform is not None
    rotation = found.transform[:2, :2]
    np.testing.assert_allclose(rotation @ rotation.T, np.linalg.det(rotation) * np.eye(2), atol=1e-4)


def test_large_photos_are_judged_at_the_size_that_they_were_reduced_to(photos: dict[str, LocalFeatures]) -> None:
    def enlarged(features: LocalFeatures) -> LocalFeatures:
        height, width = features.image_size
        return dataclasses.replace(
            features,
            keypoints=features.keypoints * 4,
            scales=features.scales / 4,
            image_size=(4 * height, 4 * width),
        )

    small = retrieval.match(photos["leuvenB"], photos["leuvenA"], max_side=512)
    large = retrieval.match(enlarged(photos["leuvenB"]), enlarged(photos["leuvenA"]), max_side=512)
    assert large.inliers == small.inliers
    assert large.log10_nfa == pytest.approx(small.log10_nfa, abs=0.01)


def test_photos_without_features_do_not_match(photos: dict[str, LocalFeatures]) -> None:
    nothing = LocalFeatures.empty((480, 640), 128)
    for pair in ((nothing, photos["box"]), (photos["box"], nothing), (nothing, nothing)):
        found = retrieval.match(*pair)
        assert (found.putative, found.inliers, found.accepted) == (0, 0, False)
