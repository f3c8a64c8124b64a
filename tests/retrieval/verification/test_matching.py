"""Putative matches against a plain double loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval.verification.matching import mutual_nearest


def unit(rng, n, d=16):
    rows = rng.normal(size=(n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_hand(a, b, where_a, where_b, max_distance, ratio):
    distance = np.linalg.norm(a[:, None].astype(float) - b[None].astype(float), axis=2)
    distance[~where_a], distance[:, ~where_b] = np.inf, np.inf
    pairs = {}
    for i in np.flatnonzero(where_a):
        j = int(np.argmin(distance[i]))
        rivals = np.delete(distance[i], j)
        if distance[i, j] > max_distance or int(np.argmin(distance[:, j])) != i:
            continue
        if distance[i, j] < ratio * rivals.min(initial=np.inf):
            pairs[int(i)] = j
    return pairs


@pytest.mark.parametrize(("max_distance", "ratio"), [(None, None), (0.9, None), (None, 0.8), (0.8, 0.9)])
def test_agrees_with_a_double_loop(max_distance, ratio):
    rng = np.random.default_rng(0)
    a = unit(rng, 40)
    b = np.concatenate([a[:25] + 0.15 * rng.normal(size=(25, 16)), unit(rng, 30)]).astype(np.float32)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    where_a, where_b = rng.random(40) < 0.8, rng.random(55) < 0.8
    matches = mutual_nearest(a, b, where_a=where_a, where_b=where_b, max_distance=max_distance, ratio=ratio)
    expected = by_hand(a, b, where_a, where_b, max_distance or np.inf, ratio or np.inf)
    assert 5 < len(expected) < 40
    assert {i: int(matches.index[i]) for i in np.flatnonzero(matches.where)} == expected
    kept = np.flatnonzero(matches.where)
    np.testing.assert_allclose(
        matches.distance[kept], np.linalg.norm(a[kept] - b[np.asarray(matches.index)[kept]], axis=1), atol=1e-5
    )
    assert np.isinf(np.asarray(matches.distance)[~np.asarray(matches.where)]).all()


def test_each_partner_is_used_once():
    rng = np.random.default_rng(1)
    a = unit(rng, 50)
    matches = mutual_nearest(a, np.repeat(a[:10], 3, axis=0))
    used = np.asarray(matches.index)[np.asarray(matches.where)]
    assert len(set(used.tolist())) == len(used) == 10


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_descriptor_that_is_not_finite_hides_no_other(value):
    rng = np.random.default_rng(3)
    a = unit(rng, 6)
    spoilt = a.copy()
    spoilt[2, 5] = value
    expected = [True, True, False, True, True, True]
    for first, second in ((spoilt, a), (a, spoilt), (spoilt, spoilt)):
        matches = mutual_nearest(first, second, ratio=0.99)
        assert matches.where.tolist() == expected
        assert matches.index.tolist() == [0, 1, 0, 3, 4, 5]


def test_masked_and_empty_rows_never_match():
    rng = np.random.default_rng(2)
    a = unit(rng, 6)
    assert not mutual_nearest(a, a, where_a=np.zeros(6, bool)).where.any()
    assert not mutual_nearest(a, a, where_b=np.zeros(6, bool), ratio=0.8).where.any()
    assert not mutual_nearest(a, a[:0]).where.any()
    assert mutual_nearest(a[:0], a).index.shape == (0,)
    assert mutual_nearest(a[:1], a[:1], ratio=0.8).where.all()


def test_batch_under_jit_and_vmap_equals_single():
    rng = np.random.default_rng(3)
    a, b = np.stack([unit(rng, 20) for _ in range(4)]), np.stack([unit(rng, 30) for _ in range(4)])
    where = rng.random((4, 30)) < 0.7
    batch = jax.jit(jax.vmap(lambda a, b, w: mutual_nearest(a, b, where_b=w, ratio=0.95)))(a, b, where)
    for i in range(4):
        single = mutual_nearest(jnp.asarray(a[i]), jnp.asarray(b[i]), where_b=jnp.asarray(where[i]), ratio=0.95)
        np.testing.assert_array_equal(batch.index[i], single.index)
        np.testing.assert_array_equal(batch.where[i], single.where)
