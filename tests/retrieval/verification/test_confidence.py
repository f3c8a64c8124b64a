"""The expected number of false alarms: by hand, under duplication, and on random matches."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval.verification import confidence
from retrieval.verification.confidence import RADII, NfaSettings, count_separate, log10_false_alarms

log10_nfa = jax.jit(confidence.log10_nfa, static_argnames="model")

SIZE = jnp.array([768.0, 1024.0])


def by_hand(k, n, m, p, photos):
    return math.log10(photos * (n - m) * math.comb(n, k) * math.comb(k, m)) + (k - m) * math.log10(p)


@pytest.mark.parametrize(
    ("k", "n", "m", "photos"), [(5, 12, 3, 1), (15, 200, 4, 100), (30, 31, 2, 7), (400, 1000, 7, 50)]
)
def test_formula_against_exact_integers(k, n, m, photos):
    p = math.pi * 20**2 / (768 * 1024)
    value = log10_false_alarms(k, n, math.log10(p), sample_size=m, photos_verified=photos)
    assert float(value) == pytest.approx(by_hand(k, n, m, p, photos), rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("area", [None, 200_000.0])
@pytest.mark.parametrize(("model", "m"), [("affine", 3), ("fundamental", 7)])
def test_best_radius_is_taken(model, m, area):
    # 12 matches in cells of their own, not on a line, residuals spread so that an inner radius wins.
    src = jnp.stack([jnp.arange(12) * 80.0, jnp.arange(12) * 5 % 12 * 60.0], axis=1)
    residuals = np.array([0.1] * 10 + [19.0, 300.0], np.float32)
    value = log10_nfa(
        src,
        src,
        jnp.ones(12, bool),
        jnp.asarray(residuals),
        model=model,
        threshold=jnp.float32(20),
        nfa=NfaSettings(SIZE, photos_verified=3, cell=jnp.array([32.0, 32.0]), target_area=area),
    )
    expected = []
    for fraction in RADII:
        r, k = 20 * fraction, int((residuals < 20 * fraction).sum())
        p = (2 * r * math.hypot(768, 1024) if model == "fundamental" else math.pi * r * r) / (area or 768 * 1024)
        expected.append(by_hand(k, 12, m, p, 3))
    assert min(expected) < expected[0] - 1
    assert float(value) == pytest.approx(min(expected), abs=1e-3)


def test_a_bare_sample_is_never_evidence():
    k, n = jnp.array([[0, 0, 2, 3, 3, 1], [0, 5, 2, 3, 50, 1]])
    values = log10_false_alarms(k, n, -3.0, sample_size=3, photos_verified=1)
    assert jnp.isfinite(values).all()
    assert (values >= 0).all()


def test_certain_chance_gives_no_evidence():
    assert float(log10_false_alarms(50, 50, 0.7, sample_size=3, photos_verified=1)) >= 0


@pytest.mark.parametrize(("width", "expected"), [(0, True), (15, True), (17, False), (300, False)])
def test_a_strip_as_wide_as_a_cell_is_a_line(width, expected):
    # Points spread evenly over a strip that leans by 3 in 4, in cells of 16 pixels.
    along, across = (part.ravel() for part in np.meshgrid(np.linspace(0, 900, 40), np.linspace(-0.5, 0.5, 60) * width))
    strip = np.stack([0.8 * along - 0.6 * across, 0.6 * along + 0.8 * across], axis=1).astype("f") + 100
    spread = np.random.default_rng(0).uniform(0, 700, strip.shape).astype("f")
    strip, spread, chosen = jnp.asarray(strip), jnp.asarray(spread), jnp.ones(len(strip), bool)
    for pair in ((strip, spread), (spread, strip), (strip, strip)):
        assert confidence.on_a_line(*pair, chosen, cell=jnp.array([16.0, 16.0])).item() is expected


def nfa_of(src, dst, residuals):
    """log10 NFA of the matches, padded to one shape so that it is compiled once."""
    n, rows = len(src), 64
    return float(
        log10_nfa(
            np.pad(src, [(0, rows - n), (0, 0)]).astype("f"),
            np.pad(dst, [(0, rows - n), (0, 0)]).astype("f"),
            np.arange(rows) < n,
            np.pad(residuals, (0, rows - n)).astype("f"),
            model="affine",
            threshold=jnp.float32(20),
            nfa=NfaSettings(SIZE, photos_verified=1, cell=jnp.array([32.0, 32.0])),
        )
    )


def test_matches_that_share_cells_are_counted_once():
    rng = np.random.default_rng(0)
    # Matches in the middle of their cells, with neither row nor column in common.
    src = 32.0 * np.stack([rng.permutation(32)[:20], rng.permutation(24)[:20]], axis=1) + 16.0
    residuals = rng.uniform(0, 15, 20)
    alone = nfa_of(src, src, residuals)
    # Copies as from other scales, before and behind: the same cells in both photos, other residuals.
    doubled, again = np.concatenate([src + 3, src, src - 4]), np.concatenate([residuals + 1, residuals, residuals + 3])
    assert nfa_of(doubled, doubled, again) == pytest.approx(alone, abs=1e-4)
    # One source feature on many targets, and many sources on one target, only add chances.
    spread = np.concatenate([src, np.repeat(src[:1], 20, axis=0)])
    target = np.concatenate([src, 32.0 * rng.integers(0, 24, (20, 2)) + 16])
    assert nfa_of(spread, target, np.concatenate([residuals, np.full(20, 5.0)])) >= alone
    assert nfa_of(target, spread, np.concatenate([residuals, np.full(20, 5.0)])) >= alone


def test_one_match_a_cell_in_both_photos():
    rng = np.random.default_rng(1)
    src, dst = (jnp.asarray(rng.uniform(0, 200, (60, 2)), jnp.float32) for _ in range(2))
    where = jnp.asarray(rng.random(60) < 0.8)
    putative, kept = count_separate(src, dst, where, jnp.asarray(rng.random(60)), cell=jnp.array([32.0, 50.0]))
    cells = [(tuple(s // 32), tuple(d // 50)) for s, d in zip(np.asarray(src), np.asarray(dst))]
    assert int(putative) == len({cells[i] for i in np.flatnonzero(where)})
    for side in range(2):
        used = [cells[i][side] for i in np.flatnonzero(kept)]
        assert len(used) == len(set(used)) > 5
    assert not (kept & ~where).any()
