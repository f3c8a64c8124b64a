"""The closed form and the sums it comes from."""

import functools
import operator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from delf_jax.errors import PredictorError
from localization.foreground.statistics import Statistics, position_sums


def positions(seed: int, shape: tuple[int, ...] = (5, 6, 24), objects: float = 0.3) -> np.ndarray:
    """Non-negative features whose foreground positions are longer and point elsewhere."""
    rng = np.random.default_rng(seed)
    front = rng.random(shape[:-1]) < objects
    f = np.abs(rng.normal(size=shape))
    f[..., : shape[-1] // 3] *= np.where(front, 4.0, 0.5)[..., None]
    f[..., shape[-1] // 3 :] *= np.where(front, 0.5, 1.0)[..., None]
    return f.astype(np.float32)


def fitted(maps: list[np.ndarray], **options: object) -> Statistics:
    return functools.reduce(operator.add, (Statistics.of_photo(dense, **options) for dense in maps))


MAPS = [positions(seed, (3 + seed % 4, 7, 24)) for seed in range(9)]
ALL = np.concatenate([m.reshape(-1, 24) for m in MAPS]).astype(np.float64)
NORMS = np.linalg.norm(ALL, axis=1)
UNITS = ALL / NORMS[:, None]
V, U = ALL.mean(0), UNITS.mean(0)
TAU = np.linalg.norm(V) / np.linalg.norm(U)
W = (V - TAU * U) / np.linalg.norm(V - TAU * U)


def test_equals_the_single_pass() -> None:
    solution = fitted(MAPS).solve()
    np.testing.assert_allclose(solution.w, W, atol=1e-6)
    assert solution.tau == pytest.approx(TAU, rel=1e-6)
    assert solution.count == len(ALL)
    assert solution.scale == pytest.approx(np.linalg.norm(V - TAU * U), rel=1e-5)


def test_shards_merge_and_photos_are_forgotten() -> None:
    whole = fitted(MAPS).solve()
    merged = fitted(MAPS[:4]) + fitted(MAPS[4:])
    np.testing.assert_allclose(merged.solve().w, whole.w, atol=1e-12)
    without = merged - fitted(MAPS[4:6])
    np.testing.assert_allclose(without.solve().w, fitted(MAPS[:4] + MAPS[6:]).solve().w, atol=1e-10)
    assert without.photos == 7
    assert (without.norm_histogram == fitted(MAPS[:4] + MAPS[6:]).norm_histogram).all()
    with pytest.raises(PredictorError, match="do not hold"):
        fitted(MAPS[:1]) - fitted(MAPS[1:3])


def test_identities() -> None:
    solution = fitted(MAPS).solve()
    w = solution.w
    importance = solution.importance(NORMS)
    share = (1 - solution.tau / NORMS) / (solution.count * solution.scale)
    np.testing.assert_allclose(share @ ALL, w, atol=1e-6)  # I1
    np.testing.assert_allclose(importance @ UNITS, w, atol=1e-6)  # I2
    assert np.array_equal(importance > 0, NORMS > solution.tau)
    v_hat, u_hat = V / np.linalg.norm(V), U / np.linalg.norm(U)
    np.testing.assert_allclose((v_hat - u_hat) / np.linalg.norm(v_hat - u_hat), w, atol=1e-6)  # I3
    assert abs(w @ (v_hat + u_hat)) < 1e-6  # I4
    covariance = ((NORMS - NORMS.mean())[:, None] * (UNITS - U)).mean(0)
    np.testing.assert_allclose(covariance + (NORMS.mean() - TAU) * U, V - TAU * U, atol=1e-10)  # I5
    test_unit = positions(99).reshape(-1, 24).astype(np.float64)
    test_unit /= np.linalg.norm(test_unit, axis=1, keepdims=True)
    values = importance[:, None] * (UNITS @ test_unit.T)
    np.testing.assert_allclose(values.sum(0), test_unit @ w, atol=1e-6)  # representer values sum to the map


def test_masked_positions_do_not_count() -> None:
    dense = MAPS[0].copy()
    where = np.ones(dense.shape[:2], bool)
    where[-1] = False
    dense[-1] = np.nan
    masked, cut = Statistics.of_photo(dense, where=where), Statistics.of_photo(MAPS[0][:-1])
    np.testing.assert_allclose(masked.total.feature, cut.total.feature, rtol=1e-6)
    assert masked.total.count == cut.total.count
    assert (masked.norm_histogram == cut.norm_histogram).all()


def test_batches_equal_single_photos() -> None:
    stack = np.stack([MAPS[0], MAPS[4], MAPS[8]])
    where = np.ones(stack.shape[:3], bool)
    where[1, 1:] = False
    sums = position_sums(stack, where)
    for i in range(3):
        one = Statistics.of_photo(stack[i], where=where[i])
        np.testing.assert_allclose(sums.unit[i], one.total.unit, rtol=1e-5)
        np.testing.assert_allclose(sums.feature[i], one.total.feature, rtol=1e-5)
        assert int(sums.positions[i]) == one.total.count


def test_classes_are_fitted_apart() -> None:
    statistics = fitted(MAPS[:4], label="a") + fitted(MAPS[4:], label="b")
    np.testing.assert_allclose(statistics.solve(label="b").w, fitted(MAPS[4:]).solve().w, atol=1e-12)
    np.testing.assert_allclose(statistics.solve().w, W, atol=1e-6)
    assert list((statistics - fitted(MAPS[:4], label="a")).classes) == ["b"]
    with pytest.raises(PredictorError, match="do not hold"):
        statistics - (fitted(MAPS[:4], label="b") + fitted(MAPS[4:], label="a"))
    with pytest.raises(PredictorError, match="'c' was not fitted"):
        statistics.solve(label="c")


def test_constant_norms_are_refused() -> None:
    dense = MAPS[0] / np.linalg.norm(MAPS[0], axis=-1, keepdims=True) * 7
    with pytest.raises(PredictorError, match="norms hardly vary"):
        Statistics.of_photo(dense).solve()
    assert Statistics.of_photo(dense).diagnostics().norm_spread < 1e-3


def test_diagnostics() -> None:
    diagnostics = fitted(MAPS).diagnostics()
    v_hat, u_hat = V / np.linalg.norm(V), U / np.linalg.norm(U)
    assert diagnostics.angle_degrees == pytest.approx(np.degrees(np.arccos(v_hat @ u_hat)), rel=1e-5)
    assert diagnostics.positive_share == pytest.approx((NORMS > TAU).mean(), abs=0.03)
    assert diagnostics.norm_spread == pytest.approx(NORMS.std() / NORMS.mean(), rel=1e-4)
    assert fitted(MAPS).norm_quantile(0.9) == pytest.approx(np.quantile(NORMS, 0.9), rel=0.06)


def test_norm_clipping_shortens_features() -> None:
    cap = float(np.quantile(NORMS, 0.8))
    clipped = ALL * np.minimum(1, cap / NORMS)[:, None]
    statistics = fitted(MAPS, norm_cap=cap)
    np.testing.assert_allclose(statistics.total.feature, clipped.sum(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.total.unit, UNITS.sum(0), rtol=1e-6)
    with pytest.raises(PredictorError, match="norm caps differ"):
        statistics + fitted(MAPS)


def test_half_precision_sums_would_be_wrong_and_ours_are_not() -> None:
    """Features in bfloat16 are widened before they are summed: means in bfloat16 turn w* by degrees."""
    rng = np.random.default_rng(0)
    dense = (50 + rng.normal(size=(64, 64, 24))).astype(np.float32)
    dense[:32, :, :12] *= 1.05
    narrow = jnp.asarray(dense, jnp.bfloat16)
    wide = np.asarray(narrow, np.float64)
    sums = position_sums(narrow, np.ones((64, 64), bool))
    np.testing.assert_allclose(sums.feature, wide.sum((0, 1)), rtol=1e-5)


def test_different_encoders_do_not_mix() -> None:
    with pytest.raises(PredictorError, match="different encoders"):
        Statistics.of_photo(MAPS[0], encoder={"layer": 4}) + Statistics.of_photo(MAPS[0], encoder={"layer": 5})
    with pytest.raises(PredictorError, match="24 and 12 channels"):
        Statistics.of_photo(MAPS[0]) + Statistics.of_photo(MAPS[0][..., :12])
    with pytest.raises(PredictorError, match="NaN"):
        Statistics.of_photo(MAPS[0] * np.nan)
    with pytest.raises(PredictorError, match="no positions"):
        (fitted(MAPS) - fitted(MAPS)).solve()


def test_saved_and_opened(tmp_path: Path) -> None:
    statistics = fitted(MAPS[:4], label="a") + fitted(MAPS[4:], label="b")
    statistics.save(tmp_path / "s.safetensors")
    opened = Statistics.open(tmp_path / "s.safetensors")
    assert opened.photos == 9
    np.testing.assert_array_equal(opened.total.feature, statistics.total.feature)
    np.testing.assert_array_equal(opened.solve(label="a").w, statistics.solve(label="a").w)
    np.testing.assert_array_equal((opened + statistics).norm_histogram, 2 * statistics.norm_histogram)
