"""Geometric verification: one compiled, seeded call fits a transform to the matches of every candidate photo."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from retrieval import epipolar, geometry
from retrieval.confidence import log10_nfa
from retrieval.geometry import HIGHEST, SAMPLE_SIZE, Candidates, Model

# Hypotheses of each kind that are refined. Several, because the best by chance is often not the best after refinement.
SEEDS = 8
# Tolerances of the refinement in units of the threshold: a similarity is near a planar model only around its matches,
# and a single correspondence knows no rotation, so their first fits look further; then all shrink to the threshold.
APPROACH = (3.0, 2.0)
POLISH = (1.5, 1.2, 1.0, 1.0)
# The first samples are drawn among this share of the matches, growing until the second half is drawn among all of them:
# callers put the likely ones first.
FIRST_DRAWN = 0.1
# Residuals held at once (64 MiB in float32, where the compiler does not fuse them away).
RESIDUALS_AT_ONCE = 2**24


class Verification(NamedTuple):
    """What the matches of each candidate photo prove.

    Attributes:
        transform: float32 [..., 3, 3] from source to target points (x, y, 1) in pixels; for ``fundamental`` the matrix
            F with target^T F source = 0. The identity where nothing was found.
        inliers: bool [..., n], matches with a residual below the threshold; never a masked one.
        count: int32 [...], number of inliers; 0 where no transform explains more than its own minimal sample.
        log10_nfa: float32 [...], log10 of the expected number of false alarms: lower is surer, never NaN.
    """

    transform: Float[Array, "*batch 3 3"]
    inliers: Bool[Array, "*batch n"]
    count: Int[Array, "*batch"]  # type: ignore[assignment]  # the contract's name, which hides tuple.count
    log10_nfa: Float[Array, "*batch"]


def estimate(
    src: Float[Array | np.ndarray, "*batch n 2"],
    dst: Float[Array | np.ndarray, "*batch n 2"],
    mask: Bool[Array | np.ndarray, "*batch n"],
    *,
    key: Array,
    model: Model = "affine",
    src_scales: Float[Array | np.ndarray, "*batch n"] | None = None,
    dst_scales: Float[Array | np.ndarray, "*batch n"] | None = None,
    threshold: ArrayLike = 20.0,
    trials: int = 1000,
    target_size: ArrayLike | Sequence[ArrayLike] | None = None,
    photos_verified: ArrayLike | None = None,
    cell: ArrayLike | Sequence[ArrayLike] = 32.0,
) -> Verification:
    """Fit ``model`` to the putative matches of a whole batch of candidate photos.

    ``src`` and ``dst`` [..., n, 2] are matched points (x, y) in pixels of each photo; rows where ``mask`` [..., n] is
    False are padding and never count; put the likelier matches first, they are sampled more often. The leading axes run
    over candidates, whose results do not depend on one another.
    Hypotheses come from minimal samples, for the planar models also from pairs and, where both scales are given, from
    every single correspondence; MSAC ranks them and least squares on the inliers refines the best. The same key gives
    the same result. Pure: runs under ``jit`` and ``vmap``. One program is compiled for each model, number of trials,
    number of candidates, and size of n (rounded up within, so that few sizes occur).

    Args:
        key: key of the random samples; every candidate uses the same draws.
        model: "similarity", "affine", "homography" or "fundamental".
        src_scales: [..., n] image scale at which each source feature was found, as in ``LocalFeatures.scales``.
        dst_scales: likewise of the target. A single correspondence magnifies by src_scales / dst_scales.
        threshold: residuals below it are inliers: pixels of the target photo, one number or one a candidate [...].
            20 suits features at stride 16 in photos of about 1000 pixels; scale it with the photo.
        trials: minimal samples drawn.
        target_size: (height, width) of the target photo, [2] or [..., 2]. The bounding box of ``dst`` if not given,
            which makes the confidence err on the side of doubt.
        photos_verified: number of photos verified for one query, over which false alarms are expected; the number of
            candidates in the call if not given.
        cell: side in pixels of the cells in which only one match is evidence: one number, or (source, target) as
            [2] or [..., 2]. 32 is two strides at scale 1; scale it with the photo.

    Raises:
        ValueError: for an unknown model, shapes that do not fit, or scales of only one photo.

    Sources: Torr and Zisserman, CVIU 2000 (MSAC); Chum, Matas and Kittler, DAGM 2003 (local optimisation); Chum and
    Matas, CVPR 2005 (likely matches first).
    """
    src, dst, mask = jnp.asarray(src, jnp.float32), jnp.asarray(dst, jnp.float32), jnp.asarray(mask, bool)
    if model not in SAMPLE_SIZE:
        raise ValueError(f"model is {model!r}; choose one of {', '.join(SAMPLE_SIZE)}")
    if src.shape != dst.shape or src.shape[-1:] != (2,) or src.shape[:-1] != mask.shape:
        raise ValueError(f"src {src.shape} and dst {dst.shape} must be [..., n, 2] and mask {mask.shape} [..., n]")
    if (src_scales is None) != (dst_scales is None):
        raise ValueError("give src_scales and dst_scales together, or neither")
    batch, n = mask.shape[:-1], mask.shape[-1]
    candidates = math.prod(batch)
    if target_size is None:
        target_size = _bounding_box(dst, mask)
    magnification = None
    if src_scales is not None and dst_scales is not None and model != "fundamental":
        known = mask & (jnp.asarray(src_scales) > 0) & (jnp.asarray(dst_scales) > 0)
        magnification = jnp.where(known, src_scales, 0.0) / jnp.where(known, dst_scales, 1.0)

    sides = jnp.asarray(cell, jnp.float32)
    rows = _rows(n)

    def flat(values: ArrayLike | Sequence[ArrayLike], *tail: int) -> Array:
        return jnp.broadcast_to(jnp.asarray(values, jnp.float32), (*batch, *tail)).reshape(candidates, *tail)

    def padded(values: Array) -> Array:
        values = values.reshape(candidates, *values.shape[len(batch) :])
        return jnp.pad(values, [(0, 0), (0, rows - n), (0, 0)][: values.ndim])

    photo = _Candidate(
        src=padded(src),
        dst=padded(dst),
        where=padded(mask),
        magnification=None if magnification is None else padded(magnification),
        threshold=flat(threshold),
        target_size=flat(target_size, 2),
        photos_verified=flat(max(candidates, 1) if photos_verified is None else photos_verified),
        cell=flat(sides if sides.ndim else jnp.stack([sides, sides]), 2),
    )
    if candidates == 0:
        return Verification(jnp.zeros((*batch, 3, 3)), mask, jnp.zeros(batch, jnp.int32), jnp.zeros(batch))
    found = _verify_all(photo, key, model=model, trials=trials)
    found = found._replace(inliers=found.inliers[:, :n])
    return Verification(*(field.reshape(*batch, *field.shape[1:]) for field in found))


def _rows(n: int) -> int:
    """The next of 8, 10, 12, 14, 16, 20, ...: four sizes an octave, so that a run meets few shapes."""
    step = 2 ** max(1, (max(n, 1) - 1).bit_length() - 3)
    return max(8, math.ceil(n / step) * step)


class _Candidate(NamedTuple):
    """One candidate photo, or a batch of them."""

    src: Array
    dst: Array
    where: Array
    magnification: Array | None
    threshold: Array
    target_size: Array
    photos_verified: Array
    cell: Array


@partial(jax.jit, static_argnames=("model", "trials"))
def _verify_all(photo: _Candidate, key: Array, *, model: Model, trials: int) -> Verification:
    candidates, n = photo.where.shape
    draws = jax.random.uniform(key, (SAMPLE_SIZE[model], trials))
    verify = partial(_verify, draws=draws, model=model)
    hypotheses = trials * {"similarity": 1, "affine": 2, "homography": 2, "fundamental": 3}[model] + n
    chunks = math.ceil(candidates / max(1, RESIDUALS_AT_ONCE // (hypotheses * n)))
    size = math.ceil(candidates / chunks)
    photo = jax.tree.map(
        lambda x: jnp.pad(x, [(0, chunks * size - candidates)] + [(0, 0)] * (x.ndim - 1)).reshape(
            chunks, size, *x.shape[1:]
        ),
        photo,
    )
    found = lax.map(jax.vmap(verify), photo)
    return jax.tree.map(lambda x: x.reshape(chunks * size, *x.shape[2:])[:candidates], found)


def _verify(photo: _Candidate, *, draws: Float[Array, "m trials"], model: Model) -> Verification:
    """Verify one candidate photo."""
    where, valid = photo.where, jnp.sum(photo.where)
    into_src = geometry.normalisation(photo.src, where)
    into_dst = geometry.normalisation(photo.dst, where)
    src = jnp.where(where[:, None], geometry.transform_points(into_src, photo.src), 0.0)
    dst = jnp.where(where[:, None], geometry.transform_points(into_dst, photo.dst), 0.0)
    src_scale, dst_scale = into_src[0, 0], into_dst[0, 0]
    fit = _Fit(src, dst, where, (photo.threshold * dst_scale) ** 2, dst_scale / src_scale, model)

    # With too few matches for a sample the draws repeat matches, which no solver accepts.
    share = jnp.minimum(jnp.linspace(FIRST_DRAWN, 2.0 - FIRST_DRAWN, draws.shape[1]), 1.0)
    first = jnp.maximum(jnp.ceil(valid * share).astype(jnp.int32), jnp.minimum(2 * SAMPLE_SIZE[model], valid))
    drawn = jnp.argsort(~where, stable=True)[draw_samples(draws, first)].T
    if model == "fundamental":
        hypotheses = epipolar.from_seven(src[drawn], dst[drawn])
    else:
        hypotheses = geometry.from_samples(src[drawn], dst[drawn], model=model)
    seeds = _best(fit, hypotheses)
    rough = _rough(fit, drawn, photo.magnification)
    if rough is not None:
        approached = _approach(fit, _best(fit, rough, APPROACH[0]))
        seeds = Candidates(*(jnp.concatenate(pair) for pair in zip(seeds, approached, strict=True)))
    transform, found = _polish(fit, seeds)

    squared = fit.squared_residuals(transform[None])[:, 0]
    inliers = where & (squared < fit.limit) & found
    # A sample always agrees with itself: that alone is no model.
    found &= jnp.sum(inliers) > SAMPLE_SIZE[model]
    inliers &= found
    confidence = log10_nfa(
        photo.src,
        photo.dst,
        where,
        jnp.where(found, jnp.sqrt(squared) / dst_scale, jnp.inf),
        epipolar=model == "fundamental",
        sample_size=SAMPLE_SIZE[model],
        threshold=photo.threshold,
        target_size=photo.target_size,
        photos_verified=photo.photos_verified,
        cell=photo.cell,
    )
    transform = jnp.where(found, _in_pixels(transform, into_src, into_dst, model), jnp.eye(3))
    return Verification(transform, inliers, jnp.sum(inliers).astype(jnp.int32), confidence)


class _Fit(NamedTuple):
    """Normalised matches of one candidate, and how a transform is held against them."""

    src: Float[Array, "n 2"]
    dst: Float[Array, "n 2"]
    where: Bool[Array, " n"]
    limit: Float[Array, ""]  # squared threshold in the target frame
    src_to_dst: Float[Array, ""]  # brings lengths of the source frame to the target frame, at equal pixels
    model: Model

    def squared_residuals(self, transform: Float[Array, "t 3 3"]) -> Float[Array, "n t"]:
        if self.model == "fundamental":
            return epipolar.squared_epipolar_residuals(transform, self.src, self.dst, src_to_dst_scale=self.src_to_dst)
        return geometry.squared_residuals(transform, self.src, self.dst, model=self.model)

    def cost(self, squared: Float[Array, "n t"], usable: Bool[Array, " t"], factor: float = 1.0) -> Float[Array, " t"]:
        """MSAC: squared residuals, cut at the threshold."""
        limit = self.limit * factor**2
        cut = jnp.where(self.where[:, None], jnp.minimum(squared, limit), 0.0)
        return jnp.where(usable, jnp.sum(cut, axis=0), jnp.inf)

    def weights(self, squared: Float[Array, "n t"], factor: ArrayLike) -> Float[Array, "n t"]:
        """Tukey's biweight at ``factor`` times the threshold."""
        inside = jnp.maximum(1.0 - squared / (self.limit * factor**2), 0.0)
        return jnp.where(self.where[:, None], inside**2, 0.0)


