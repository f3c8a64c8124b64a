"""How sure a verified match is: the number of false alarms (NFA, a contrario).

The threshold to accept at is in ``acceptance_threshold``. The formula is explained in docs/maths/confidence.md.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import gammaln
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from retrieval.verification.transforms import HIGHEST, SAMPLE_SIZE, Model

# Radii that are tried, as fractions of the threshold; with 20 pixels, down to 2.5 pixels.
RADII = (1.0, 0.707, 0.5, 0.354, 0.25, 0.177, 0.125)
# The cell of a match that does not count.
NOWHERE = -(2**31)
# So many matches are compared with all others at once.
BLOCK = 8


class NfaSettings(NamedTuple):
    """What the number of false alarms depends on beside the matches.

    Attributes:
        target_size: (height, width) of the box around all places of the target photo where features can lie, in pixels;
            [2] or one a candidate [..., 2].
        photos_verified: number of photos verified for one query, over which false alarms are expected: one number, or
            one a candidate [...].
        cell: side in pixels of the square cells in which only one match counts: one number, or (source, target) as [2]
            or [..., 2].
        target_area: of these places in square pixels, one number or one a candidate [...]; that of the box if not
            given.
    """

    target_size: ArrayLike | Sequence[ArrayLike] | None = None
    photos_verified: ArrayLike | None = None
    cell: ArrayLike | Sequence[ArrayLike] = 32.0
    target_area: ArrayLike | None = None


def log10_false_alarms(
    inliers: ArrayLike, putative: ArrayLike, log10_p: ArrayLike, *, sample_size: int, photos_verified: ArrayLike
) -> Float[Array, "..."]:
    """log10 of the expected number of models that explain as many matches by chance.

    log10(N (n - m) C(n, k) C(k, m)) + (k - m) log10(p), with k = ``inliers`` among n = ``putative`` matches,
    m = ``sample_size``, N = ``photos_verified`` and p the chance that a random match is an inlier. Arguments broadcast.
    A model that explains nothing beyond its own sample gives no evidence: k counts as at least m and n - m as at least
    1, so the value is finite and then not below 0. Source: Moisan and Stival, IJCV 2004.
    """
    m = float(sample_size)
    k = jnp.maximum(jnp.asarray(inliers, jnp.float32), m)
    n = jnp.maximum(jnp.asarray(putative, jnp.float32), k)
    tests = jnp.log10(jnp.asarray(photos_verified, jnp.float32)) + jnp.log10(jnp.maximum(n - m, 1.0))
    n, k = jnp.broadcast_arrays(n, k)
    choices = _log10_choose(jnp.stack([n, k]), jnp.stack([k, jnp.full_like(k, m)]))
    return tests + choices[0] + choices[1] + (k - m) * jnp.minimum(log10_p, 0.0)


def count_separate(
    src: Float[Array, "n 2"],
    dst: Float[Array, "n 2"],
    where: Bool[Array, " n"],
    residuals: Float[Array, " n"],
    *,
    cell: Float[Array, " 2"],
) -> tuple[Int[Array, ""], Bool[Array, " n"]]:
    """Counts at most one match for each cell, because neighbouring features see the same pixels.

    ``cell`` is the side of a square cell in pixels of the source and of the target photo. Returns two things. The first
    is the number of putative matches that differ in their source cell or in their target cell. The second is a mask [n]
    that keeps at most one match for each source cell and each target cell: the match of smallest residual in its source
    cell, then the one of smallest residual among those that share its target cell. The mask may choose by residual,
    because the first number counts all matches that it chooses from.
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

    # Exactly one of the matches that share both cells has no other of them before it.
    found = _any(in_source, (order, src_cell, dst_cell))
    first = where & (found == 0)
    others = _any(in_target, (order, jnp.where(first, dst_cell, NOWHERE)))
    return jnp.sum(where & (found < 2)), first & (others == 0)


