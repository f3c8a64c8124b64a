"""RANSAC: planted truth, a real pair of photos, a peer, degenerate input, false alarms.

Tests share one shape, so that each model is compiled once: compiling takes many seconds, verifying milliseconds. Tests
that need other programs draw few trials, whose programs are compiled in a third of the time.
"""

import functools
import re
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from retrieval.verification.confidence import NfaSettings
from retrieval.verification.ransac import Verification, estimate
from tests.retrieval import planted

PAIRS, MATCHES = 100, 128
EVERY = np.ones((PAIRS, MATCHES), bool)
SIZE = NfaSettings((planted.HEIGHT, planted.WIDTH))
FEW = 64


def verify(truth: planted.Planted, *, seed: int = 0, mask: np.ndarray = EVERY, **options) -> Verification:
    options = {"model": "affine", "threshold": 10.0, "nfa": SIZE} | options
    return jax.tree.map(
        np.asarray, Verification(*estimate(truth.src, truth.dst, mask, key=jax.random.key(seed), **options))
    )


def error(found: Verification, truth: planted.Planted) -> np.ndarray:
    """Mean distance in pixels between the true matches under the planted and the found transform, one a pair."""
    apart = np.linalg.norm(
        planted.apply(found.transform, truth.src) - planted.apply(truth.transform, truth.src), axis=-1
    )
    return (apart * truth.true).sum(1) / truth.true.sum(1)


@pytest.mark.parametrize(
    ("model", "outliers", "success"),
    [
        ("similarity", 0.1, 1.0),
        ("similarity", 0.5, 1.0),
        ("similarity", 0.9, 0.9),
        ("affine", 0.1, 1.0),
        ("affine", 0.5, 1.0),
        ("affine", 0.9, 0.95),
        ("homography", 0.1, 1.0),
        ("homography", 0.5, 1.0),
        ("homography", 0.8, 0.95),
    ],
)
def test_planted_transforms_are_recovered(model, outliers, success):
    truth = planted.planar(model, pairs=PAIRS, matches=MATCHES, outliers=outliers)
    found = verify(truth, model=model)
    right = error(found, truth) < 3
    assert right.mean() >= success
    assert (found.inliers & truth.true).sum(1)[right].mean() >= 0.97 * truth.true.sum(1).mean()
    assert (found.log10_nfa[right] < -1).mean() > 0.95
    np.testing.assert_array_equal(found.count, found.inliers.sum(1))


@pytest.mark.parametrize(("outliers", "recall"), [(0.1, 0.99), (0.4, 0.97)])
def test_planted_epipolar_geometry_is_recovered(outliers, recall):
    truth = planted.two_views(pairs=PAIRS, matches=MATCHES, outliers=outliers)
    found = verify(truth, model="fundamental", threshold=3.0)
    assert (found.inliers & truth.true).sum() >= recall * truth.true.sum()
    # An outlier lies within 3 px of a line about once in a hundred times.
    assert (found.inliers & ~truth.true).sum() <= 0.05 * found.inliers.sum()
    assert (found.log10_nfa < -1).mean() > 0.95
    homogeneous = [np.concatenate([p, np.ones((*p.shape[:2], 1))], -1) for p in (truth.src, truth.dst)]
    lines = homogeneous[0] @ np.swapaxes(found.transform.astype(float), 1, 2)
    distance = np.abs((lines * homogeneous[1]).sum(-1)) / np.linalg.norm(lines[..., :2], axis=-1)
    assert distance[found.inliers].max() < 3.05


def test_single_correspondences_find_what_few_samples_cannot():
    truth = planted.planar("affine", pairs=PAIRS, matches=MATCHES, outliers=0.8, turn=0.2)
    scales = truth.src_scales, truth.dst_scales
    # A scale of 0 is not known, nor one that is no number.
    blind = verify(truth, trials=2, scales=(scales[0] * 0, scales[1]))
    for no_number in (np.nan, np.inf):
        again = verify(truth, trials=2, scales=(scales[0], np.full_like(scales[1], no_number)))
        np.testing.assert_array_equal(again.inliers, blind.inliers)
    seeing = verify(truth, trials=2, scales=scales)
    assert (error(blind, truth) < 3).mean() < 0.4
    assert (error(seeing, truth) < 3).mean() > 0.8
    # Single correspondences are not random, so with two samples the seed does not matter.
    other = verify(truth, trials=2, seed=1, scales=scales)
    same = (seeing.inliers == other.inliers).all(1)
    assert same[error(seeing, truth) < 3].mean() > 0.95


