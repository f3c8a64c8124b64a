"""Verification of real photos: transforms in pixels, refusals, and what the settings do."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

import retrieval
from delf_jax.features import Domain, LocalFeatures
from retrieval.verification import ransac, verify
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


def test_the_features_know_the_threshold_of_their_model(photos: dict[str, LocalFeatures]) -> None:
    pair = photos["leuvenB"], photos["leuvenA"]
    assert retrieval.match(*pair).threshold == retrieval.DEFAULT_THRESHOLD
    mild, strict = (dataclasses.replace(photo, log10_nfa_threshold=t) for photo, t in zip(pair, (-2.0, -3000.0)))
    assert retrieval.match(mild, pair[1]).threshold == -2
    found = retrieval.match(mild, strict)
    assert (found.threshold, found.accepted) == (-3000, False)
    assert found.confidence.startswith("refused: chance does as well once in 10^")
    given = retrieval.match(mild, strict, threshold=-4.0)
    assert (given.threshold, given.accepted) == (-4, True)
    assert given.confidence.endswith(" tries (limit: once in 10000)")


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


def test_pairs_and_lists_of_all_lengths_share_two_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "TRIALS", 100)  # its program is compiled sooner
    rng = np.random.default_rng(0)
    domain = Domain.whole((300, 400), 400)

    def photo(count: int) -> LocalFeatures:
        return LocalFeatures(
            keypoints=rng.uniform(0, 300, (count, 2)).astype("f"),
            scales=np.ones(count, "f"),
            scores=np.ones(count, "f"),
            descriptors=np.eye(count, 400, dtype="f"),
            image_size=(300, 400),
            domain=domain,
        )

    query = photo(400)
    before = ransac._verify_all._cache_size()
    for matches, candidates in ((30, 1), (256, 5), (100, 20), (200, 100)):
        found = verify_candidates(query, [("", 0.0, photo(matches))] * candidates, VerificationSettings())
        assert [match.putative for match in found] == [matches] * candidates
    assert ransac._verify_all._cache_size() == before + 1
    mixed = [("", 0.0, photo(matches)) for matches in (257, 3, 400, 0, 120)]
    found = verify_candidates(query, mixed, VerificationSettings())
    assert [match.putative for match in found] == [257, 3, 400, 0, 120]
    assert ransac._verify_all._cache_size() == before + 2


def scattered(rng: np.random.Generator, domain: Domain) -> LocalFeatures:
    """80 features at random in the box of a domain, in a photo of 4000 x 3000 pixels; descriptors pair at random."""
    size = np.array([domain.x1 - domain.x0, domain.y1 - domain.y0])
    return LocalFeatures(
        keypoints=(rng.uniform(size=(80, 2)) * size + domain[:2]).astype("f"),
        scales=(2 ** rng.uniform(-1, 1, 80) / domain.pixel).astype("f"),
        scores=np.ones(80, "f"),
        descriptors=np.eye(80, 128, dtype="f")[rng.permutation(80)],
        image_size=(3000, 4000),
        domain=domain,
    )


def test_random_matches_of_a_part_of_a_photo_are_refused() -> None:
    rng = np.random.default_rng(0)
    part, whole = Domain(1500, 1000, 2000, 1500, 500 * 500, 1), Domain.whole((3000, 4000), 1024)
    for query, photo in ((part, whole), (whole, part), (part, part)):
        candidates = [("", 0.0, scattered(rng, photo)) for _ in range(9)]
        settings = VerificationSettings(photos_verified=1)
        found = verify_candidates(scattered(rng, query), candidates, settings)
        assert min(match.log10_nfa for match in found) > -1
    # Judged by the whole photo, its matches would lie within 78 pixels of an affine transform into 500.
    query = dataclasses.replace(scattered(rng, part), domain=None)
    found = verify_candidates(query, candidates, VerificationSettings(photos_verified=1, max_side=1024))
    assert min(match.log10_nfa for match in found) < -2


def test_what_the_features_know_of_their_domain_counts(photos: dict[str, LocalFeatures]) -> None:
    def seen(features: LocalFeatures, area: float, pixel: float = 1.0) -> LocalFeatures:
        whole = Domain.whole(features.image_size, 10_000)
        return dataclasses.replace(features, domain=whole._replace(area=area * whole.area, pixel=pixel))

    query, photo = photos["leuvenB"], photos["leuvenA"]
    found = retrieval.match(query, photo)
    assert retrieval.match(seen(query, 1), seen(photo, 1)).log10_nfa == found.log10_nfa
    # p is twice as large for each inlier beyond the sample of three that counts at the best radius.
    half = retrieval.match(seen(query, 0.5), seen(photo, 0.5))
    assert half.inliers == found.inliers
    assert 3 * math.log10(2) < half.log10_nfa - found.log10_nfa < math.log10(2) * (found.inliers - 3)
    # The size at which they were looked at is as if it were handed over.
    reduced = retrieval.match(query, photo, max_side=375)
    known = (seen(features, 1, max(features.image_size) / 375) for features in (query, photo))
    assert retrieval.match(*known, max_side=99).log10_nfa == reduced.log10_nfa


def test_photos_without_features_do_not_match(photos: dict[str, LocalFeatures]) -> None:
    nothing = LocalFeatures.empty((480, 640), 128)
    for pair in ((nothing, photos["box"]), (photos["box"], nothing), (nothing, nothing)):
        found = retrieval.match(*pair)
        assert (found.putative, found.inliers, found.accepted) == (0, 0, False)