def _best(fit: _Fit, hypotheses: Candidates, factor: float = 1.0) -> Candidates:
    """The ``SEEDS`` hypotheses of least cost; equal costs go to the earlier one."""
    # Without the barrier the compiler may fuse the solvers into the scoring and solve anew for every match.
    transform, usable = lax.optimization_barrier(tuple(hypotheses))
    cost = fit.cost(fit.squared_residuals(transform), usable, factor)
    chosen = lax.top_k(-cost, min(SEEDS, cost.shape[0]))[1]
    return Candidates(transform[chosen], usable[chosen])


def _rough(fit: _Fit, drawn: Int[Array, "trials m"], magnification: Float[Array, " n"] | None) -> Candidates | None:
    """Similarities that stand near a planar model: of two matches a sample, and of every match with known scales.

    Two matches are all inliers far more often than three or four, and the refinement bridges the rest.
    """
    kinds = []
    if fit.model in ("affine", "homography"):
        pairs = drawn[:, :2]
        kinds.append(geometry.from_samples(fit.src[pairs], fit.dst[pairs], model="similarity"))
    if magnification is not None:
        kinds.append(geometry.from_single_correspondences(fit.src, fit.dst, magnification * fit.src_to_dst, fit.where))
    return Candidates(*(jnp.concatenate(field) for field in zip(*kinds, strict=True))) if kinds else None