def test_same_key_same_result_and_candidates_do_not_meet():
    truth = planted.planar("affine", pairs=PAIRS, matches=MATCHES, outliers=0.7)
    found, again = verify(truth), verify(truth)
    for a, b in zip(found, again):
        np.testing.assert_array_equal(a, b)
    turned = verify(planted.Planted(*(field[::-1] for field in truth)))
    np.testing.assert_array_equal(turned.inliers[::-1], found.inliers)
    np.testing.assert_allclose(turned.transform[::-1], found.transform, rtol=1e-4, atol=1e-3)


def test_accelerators_which_verify_all_candidates_together_find_the_same(monkeypatch: pytest.MonkeyPatch):
    truth = planted.planar("similarity", pairs=PAIRS, matches=MATCHES, outliers=0.85)
    one_by_one = verify(truth, model="similarity")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    together = verify(truth, model="similarity")
    np.testing.assert_array_equal(together.inliers, one_by_one.inliers)
    np.testing.assert_allclose(together.transform, one_by_one.transform, rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(together.log10_nfa, one_by_one.log10_nfa, atol=0.01)


def test_padding_never_counts():
    truth = planted.planar("affine", pairs=PAIRS, matches=MATCHES - 14, outliers=0.6)
    # Padding between the rows and behind them, of numbers that would ruin any sum and of consistent false matches.
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(MATCHES)[: MATCHES - 14])
    mask = np.zeros((PAIRS, MATCHES), bool)
    mask[:, rows] = True

    def scatter(values, filling):
        padded = np.broadcast_to(filling, (PAIRS, MATCHES, *values.shape[2:])).copy()
        padded[:, rows] = values
        return padded.astype("f")

    results = []
    for filling in (np.zeros(2), np.array([1e6, -1e6]), rng.uniform(0, 700, (PAIRS, MATCHES, 2))):
        fields = {"src": scatter(truth.src, filling), "dst": scatter(truth.dst, filling)}
        results.append(verify(truth._replace(**fields), mask=mask))
    behind = truth._replace(
        src=np.pad(truth.src, [(0, 0), (0, 14), (0, 0)]), dst=np.pad(truth.dst, [(0, 0), (0, 14), (0, 0)])
    )
    last = verify(behind, mask=np.broadcast_to(np.arange(MATCHES) < MATCHES - 14, mask.shape))
    for found in results:
        assert not found.inliers[~mask].any()
        np.testing.assert_array_equal(found.inliers[:, rows], last.inliers[:, : MATCHES - 14])
        # Sums in another order may settle a tie between refined transforms differently, by hundredths of a pixel.
        np.testing.assert_allclose(found.transform, last.transform, rtol=1e-3, atol=0.1)
        np.testing.assert_allclose(found.log10_nfa, last.log10_nfa, atol=2)


@pytest.mark.parametrize("model", ["similarity", "affine", "homography", "fundamental"])
def test_matches_without_a_place_do_not_silence_the_others(model):
    plant = planted.two_views if model == "fundamental" else functools.partial(planted.planar, model)
    truth = plant(pairs=PAIRS, matches=MATCHES, outliers=0.4)
    src, dst, mask = truth.src.copy(), truth.dst.copy(), EVERY.copy()
    mask[:, :4] = False
    src[:, 0, 0], dst[:, 1, 1], src[:, 2], dst[:, 3, 0] = np.nan, np.inf, -np.inf, 1e30
    expected = verify(truth, model=model, mask=mask)
    assert expected.count.min() > 20
    for given, found in zip(expected, verify(truth._replace(src=src, dst=dst), model=model)):
        np.testing.assert_array_equal(found, given)


