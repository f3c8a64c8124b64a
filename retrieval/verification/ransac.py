"""Geometric verification: one compiled, seeded call fits a transform to the matches of every candidate photo."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from retrieval.verification import geometry
from retrieval.verification.confidence import log10_nfa
from retrieval.verification.cpu_threads import in_shares, one_at_a_time
from retrieval.verification.geometry import HIGHEST, SAMPLE_SIZE, Model
from retrieval.verification.hypotheses import Seeds, better_of, propose, refine
from retrieval.verification.normalised import Fit

# After so many samples a candidate is done if the best transform so far has at least ``CLEAR`` inliers, and so large a
# share that of as many pairs of matches ``ENOUGH`` are of inliers alone (for an epipolar geometry: whole samples).
FIRST_TRIALS = 128
ENOUGH = 5.0
CLEAR = 24
# Of each kind, the hypotheses that are refined until then.
JUDGED = 2
# Candidates searched at once, and searched on at once: their hypotheses stay in the cache of a CPU.
CANDIDATES_AT_ONCE = 128
SEARCHED_ON_AT_ONCE = 4


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
    the likeliest single correspondences; MSAC ranks them and least squares on the inliers refines the best. The same
    key gives the same result. Pure: runs under ``jit`` and ``vmap``. One program is compiled for each model, number of
    trials, number of candidates, and size of n (rounded up within, so that few sizes occur).

    Args:
        key: key of the random samples; every candidate uses the same draws.
        model: "similarity", "affine", "homography" or "fundamental".
        src_scales: [..., n] image scale at which each source feature was found, as in ``LocalFeatures.scales``.
        dst_scales: likewise of the target. A single correspondence magnifies by src_scales / dst_scales.
        threshold: residuals below it are inliers: pixels of the target photo, one number or one a candidate [...].
            20 suits features at stride 16 in photos of about 1000 pixels; scale it with the photo.
        trials: minimal samples drawn at most; candidates whose first ones leave no doubt get no more.
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
    src, dst, mask = _plain(src, np.float32), _plain(dst, np.float32), _plain(mask, np.bool_)
    if model not in SAMPLE_SIZE:
        raise ValueError(f"model is {model!r}; choose one of {', '.join(SAMPLE_SIZE)}")
    if src.shape != dst.shape or src.shape[-1:] != (2,) or src.shape[:-1] != mask.shape:
        raise ValueError(f"src {src.shape} and dst {dst.shape} must be [..., n, 2] and mask {mask.shape} [..., n]")
    if (src_scales is None) != (dst_scales is None):
        raise ValueError("give src_scales and dst_scales together, or neither")
    batch, n = mask.shape[:-1], mask.shape[-1]
    if math.prod(batch) == 0:
        return Verification(jnp.zeros((*batch, 3, 3)), jnp.asarray(mask), jnp.zeros(batch, jnp.int32), jnp.zeros(batch))
    if model == "fundamental":
        src_scales = dst_scales = None
    padding = [(0, 0)] * len(batch) + [(0, _rows(n) - n)]
    photo = _Candidate(
        src=_padded(src, [*padding, (0, 0)]),
        dst=_padded(dst, [*padding, (0, 0)]),
        where=_padded(mask, padding),
        src_scales=None if src_scales is None else _padded(_plain(src_scales, np.float32), padding),
        dst_scales=None if dst_scales is None else _padded(_plain(dst_scales, np.float32), padding),
        threshold=_broadcast(_plain(threshold, np.float32), batch),
        target_size=_broadcast(_plain(0.0 if target_size is None else target_size, np.float32), (*batch, 2)),
        photos_verified=_broadcast(
            _plain(math.prod(batch) if photos_verified is None else photos_verified, np.float32), batch
        ),
        cell=_broadcast(_plain(cell, np.float32), (*batch, 2)),
    )
    options = {"model": model, "trials": trials, "sized": target_size is not None}
    program = partial(_verify_all, key=key, **options)
    if model == "fundamental":
        found = one_at_a_time(program, photo)
    elif len(batch) == 1 and not isinstance(key, jax.core.Tracer):
        found = in_shares(program, photo, static=(*options.values(),))
    else:
        found = program(photo)
    return found if found.inliers.shape[-1] == n else found._replace(inliers=found.inliers[..., :n])


def _rows(n: int) -> int:
    """The next of 8, 10, 12, 14, 16, 20, ...: four sizes an octave, so that a run meets few shapes."""
    step = 2 ** max(1, (max(n, 1) - 1).bit_length() - 3)
    return max(8, math.ceil(n / step) * step)


def _padded(values: Any, padding: list[tuple[int, int]]) -> Any:
    if not any(after for _, after in padding):
        return values
    if not isinstance(values, np.ndarray):
        return jnp.pad(values, padding)
    # np.pad takes as long as verifying a photo does.
    padded = np.zeros([size + after for size, (_, after) in zip(values.shape, padding)], values.dtype)
    padded[tuple(slice(size) for size in values.shape)] = values
    return padded


def _broadcast(values: Any, shape: tuple[int, ...]) -> Any:
    return np.broadcast_to(values, shape) if isinstance(values, np.ndarray) else jnp.broadcast_to(values, shape)


def _plain(values: ArrayLike | Sequence[ArrayLike], dtype: type[np.generic]) -> Any:
    """In NumPy unless JAX has it already: an operation outside of the compiled program costs as much as a photo."""
    parts = values if isinstance(values, Sequence) else (values,)
    traced = any(isinstance(part, Array) for part in parts)
    return jnp.asarray(values, dtype) if traced else np.asarray(values, dtype)


class _Candidate(NamedTuple):
    """One candidate photo, or a batch of them, as ``estimate`` takes them."""

    src: Array
    dst: Array
    where: Array
    src_scales: Array | None
    dst_scales: Array | None
    threshold: Array
    target_size: Array
    photos_verified: Array
    cell: Array


@partial(jax.jit, static_argnames=("model", "trials", "sized"))
def _verify_all(photo: _Candidate, key: Array, *, model: Model, trials: int, sized: bool) -> Verification:
    batch = photo.where.shape[:-1]
    candidates = math.prod(batch)

    photo = jax.tree.map(lambda x: x.reshape(candidates, *x.shape[len(batch) :]), photo)
    if not sized:
        photo = photo._replace(target_size=_bounding_box(photo.dst, photo.where))
    draws = jax.random.uniform(key, (SAMPLE_SIZE[model], trials))
    chunks = math.ceil(candidates / CANDIDATES_AT_ONCE)
    if chunks == 1:
        found = _verify_chunk(photo, draws, model=model)
    else:
        size = math.ceil(candidates / chunks)
        photo = jax.tree.map(
            lambda x: jnp.pad(x, [(0, chunks * size - candidates)] + [(0, 0)] * (x.ndim - 1)).reshape(
                chunks, size, *x.shape[1:]
            ),
            photo,
        )
        found = lax.map(partial(_verify_chunk, draws=draws, model=model), photo)
        found = jax.tree.map(lambda x: x.reshape(chunks * size, *x.shape[2:])[:candidates], found)
    return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), found)


def _verify_chunk(photo: _Candidate, draws: Float[Array, "m trials"], *, model: Model) -> Verification:
    """Verify candidates at once: all of them with the first samples, with the others those that need them."""
    fit = _likeliest_first(jax.vmap(_normalised)(photo))
    seeds = propose(fit, draws[:, :FIRST_TRIALS], model=model, singles=True)
    if draws.shape[1] <= FIRST_TRIALS:
        return jax.vmap(partial(_proven, model=model))(photo, *refine(fit, seeds, model=model))
    found = refine(fit, jax.tree.map(lambda x: x[:, :JUDGED], seeds), model=model)
    inliers = jax.vmap(partial(_support, model=model))(fit, found[0])
    clean = (inliers / jnp.maximum(fit.valid, 1)) ** (SAMPLE_SIZE[model] if model == "fundamental" else 2)
    unsure = (FIRST_TRIALS * clean < ENOUGH) | (inliers < CLEAR)
    found = _search_on(
        fit, draws[:, FIRST_TRIALS:], seeds, found, unsure & (fit.valid > SAMPLE_SIZE[model]), model=model
    )
    return jax.vmap(partial(_proven, model=model))(photo, *found)


def _search_on(
    fit: Fit,
    draws: Float[Array, "m trials"],
    seeds: Seeds,
    found: tuple[Float[Array, "c 3 3"], Float[Array, " c"]],
    unsure: Bool[Array, " c"],
    *,
    model: Model,
) -> tuple[Float[Array, "c 3 3"], Float[Array, " c"]]:
    """Draw more for some of the candidates, which are brought together in groups, and refine all that was kept."""
    candidates = unsure.shape[0]
    group = min(SEARCHED_ON_AT_ONCE, candidates)
    order = jnp.argsort(~unsure, stable=True)
    # Rows beyond the last one are read as the last and never written.
    order = jnp.concatenate([order, jnp.full(-candidates % group, candidates)])

    def search(state: tuple[Array, Any]) -> tuple[Array, Any]:
        done, found = state
        rows = lax.dynamic_slice(order, (done,), (group,))
        here, so_far = jax.tree.map(lambda x: x.at[rows].get(mode="clip"), (fit, seeds))
        new = refine(here, better_of(so_far, propose(here, draws, model=model, singles=False)), model=model)
        better = unsure.at[rows].get(mode="clip") & (new[1] < found[1].at[rows].get(mode="clip"))
        rows = jnp.where(better, rows, candidates)
        return done + group, jax.tree.map(lambda x, new: x.at[rows].set(new, mode="drop"), found, new)

    start = jnp.zeros((), jnp.int32), found
    return lax.while_loop(lambda state: state[0] < jnp.sum(unsure), search, start)[1]


def _proven(photo: _Candidate, transform: Float[Array, "3 3"], cost: Float[Array, ""], *, model: Model) -> Verification:
    """What the best transform of one candidate proves."""
    found = jnp.isfinite(cost)
    into_src, into_dst, fit = _frames(photo)
    squared = fit.squared_residuals(transform[None], model=model)[0]
    inliers = fit.where & (squared < fit.limit) & found
    # A sample always agrees with itself: that alone is no model.
    found &= jnp.sum(inliers) > SAMPLE_SIZE[model]
    inliers &= found
    confidence = log10_nfa(
        photo.src,
        photo.dst,
        photo.where,
        jnp.where(found, jnp.sqrt(squared) / into_dst[0, 0], jnp.inf),
        epipolar=model == "fundamental",
        sample_size=SAMPLE_SIZE[model],
        threshold=photo.threshold,
        target_size=photo.target_size,
        photos_verified=photo.photos_verified,
        cell=photo.cell,
    )
    transform = jnp.where(found, _in_pixels(transform, into_src, into_dst, model), jnp.eye(3))
    return Verification(transform, inliers, jnp.sum(inliers).astype(jnp.int32), confidence)


def _normalised(photo: _Candidate) -> Fit:
    return _frames(photo)[2]


def _frames(photo: _Candidate) -> tuple[Float[Array, "3 3"], Float[Array, "3 3"], Fit]:
    """The normalisations of both photos, and the matches in them."""
    where = photo.where
    into_src = geometry.normalisation(photo.src, where)
    into_dst = geometry.normalisation(photo.dst, where)
    ratio = into_dst[0, 0] / into_src[0, 0]
    magnification = None
    if photo.src_scales is not None and photo.dst_scales is not None:
        known = where & (photo.src_scales > 0) & (photo.dst_scales > 0)
        magnification = jnp.where(known, photo.src_scales, 0.0) / jnp.where(known, photo.dst_scales, 1.0) * ratio
    return (
        into_src,
        into_dst,
        Fit(
            src=jnp.where(where[:, None], geometry.in_frame(into_src, photo.src), 0.0),
            dst=jnp.where(where[:, None], geometry.in_frame(into_dst, photo.dst), 0.0),
            magnification=magnification,
            where=where,
            valid=jnp.sum(where),
            limit=(photo.threshold * into_dst[0, 0]) ** 2,
            src_to_dst=ratio,
        ),
    )


def _likeliest_first(fit: Fit) -> Fit:
    """The matches of each candidate without gaps between them."""
    n = fit.where.shape[1]

    def closed(fit: Fit) -> Fit:
        def one(fit: Fit) -> Fit:
            rows = jnp.minimum(jnp.searchsorted(jnp.cumsum(fit.where), jnp.arange(1, n + 1)), n - 1)
            magnification = None if fit.magnification is None else fit.magnification[rows]
            return fit._replace(src=fit.src[rows], dst=fit.dst[rows], magnification=magnification)

        return jax.vmap(one)(fit)._replace(where=jnp.arange(n) < fit.valid[:, None])

    gapless = jnp.all(fit.where == (jnp.arange(n) < fit.valid[:, None]))
    return lax.cond(gapless, lambda fit: fit, closed, fit)


def _support(fit: Fit, transform: Float[Array, "3 3"], *, model: Model) -> Int[Array, ""]:
    return jnp.sum(fit.where & (fit.squared_residuals(transform[None], model=model)[0] < fit.limit))


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