def _approach(fit: _Fit, rough: Candidates) -> Candidates:
    """Let similarities turn and stretch towards the matches around them.

    Not usable where those matches do not determine the model: points on a line agree with many an affine transform.
    """
    model: Model = "similarity" if fit.model == "similarity" else "affine"

    def step(transform: Array, factor: Array) -> tuple[Array, Array]:
        weights = fit.weights(fit.squared_residuals(transform), factor)
        return geometry.refit(transform, fit.src, fit.dst, weights, model=model)

    transform, determined = lax.scan(step, rough.transform, jnp.asarray(APPROACH))
    return Candidates(transform, rough.usable & determined[-1])


def _polish(fit: _Fit, seeds: Candidates) -> tuple[Float[Array, "3 3"], Bool[Array, ""]]:
    """The least-cost transform among the seeds and every step of their refinement, and whether there is one."""

    def step(carry: tuple[Array, Array, Array, Array], factor: Array) -> tuple[tuple[Array, Array, Array, Array], None]:
        transform, squared, best, cost = carry
        weights = fit.weights(squared, factor)
        if fit.model == "fundamental":
            transform, usable = epipolar.refit_fundamental(transform, fit.src, fit.dst, weights)
        else:
            transform, usable = geometry.refit(transform, fit.src, fit.dst, weights, model=fit.model)
        squared = fit.squared_residuals(transform)
        step_cost = fit.cost(squared, usable & seeds.usable)
        better = step_cost < cost
        best, cost = jnp.where(better[:, None, None], transform, best), jnp.where(better, step_cost, cost)
        return (transform, squared, best, cost), None

    squared = fit.squared_residuals(seeds.transform)
    start = seeds.transform, squared, seeds.transform, fit.cost(squared, seeds.usable)
    (_, _, best, cost), _ = lax.scan(step, start, jnp.asarray(POLISH))
    first = jnp.argmin(cost)
    return best[first], jnp.isfinite(cost[first])