def _cells(points: Float[Array, "n 2"], side: Float[Array, ""]) -> Int[Array, " n"]:
    """A number for the cell of each point, for photos of up to 32 000 cells a side."""
    column, row = (jnp.clip(jnp.floor(points[:, i] / side), -32767, 32767).astype(jnp.int32) for i in range(2))
    return column * 65536 + row


def _any(test: Callable[[tuple[Array, ...]], Int[Array, " n"]], fields: tuple[Array, ...]) -> Int[Array, " n"]:
    """For each match, the bitwise or of the ``test`` results of all matches against it.

    ``test`` takes the fields of one match and compares that match with all matches.
    """
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
    model: Model,
    threshold: Float[Array, ""],
    nfa: NfaSettings,
) -> Float[Array, ""]:
    """Smallest ``log10_false_alarms`` of one transform over the radii ``RADII`` of ``threshold``.

    ``residuals`` [n] and ``threshold`` are in pixels of the target photo. A random match lies within r of a point with
    p = pi r² / area, and within r of an epipolar line with p = 2 r D / area, where D is the diagonal of the box.
    Matches are counted by ``count_separate``; those that lie on a line in one of the photos count as none. Lower is
    surer; the value is finite for every input, masked ones included. All fields of ``nfa`` but the area must be given.
    """
    size, cell = jnp.asarray(nfa.target_size), jnp.asarray(nfa.cell)
    putative, separate = count_separate(src, dst, where, residuals, cell=cell)
    radii = threshold * jnp.asarray(RADII, jnp.float32)
    agree = separate & (residuals < radii[:, None])
    inliers = jnp.where(on_a_line(src, dst, agree, cell=cell), 0, jnp.sum(agree, axis=1))
    area = jnp.maximum(size[0] * size[1] if nfa.target_area is None else jnp.asarray(nfa.target_area), 1.0)
    likely = 2.0 * radii * jnp.hypot(size[0], size[1]) if model == "fundamental" else jnp.pi * radii**2
    log10_p = jnp.log10(jnp.maximum(likely / area, 1e-30))
    return jnp.min(
        log10_false_alarms(
            inliers,
            putative,
            log10_p,
            sample_size=SAMPLE_SIZE[model],
            photos_verified=jnp.asarray(nfa.photos_verified),
        )
    )


def on_a_line(
    src: Float[Array, "n 2"], dst: Float[Array, "n 2"], chosen: Bool[Array, "*t n"], *, cell: Float[Array, " 2"]
) -> Bool[Array, "*t"]:
    """Whether the ``chosen`` matches fill no more than a strip one ``cell`` wide, in one of the photos or in both.

    They would fix a similarity, but no affine transform or homography, and a line of text resembles any other.
    """

    def is_strip(points: Float[Array, "n 2"], side: Float[Array, ""]) -> Bool[Array, "*t"]:
        # Near the first of them, squares of coordinates keep their digits.
        used = jnp.any(chosen.reshape(-1, len(points)), axis=0)
        x, y = jnp.where(used[:, None], points - points[jnp.argmax(used)], 0.0).T
        products = jnp.stack([jnp.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
        sums = jnp.matmul(chosen.astype(jnp.float32), products, precision=HIGHEST)
        x, y, xx, yy, xy = jnp.moveaxis(sums[..., 1:] / jnp.maximum(sums[..., :1], 1.0), -1, 0)
        across, along, both = xx - x * x, yy - y * y, xy - x * y
        # The smaller eigenvalue of the covariance; points spread evenly over a strip have a twelfth of its width².
        least = (across + along - jnp.hypot(across - along, 2.0 * both)) / 2.0
        return least <= side**2 / 12.0

    return jnp.any(jax.vmap(is_strip)(jnp.stack([src, dst]), cell), axis=0)


def _log10_choose(n: Float[Array, "..."], k: Float[Array, "..."]) -> Float[Array, "..."]:
    # Rounding may leave the logarithm of 1 slightly below 0.
    whole, part, rest = gammaln(jnp.stack([n, k, n - k]) + 1.0)
    return jnp.maximum(whole - part - rest, 0.0) / jnp.log(10.0)
