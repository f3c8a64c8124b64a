"""How sure a verified match is: the expected number of false alarms (a contrario)."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import gammaln
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

# Residuals are examined at the threshold and at these fractions of it; with 20 px, down to 2.5 px.
RADII = (1.0, 0.707, 0.5, 0.354, 0.25, 0.177, 0.125)
# The cell of a match that does not count.
NOWHERE = -(2**31)
# Matches compared with all others at once.
BLOCK = 8


def log10_false_alarms(
    inliers: ArrayLike, putative: ArrayLike, log10_p: ArrayLike, *, sample_size: int, photos_verified: ArrayLike
) -> Float[Array, "..."]:
    """log10 of the expected number of models that explain as many matches by chance.

    log10(N (n - m) C(n, k) C(k, m)) + (k - m) log10(p), with k = ``inliers`` among n = ``putative`` matches,
    m = ``sample_size``, N = ``photos_verified`` and p the chance that a random match is an inlier; arguments broadcast.
    A model that explains nothing beyond its own sample has as many false alarms as there are tests: k counts as at
    least m and n - m as at least 1, so the value is finite and not below 0. Source: Moisan and Stival, IJCV 2004.
    """
    m = float(sample_size)
    k = jnp.maximum(jnp.asarray(inliers, jnp.float32), m)
    n = jnp.maximum(jnp.asarray(putative, jnp.float32), k)
    tests = jnp.log10(jnp.asarray(photos_verified, jnp.float32)) + jnp.log10(jnp.maximum(n - m, 1.0))
    return tests + _log10_choose(n, k) + _log10_choose(k, jnp.asarray(m)) + (k - m) * jnp.minimum(log10_p, 0.0)


def count_separate(
    src: Float[Array, "n 2"],
    dst: Float[Array, "n 2"],
    where: Bool[Array, " n"],
    residuals: Float[Array, " n"],
    *,
    cell: Float[Array, " 2"],
) -> tuple[Int[Array, ""], Bool[Array, " n"]]:
    """Which matches are evidence of their own, when neighbouring features see the same pixels.

    ``cell`` is the side of a square cell in pixels of the source and of the target photo. Returns the number of
    putative matches that differ in their source cell or their target cell, and a mask [n] that keeps at most one match
    per source cell and per target cell: the one with the smallest residual in its source cell, then the smallest among
    those in its target cell. The mask may choose by residual because the number counts every chance it had.
    """
    n = src.shape[0]
    src_cell = jnp.where(where, _cells(src, cell[0]), NOWHERE)
    dst_cell = jnp.where(where, _cells(dst, cell[1]), NOWHERE)
    # One integer that orders matches by residual, to some five digits, and then by row.
    bits = max(n - 1, 1).bit_length()
    order = (lax.bitcast_convert_type(residuals, jnp.int32) >> bits << bits) | jnp.arange(n)

    def in_source(one: tuple[Array, ...]) -> Int[Array, " n"]:
        place, here, there = one
        return jnp.where((here == src_cell) & (place < order), jnp.where(there == dst_cell, 3, 1), 0)

    def in_target(one: tuple[Array, ...]) -> Int[Array, " n"]:
        place, there = one
        return jnp.where((there == dst_cell) & (place < order), 1, 0)

    # Of matches that share both cells, one is not beaten by another of them.
    found = _any(in_source, (order, src_cell, dst_cell))
    first = where & (found == 0)
    others = _any(in_target, (order, jnp.where(first, dst_cell, NOWHERE)))
    return jnp.sum(where & (found < 2)), first & (others == 0)


def _cells(points: Float[Array, "n 2"], side: Float[Array, ""]) -> Int[Array, " n"]:
    """A number for the cell of each point, for photos of up to 32 000 cells a side."""
    column, row = (jnp.clip(jnp.floor(points[:, i] / side), -32767, 32767).astype(jnp.int32) for i in range(2))
    return column * 65536 + row


def _any(test: Callable[[tuple[Array, ...]], Int[Array, " n"]], fields: tuple[Array, ...]) -> Int[Array, " n"]:
    """Bitwise or of a test of one match, given by its ``fields``, against all, over the matches."""
    n = fields[0].shape[0]
    whole = n - n % BLOCK

    def block(start: Int[Array, ""], found: Int[Array, " n"], size: int = BLOCK) -> Int[Array, " n"]:
        part = [lax.dynamic_slice_in_dim(field, start, size) for field in fields]
        for i in range(size):
            found |= test(tuple(field[i] for field in part))
        return found

    found = lax.fori_loop(0, whole // BLOCK, lambda i, found: block(i * BLOCK, found), jnp.zeros(n, jnp.int32))
    return block(jnp.asarray(whole), found, n - whole)


def log10_nfa(
    src: Float[Array, "n 2"],
    dst: Float[Array, "n 2"],
    where: Bool[Array, " n"],
    residuals: Float[Array, " n"],
    *,
    epipolar: bool,
    sample_size: int,
    threshold: Float[Array, ""],
    target_size: Float[Array, " 2"],
    photos_verified: ArrayLike,
    cell: Float[Array, " 2"],
) -> Float[Array, ""]:
    """Smallest ``log10_false_alarms`` of one model over the radii up to ``threshold``.

    ``residuals`` [n], ``threshold`` and ``target_size`` (height, width) are in pixels of the target photo. A random
    match lies within r of a point with p = pi r² / area, and of an epipolar line with p = 2 r D / area, D the diagonal.
    Matches are counted by ``count_separate``. Lower is surer; finite for every input, masked ones included.
    """
    putative, separate = count_separate(src, dst, where, residuals, cell=cell)
    radii = threshold * jnp.asarray(RADII, jnp.float32)
    inliers = jnp.sum(separate & (residuals < radii[:, None]), axis=1)
    area = jnp.maximum(target_size[0] * target_size[1], 1.0)
    likely = 2.0 * radii * jnp.hypot(target_size[0], target_size[1]) if epipolar else jnp.pi * radii**2
    log10_p = jnp.log10(jnp.maximum(likely / area, 1e-30))
    return jnp.min(
        log10_false_alarms(inliers, putative, log10_p, sample_size=sample_size, photos_verified=photos_verified)
    )


def _log10_choose(n: Float[Array, "..."], k: Float[Array, "..."]) -> Float[Array, "..."]:
    # Rounding may leave the logarithm of 1 a hair below 0.
    return jnp.maximum(gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0), 0.0) / jnp.log(10.0)