def draw_samples(draws: Float[Array, "m trials"], count: Int[Array, "*trials"]) -> Int[Array, "m trials"]:
    """``m`` different numbers below ``count`` for each trial, from uniform numbers in [0, 1).

    Every set is equally likely. Where ``count`` is below m, numbers repeat. Source: Bentley and Floyd, "A sample of
    brilliance", CACM 1987.
    """
    picks: list[Array] = []
    sample = draws.shape[0]
    for i in range(sample):
        last = jnp.maximum(count - sample + i, 0)
        pick = jnp.minimum((draws[i] * (last + 1)).astype(jnp.int32), last)
        taken = jnp.zeros_like(pick, bool)
        for earlier in picks:
            taken |= earlier == pick
        picks.append(jnp.where(taken, last, pick))
    return jnp.stack(picks)


def _in_pixels(
    transform: Float[Array, "3 3"], into_src: Float[Array, "3 3"], into_dst: Float[Array, "3 3"], model: Model
) -> Float[Array, "3 3"]:
    if model == "fundamental":
        transform = jnp.matmul(jnp.matmul(into_dst.T, transform, precision=HIGHEST), into_src, precision=HIGHEST)
        return transform / jnp.maximum(jnp.sqrt(jnp.sum(transform**2)), 1e-30)
    scale = 1.0 / into_dst[0, 0]
    back = geometry.scaled_shift(scale, -into_dst[0, 2] * scale, -into_dst[1, 2] * scale)
    transform = jnp.matmul(jnp.matmul(back, transform, precision=HIGHEST), into_src, precision=HIGHEST)
    corner = transform[2, 2]
    return transform / jnp.where(jnp.abs(corner) > 1e-6 * jnp.sqrt(jnp.sum(transform**2)), corner, 1.0)


def _bounding_box(points: Float[Array, "*batch n 2"], mask: Bool[Array, "*batch n"]) -> Float[Array, "*batch 2"]:
    """(height, width) of the box around the valid points; 1 pixel at least."""
    low = jnp.min(jnp.where(mask[..., None], points, jnp.inf), axis=-2, initial=jnp.inf)
    high = jnp.max(jnp.where(mask[..., None], points, -jnp.inf), axis=-2, initial=-jnp.inf)
    return jnp.maximum(high - low, 1.0)[..., ::-1]
