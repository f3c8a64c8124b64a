"""RANSAC for a batch of candidate photos: fits a transform to the matches of each, and says how sure it is."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from delf_jax.compiling import compiling_for
from retrieval.verification.chunks import map_chunks
from retrieval.verification.confidence import NfaSettings, log10_nfa, on_a_line
from retrieval.verification.residuals import NormalisedMatches, normalised, without_gaps
from retrieval.verification.transforms import SAMPLE_SIZE, Model, in_pixels
from retrieval.verification.trials import best_transform

__all__ = ["NfaSettings", "Verification", "estimate"]

# Candidates of one call of the program. A CPU takes one after the other, so that its hypotheses stay in the cache.
CHUNK = 20
# On other platforms so many are verified at the same time.
TOGETHER = 256
# Pixels. Points beyond it, infinite ones and NaN lie in no photo, and one of them would spoil the frame of the others.
_FURTHEST = 1e7


class Verification(NamedTuple):
    """What the matches of each candidate photo prove.

    Attributes:
        transform: float32 [..., 3, 3] from source to target points (x, y, 1) in pixels; for ``fundamental`` the matrix
            F with target^T F source = 0. The identity if nothing was found.
        inliers: bool [..., n], matches with a residual below the threshold; never a masked one.
        count: int32 [...], number of inliers; 0 if no transform explains more than its own minimal sample.
        log10_nfa: float32 [...], log10 of the expected number of false alarms: lower is surer, never NaN.
    """

    transform: Float[Array, "*batch 3 3"]
    inliers: Bool[Array, "*batch n"]
    count: Int[Array, "*batch"]  # type: ignore[assignment]  # the contract's name, which hides tuple.count
    log10_nfa: Float[Array, "*batch"]


# Programs that ``jax.export`` writes to a file may return verifications.
jax.export.register_namedtuple_serialization(Verification, serialized_name="retrieval.Verification")


def estimate(
    src: Float[Array | np.ndarray, "*batch n 2"],
    dst: Float[Array | np.ndarray, "*batch n 2"],
    mask: Bool[Array | np.ndarray, "*batch n"],
    *,
    key: Array,
    model: Model = "affine",
    scales: tuple[Float[Array | np.ndarray, "*batch n"], Float[Array | np.ndarray, "*batch n"]] | None = None,
    threshold: ArrayLike = 20.0,
    trials: int = 1000,
    nfa: NfaSettings | None = None,
) -> Verification:
    """Fits ``model`` to the putative matches of a whole batch of candidate photos.

    ``src`` and ``dst`` [..., n, 2] are matched points (x, y) in pixels of each photo. Rows where ``mask`` [..., n] is
    False are padding and never count, nor do points that are NaN or infinite. Put the likelier matches first: they are
    sampled more often. The leading axes run over candidates, whose results do not depend on one another.

    Hypotheses come from minimal samples; for planar models also from pairs of matches and, with ``scales``, from single
    matches. The MSAC cost ranks them, and weighted least squares on the inliers refines the best. The same key gives
    the same result. The function is pure and runs under ``jit`` and ``vmap``; elsewhere it returns NumPy arrays, and it
    compiles one program for each model, number of trials and size of n, which is rounded up to few sizes.

    Args:
        key: key of the random samples; every candidate uses the same draws.
        model: "similarity", "affine", "homography" or "fundamental".
        scales: image scales at which the features were found, as in ``LocalFeatures.scales``: of the source and of the
            target, [..., n] each. A single match then magnifies by source scale / target scale.
        threshold: matches with a smaller residual are inliers: pixels of the target photo, one number or one a
            candidate [...]. 20 suits features at stride 16 in photos of about 1000 pixels; scale it with the photo.
        trials: minimal samples drawn at most; a candidate gets no more than the first ones if they leave no doubt.
        nfa: what ``log10_nfa`` depends on beside the matches. Without ``target_size`` it is the bounding box of
            ``dst``, which can only make the result less sure; without ``photos_verified`` it is the number of
            candidates in the call. ``cell`` is in pixels of the photos too: scale it with them.

    Raises:
        ValueError: for an unknown model, or shapes that do not fit.

    Sources: Torr and Zisserman, CVIU 2000 (MSAC); Chum, Matas and Kittler, DAGM 2003 (local optimisation); Chum and
    Matas, CVPR 2005 (likely matches first).
    """
    src, dst, mask = _plain(src, np.float32), _plain(dst, np.float32), _plain(mask, np.bool_)
    if model not in SAMPLE_SIZE:
        raise ValueError(f"model is {model!r}; choose one of {', '.join(SAMPLE_SIZE)}")
    if src.shape != dst.shape or src.shape[-1:] != (2,) or src.shape[:-1] != mask.shape:
        raise ValueError(f"src {src.shape} and dst {dst.shape} must be [..., n, 2] and mask {mask.shape} [..., n]")
    batch, n = mask.shape[:-1], mask.shape[-1]
    if math.prod(batch) == 0:
        return Verification(jnp.zeros((*batch, 3, 3)), jnp.asarray(mask), jnp.zeros(batch, jnp.int32), jnp.zeros(batch))
    if model == "fundamental":
        scales = None
    nfa = NfaSettings() if nfa is None else nfa
    candidates = math.prod(batch)
    target_size = 0.0 if nfa.target_size is None else nfa.target_size
    photos_verified = candidates if nfa.photos_verified is None else nfa.photos_verified

    def each(values: Any, *shape: int) -> Any:
        """``values`` of every candidate, [c, *shape]."""
        values, whole = _plain(values, np.float32), (*batch, *shape)
        values = jnp.broadcast_to(values, whole) if isinstance(values, Array) else np.broadcast_to(values, whole)
        return values.reshape(candidates, *shape)

    def matches(values: Any, *shape: int) -> Any:
        return _lengthened(values.reshape(candidates, n, *shape), _rows(n))

    photo = _Candidate(
        src=matches(src, 2),
        dst=matches(dst, 2),
        where=matches(mask),
        scales=None if scales is None else tuple(matches(each(scale, n)) for scale in scales),
        threshold=each(threshold),
        nfa=NfaSettings(
            target_size=each(target_size, 2),
            photos_verified=each(photos_verified),
            cell=each(nfa.cell, 2),
            target_area=None if nfa.target_area is None else each(nfa.target_area),
        ),
    )
    program = partial(_verify_all, model=model, trials=trials, sized=nfa.target_size is not None)
    if _is_traced(photo, key):
        on_cpu, elsewhere = (partial(program, together=together) for together in (False, True))
        found = lax.platform_dependent(photo, candidates, key, cpu=on_cpu, default=elsewhere)
    else:
        is_cpu = jax.default_backend() == "cpu"
        with compiling_for(f"the verification of up to {_rows(n)} matches"):
            found = map_chunks(
                partial(program, key=key, together=not is_cpu),
                photo,
                rows=CHUNK if is_cpu else TOGETHER,
                static=(model, trials, nfa.target_size is None),
                uses_lapack=model == "fundamental",
            )
    found = found._replace(inliers=found.inliers[:, :n])
    return Verification(*(field.reshape((*batch, *field.shape[1:])) for field in found))


def _rows(n: int) -> int:
    """The next of 8, 10, 12, 14, 16, 20, ...: few shapes to compile, because there are only four sizes an octave."""
    step = 2 ** max(1, (max(n, 1) - 1).bit_length() - 3)
    return max(8, math.ceil(n / step) * step)


def _lengthened(values: Any, rows: int) -> Any:
    """``values`` [c, n, ...] as [c, ``rows``, ...], with zeros at the end."""
    if values.shape[1] == rows:
        return values
    if not isinstance(values, np.ndarray):
        return jnp.pad(values, [(0, 0), (0, rows - values.shape[1])] + [(0, 0)] * (values.ndim - 2))
    # np.pad takes as long as verifying a photo.
    longer = np.zeros((len(values), rows, *values.shape[2:]), values.dtype)
    longer[:, : values.shape[1]] = values
    return longer


def _plain(values: ArrayLike | Sequence[ArrayLike], dtype: type[np.generic]) -> Any:
    """A NumPy array, unless it is traced: an operation outside of the compiled program takes as long as a photo."""
    parts = values if isinstance(values, Sequence) else (values,)
    traced = any(isinstance(part, jax.core.Tracer) for part in parts)
    return jnp.asarray(values, dtype) if traced else np.asarray(values, dtype)


def _is_traced(*values: Any) -> bool:
    # While a function is being traced, this zero is a tracer too.
    return any(isinstance(leaf, jax.core.Tracer) for leaf in (*jax.tree.leaves(values), jnp.zeros(())))


class _Candidate(NamedTuple):
    """One candidate photo, or a batch of them, as arrays."""

    src: Array
    dst: Array
    where: Array
    scales: tuple[Array, Array] | None
    threshold: Array
    nfa: NfaSettings


@partial(jax.jit, static_argnames=("model", "trials", "sized", "together"))
def _verify_all(
    photo: _Candidate, count: ArrayLike, key: Array, *, model: Model, trials: int, sized: bool, together: bool
) -> Verification:
    """Verifies all candidates ``together``, or the first ``count`` one by one; the results of the others are zeros."""
    draws = jax.random.uniform(key, (SAMPLE_SIZE[model], trials))
    verify = partial(_verify, draws=draws, model=model, sized=sized)
    candidates, n = photo.where.shape
    if together:
        return lax.map(verify, photo, batch_size=min(candidates, TOGETHER))

    def verify_next(i: Array, found: Verification) -> Verification:
        new = verify(jax.tree.map(lambda x: x[i], photo))
        return jax.tree.map(lambda x, field: x.at[i].set(field), found, new)

    zeros = Verification(
        transform=jnp.zeros((candidates, 3, 3)),
        inliers=jnp.zeros((candidates, n), bool),
        count=jnp.zeros(candidates, jnp.int32),
        log10_nfa=jnp.zeros(candidates),
    )
    return lax.fori_loop(0, count, verify_next, zeros)


def _verify(photo: _Candidate, draws: Float[Array, "m trials"], *, model: Model, sized: bool) -> Verification:
    """Verifies one candidate."""
    photo = _placed(photo)
    if not sized:
        photo = photo._replace(nfa=photo.nfa._replace(target_size=_bounding_box(photo.dst, photo.where)))
    framed = normalised(photo.src, photo.dst, photo.where, photo.scales, photo.threshold)
    best = best_transform(without_gaps(framed[2]), draws, model=model)
    return _proven(photo, framed, *best, model=model)


def _placed(photo: _Candidate) -> _Candidate:
    """Without the matches that have no place in a photo, and without scales that are no numbers."""
    placed = jnp.all((jnp.abs(photo.src) < _FURTHEST) & (jnp.abs(photo.dst) < _FURTHEST), axis=-1)
    src, dst = (jnp.where(placed[..., None], points, 0.0) for points in (photo.src, photo.dst))
    scales = jax.tree.map(lambda each: jnp.where(jnp.isfinite(each), each, 0.0), photo.scales)
    return photo._replace(src=src, dst=dst, where=photo.where & placed, scales=scales)


def _proven(
    photo: _Candidate,
    framed: tuple[Float[Array, "3 3"], Float[Array, "3 3"], NormalisedMatches],
    transform: Float[Array, "3 3"],
    cost: Float[Array, ""],
    *,
    model: Model,
) -> Verification:
    """What the best transform of one candidate proves; ``framed`` is what ``normalised`` returns for it."""
    found = jnp.isfinite(cost)
    into_src, into_dst, matches = framed
    squared = matches.squared_residuals(transform[None], model=model)[0]
    inliers = matches.where & (squared < matches.squared_threshold) & found
    # A sample always agrees with itself: that alone is no model.
    found &= jnp.sum(inliers) > SAMPLE_SIZE[model]
    found &= ~on_a_line(photo.src, photo.dst, inliers, cell=jnp.asarray(photo.nfa.cell))
    inliers &= found
    confidence = log10_nfa(
        photo.src,
        photo.dst,
        photo.where,
        jnp.where(found, jnp.sqrt(squared) / into_dst[0, 0], jnp.inf),
        model=model,
        threshold=photo.threshold,
        nfa=photo.nfa,
    )
    transform = jnp.where(found, in_pixels(transform, into_src, into_dst, model), jnp.eye(3))
    return Verification(transform, inliers, jnp.sum(inliers).astype(jnp.int32), confidence)


def _bounding_box(points: Float[Array, "*batch n 2"], mask: Bool[Array, "*batch n"]) -> Float[Array, "*batch 2"]:
    """(height, width) of the box around the valid points; 1 pixel at least."""
    low = jnp.min(jnp.where(mask[..., None], points, jnp.inf), axis=-2, initial=jnp.inf)
    high = jnp.max(jnp.where(mask[..., None], points, -jnp.inf), axis=-2, initial=-jnp.inf)
    return jnp.maximum(high - low, 1.0)[..., ::-1]