def test_runs_under_jit_and_vmap_and_alone():
    truth = planted.planar("affine", pairs=PAIRS, matches=MATCHES, outliers=0.5)

    def one(src, dst, where, threshold):
        nfa = SIZE._replace(photos_verified=PAIRS)
        return estimate(src, dst, where, key=jax.random.key(0), threshold=threshold, trials=FEW, nfa=nfa)

    batch = verify(truth, trials=FEW)
    # Two leading axes, one of them by vmap.
    pairs = truth.src.reshape(-1, 2, MATCHES, 2), truth.dst.reshape(-1, 2, MATCHES, 2)
    mapped = jax.jit(jax.vmap(one))(*pairs, EVERY.reshape(-1, 2, MATCHES), np.full(PAIRS // 2, 10, "f"))
    assert mapped.transform.shape == (PAIRS // 2, 2, 3, 3)
    mapped = jax.tree.map(lambda x: x.reshape(PAIRS, *x.shape[2:]), mapped)
    single = one(truth.src[1], truth.dst[1], EVERY[1], 10.0)
    for found, same in ((mapped, batch), (single, jax.tree.map(lambda x: x[1], batch))):
        # The programs round differently, which may move a match across the threshold.
        assert (found.inliers != same.inliers).mean() < 1e-3
        np.testing.assert_allclose(found.transform, same.transform, rtol=1e-3, atol=0.1)
        np.testing.assert_allclose(found.log10_nfa, same.log10_nfa, atol=2)
    assert single.transform.shape == (3, 3)
    assert single.count.shape == single.log10_nfa.shape == ()
    assert single.count.dtype == jnp.int32


@pytest.mark.parametrize("model", ["similarity", "affine", "homography", "fundamental"])
def test_degenerate_matches_prove_nothing(model):
    rng = np.random.default_rng(0)
    src = rng.uniform(0, 700, (PAIRS, MATCHES, 2)).astype("f")
    dst = rng.uniform(0, 700, (PAIRS, MATCHES, 2)).astype("f")
    mask = EVERY.copy()
    src[0] = dst[0] = 100  # one point
    src[1] = 100  # from one point
    dst[2] = 100  # onto one point
    mask[3] = False
    for few in range(4):
        mask[4 + few, few:] = False
    mask[8, 4:] = False
    line = rng.uniform(0, 700, (MATCHES, 1))
    src[9] = dst[9] = line * [1, 0.5]
    dst[10] = src[10] * [1, 0.05]  # flattened
    src[11], mask[11] = src[11] * 0 + np.arange(MATCHES)[:, None] % 2, EVERY[11]  # two points
    dst[11] = src[11]
    dst[12] = src[12] * [-1, 1] + [700, 0]  # mirrored
    src[13] = dst[13] = src[9] + rng.normal(scale=5, size=(MATCHES, 2))  # a line, up to noise below one cell of 32
    dst[14], mask[14] = np.nan, EVERY[14]
    found = verify(planted.Planted(src, dst, EVERY, src, mask, mask), model=model, mask=mask)
    for field in found:
        assert np.isfinite(field).all()
    nothing = [0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 14]
    nothing += ([7] if model != "similarity" else []) + ([8] if model == "homography" else [])
    assert not found.count[nothing].any()
    assert not found.inliers[nothing].any()
    np.testing.assert_array_equal(found.transform[nothing], np.broadcast_to(np.eye(3), (len(nothing), 3, 3)))
    assert (found.log10_nfa[nothing] >= 0).all()
    if model != "fundamental":
        # A reflection or a flattening is not a view of the same surface, however many matches say so.
        assert (found.count[[10, 12]] < MATCHES // 3).all()


def test_random_matches_are_rarely_significant():
    rng = np.random.default_rng(0)
    significant, values = 0, []
    for seed in range(5):
        src, dst = (rng.uniform(0, 1, (PAIRS, MATCHES, 2)).astype("f") * [1024, 768] for _ in range(2))
        # Half of the photos have their features in a few places, each matched several times.
        crowd = src[PAIRS // 2 :, rng.integers(0, 12, MATCHES)]
        src[PAIRS // 2 :] = crowd + rng.uniform(-8, 8, crowd.shape)
        truth = planted.Planted(src.astype("f"), dst.astype("f"), EVERY, src, EVERY, EVERY)
        values.append(verify(truth, seed=seed, nfa=SIZE._replace(photos_verified=1), threshold=20.0).log10_nfa)
        significant += (values[-1] < -1).sum()
    assert significant <= 0.1 * 5 * PAIRS
    assert np.median(values) > 0


@pytest.mark.parametrize("model", ["similarity", "affine", "homography", "fundamental"])
def test_random_matches_in_domains_of_many_shapes_are_as_rare_as_they_say(model):
    rng = np.random.default_rng(0)
    sides = rng.uniform(60, 1000, (2, PAIRS, 1, 2))  # from strips and crops to whole photos
    radius = np.sqrt(rng.uniform(rng.choice([0, 0.8], (2, PAIRS, 1)), 1, (2, PAIRS, MATCHES)))  # discs and rings
    turn = rng.uniform(0, 2 * np.pi, radius.shape)
    places = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=-1)
    round_one = rng.random((2, PAIRS)) < 0.5
    places = np.where(round_one[..., None, None], places, rng.uniform(-1, 1, places.shape))
    src, dst = (places * sides / 2).astype("f")
    ring = radius.min(axis=2) ** 2 > 0.79
    share = np.where(round_one, np.where(ring, 0.2, 1) * np.pi / 4, 1)[1]
    size = sides[1, :, 0, ::-1]
    nfa = NfaSettings(size.astype("f"), 1, 16.0, (share * size.prod(axis=1)).astype("f"))
    truth = planted.Planted(src, dst, EVERY, src, EVERY, EVERY)
    values = np.concatenate(
        [verify(truth, seed=seed, model=model, nfa=nfa, threshold=20.0).log10_nfa for seed in (0, 1)]
    )
    # Of 200, 20 and 2 are expected at most; more than these come once in 10 000 times.
    assert (values <= -1).sum() <= 37
    assert (values <= -2).sum() <= 9


def test_confidence_counts_the_photos_and_guesses_an_unknown_size():
    truth = planted.planar("affine", pairs=PAIRS, matches=MATCHES, outliers=0.5)
    hundred = verify(truth, trials=FEW).log10_nfa
    one = verify(truth, trials=FEW, nfa=SIZE._replace(photos_verified=1)).log10_nfa
    np.testing.assert_allclose(hundred - one, 2, atol=1e-2)
    box = (truth.dst.max(axis=1) - truth.dst.min(axis=1))[:, ::-1]
    guessed, given = (verify(truth, trials=FEW, nfa=NfaSettings(size)).log10_nfa for size in (None, box))
    np.testing.assert_array_equal(guessed, given)


def test_inlier_count_agrees_with_scikit_image():
    measure = pytest.importorskip("skimage.measure")
    transform = pytest.importorskip("skimage.transform")
    truth = planted.planar("affine", pairs=PAIRS, matches=MATCHES, outliers=0.4, seed=3)
    some = range(0, PAIRS, 5)
    ours = verify(truth).count[some]
    theirs = [
        measure.ransac(
            (truth.src[i], truth.dst[i]),
            transform.AffineTransform,
            min_samples=3,
            residual_threshold=10,
            max_trials=150,
            rng=i,
        )[1].sum()
        for i in some
    ]
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.02)


def test_graffiti_homography(demo_photos: Path):
    numbers = re.search(r"<data>(.*?)</data>", (demo_photos / "H1to3p.xml").read_text(), re.DOTALL)
    expected = np.array(numbers[1].split(), float).reshape(3, 3)
    first, third = (cv2.imread(str(demo_photos / name), cv2.IMREAD_GRAYSCALE) for name in ("graf1.jpg", "graf3.jpg"))
    sift = cv2.SIFT_create()
    (a, a_rows), (b, b_rows) = (sift.detectAndCompute(photo, None) for photo in (first, third))
    pairs = [x for x, y in cv2.BFMatcher().knnMatch(a_rows, b_rows, k=2) if x.distance < 0.8 * y.distance]
    pairs = sorted(pairs, key=lambda pair: pair.distance)[:MATCHES]
    src, dst = np.zeros((2, PAIRS, MATCHES, 2), "f")
    mask = np.broadcast_to(np.arange(MATCHES) < len(pairs), EVERY.shape)
    src[:, : len(pairs)] = [a[x.queryIdx].pt for x in pairs]
    dst[:, : len(pairs)] = [b[x.trainIdx].pt for x in pairs]
    height, width = first.shape
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1.0]])
    truth = planted.Planted(src, dst, EVERY, src, EVERY, EVERY)
    for seed in range(3):
        found = verify(truth, seed=seed, mask=mask, model="homography", threshold=5.0, nfa=NfaSettings(third.shape))
        apart = planted.apply(found.transform[0], corners) - planted.apply(expected, corners)
        assert np.linalg.norm(apart, axis=1).mean() < 5
        assert found.log10_nfa[0] < -50


def test_no_candidates_and_no_matches():
    key = jax.random.key(0)
    none = estimate(np.zeros((0, 5, 2)), np.zeros((0, 5, 2)), np.zeros((0, 5), bool), key=key)
    assert none.transform.shape == (0, 3, 3)
    assert none.inliers.shape == (0, 5)
    empty = jax.eval_shape(
        lambda: estimate(np.zeros((2, 0, 2)), np.zeros((2, 0, 2)), np.zeros((2, 0), bool), key=key, trials=2)
    )
    assert (empty.inliers.shape, empty.count.shape) == ((2, 0), (2,))


def test_wrong_arguments_are_named():
    points, mask, key = np.zeros((2, 9, 2)), np.zeros((2, 9), bool), jax.random.key(0)
    # Under pytest the annotations are checked first.
    with pytest.raises((ValueError, TypeCheckError), match="homography"):
        estimate(points, points, mask, key=key, model="afine")
    with pytest.raises((ValueError, TypeCheckError), match=r"2, ?8"):
        estimate(points, points, mask[:, :8], key=key)
