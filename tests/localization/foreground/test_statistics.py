"""The running sums: masks, batches, classes, merging and forgetting."""

import jax.numpy as jnp
import numpy as np
import pytest

from delf_jax.errors import PredictorError
from localization.foreground.closed_form import solve
from localization.foreground.statistics import Statistics, position_sums
from tests.localization.foreground.positions import ALL, MAPS, NORMS, UNITS, W, fitted


def test_shards_merge_and_photos_are_forgotten() -> None:
    whole = solve(fitted(MAPS))
    merged = fitted(MAPS[:4]) + fitted(MAPS[4:])
    np.testing.assert_allclose(solve(merged).w, whole.w, atol=1e-12)
    without = merged - fitted(MAPS[4:6])
    np.testing.assert_allclose(solve(without).w, solve(fitted(MAPS[:4] + MAPS[6:])).w, atol=1e-10)
    assert without.photos == 7
    assert (without.norm_histogram == fitted(MAPS[:4] + MAPS[6:]).norm_histogram).all()
    with pytest.raises(PredictorError, match="do not hold"):
        fitted(MAPS[:1]) - fitted(MAPS[1:3])


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
    np.testing.assert_allclose(solve(statistics, label="b").w, solve(fitted(MAPS[4:])).w, atol=1e-12)
    np.testing.assert_allclose(solve(statistics).w, W, atol=1e-6)
    assert list((statistics - fitted(MAPS[:4], label="a")).classes) == ["b"]
    with pytest.raises(PredictorError, match="do not hold"):
        statistics - (fitted(MAPS[:4], label="b") + fitted(MAPS[4:], label="a"))
    with pytest.raises(PredictorError, match="'c' was not fitted"):
        solve(statistics, label="c")


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
        solve(fitted(MAPS) - fitted(MAPS))


def test_norm_quantile() -> None:
    assert fitted(MAPS).norm_quantile(0.9) == pytest.approx(np.quantile(NORMS, 0.9), rel=0.06)
