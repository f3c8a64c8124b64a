"""Copies and other views, by planted matches."""

import numpy as np
import pytest

from delf_jax.features import Domain, LocalFeatures
from retrieval.grouping.copies import is_copy
from retrieval.verification.verify import Match

SIZE = (600, 800)
WHOLE = Domain.whole(SIZE, 1024)


def photo(keypoints: np.ndarray) -> LocalFeatures:
    ones = np.ones(len(keypoints), np.float32)
    return LocalFeatures(keypoints.astype(np.float32), ones, ones, np.eye(len(keypoints), dtype="f"), SIZE)


@pytest.mark.parametrize(
    ("linear", "noise", "inliers", "matches", "features", "expected"),
    [
        ([[1, 0], [0, 1]], 1, 50, 50, 100, True),
        ([[0.5, 0], [0, 0.5]], 1, 50, 50, 100, True),
        ([[0.7, 0.05], [0, 0.7]], 1, 50, 50, 100, True),
        ([[0.7, 0.07], [0, 0.7]], 1, 50, 50, 100, False),  # 0.07 / 0.7 is more than 0.08
        ([[0.98, -0.17], [0.17, 0.98]], 1, 50, 50, 100, False),  # turned by ten degrees
        ([[1, 0], [0, 0.8]], 1, 50, 50, 100, False),
        ([[1, 0], [0, -1]], 1, 50, 50, 100, False),
        ([[1, 0], [0, 1]], 12, 50, 50, 100, False),
        ([[1, 0], [0, 1]], 1, 50, 62, 100, True),
        ([[1, 0], [0, 1]], 1, 50, 63, 100, False),  # fewer than four of five matches
        ([[1, 0], [0, 1]], 1, 50, 50, 111, True),
        ([[1, 0], [0, 1]], 1, 50, 50, 112, False),  # 0.45 of 112 is more than 50
    ],
)
def test_copies(
    linear: list[list[float]], noise: float, inliers: int, matches: int, features: int, expected: bool
) -> None:
    rng = np.random.default_rng(0)
    src = rng.uniform(250, 350, (features, 2))
    shift = np.array([300, 300]) - np.array(linear) @ [300, 300]
    dst = src @ np.transpose(linear) + shift
    errors = noise * np.array([[1.0, 0.0]])
    transform = np.eye(3)
    transform[:2, :2], transform[:2, 2] = linear, shift
    found = Match(
        image="b",
        score=0.0,
        putative=matches,
        inliers=inliers,
        model="affine",
        transform=transform,
        log10_nfa=-50.0,
        threshold=-2.0,
        accepted=True,
        query_points=src[:matches].astype("f"),
        points=(dst + errors)[:matches].astype("f"),
        is_inlier=np.arange(matches) < inliers,
        rows=np.zeros((matches, 2), np.int32),
    )
    assert is_copy(photo(src), photo(dst), found, domains=(WHOLE, WHOLE)) == expected


def test_only_features_that_both_photos_can_show_count() -> None:
    # Half of the photo was cut off; its features have no partners.
    src = np.random.default_rng(1).uniform(0, 400, (80, 2))
    elsewhere = src + np.array([400, 0])
    half = Domain(0.0, 0.0, 400.0, 400.0, 160000.0, 1.0)
    found = Match(
        "b", 0.0, 60, 60, "affine", np.eye(3), -50.0, -2.0, True,
        src[:60].astype("f"), src[:60].astype("f"), np.ones(60, bool), np.zeros((60, 2), np.int32),
    )  # fmt: skip
    a, b = photo(np.concatenate([src, elsewhere])), photo(src)
    assert is_copy(a, b, found, domains=(WHOLE, half))
    assert not is_copy(a, photo(np.concatenate([src, src])), found, domains=(WHOLE, WHOLE))
