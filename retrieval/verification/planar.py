"""Planar transforms between two photos: from minimal samples, from single correspondences, by weighted least squares.

Points are in the frames of ``transforms.normalisation``. Weights are [t, n], matches last.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from retrieval.verification.transforms import (
    HIGHEST,
    MIN_SPREAD,
    SAMPLE_SIZE,
    Hypotheses,
    Model,
    entries,
    finite,
    matrix,
    scaled_shift,
)

# Largest ratio of the singular values, and largest magnification, between two views of one surface. Two oblique views
# of the same ground from sides 60 degrees apart (the demo's aerial pair) have a ratio of 6; the pyramid's scales 0.25
# to 2 span 8.
MAX_ANISOTROPY = 8.0
MAX_MAGNIFICATION = 16.0
# Points count as lying on a line if the sine of their angle is smaller: about one degree.
MIN_SINE = 0.02
# Rounding error of a second moment of coordinates near 1 in float32.
ROUNDING = 4e-7
# The products of two of (1, x, y, u, v) that least squares sum: 1, x, y, u, v, xx, xy, yy, xu, xv, yu, yv, uu, vv.
_FACTORS = np.array([[0, 0, 0, 0, 0, 1, 1, 2, 1, 1, 2, 2, 3, 4], [0, 1, 2, 3, 4, 1, 2, 2, 3, 4, 3, 4, 3, 4]])


def from_single_correspondences(
    src: Float[Array, "n 2"], dst: Float[Array, "n 2"], magnification: Float[Array, " n"], where: Bool[Array, " n"]
) -> Hypotheses:
    """One similarity for each match: it moves the point to its partner and enlarges by ``magnification`` [n].

    DELF features have a scale and no angle, so the similarity does not rotate; refinement finds the rotation. Source:
    Philbin et al., CVPR 2007, section 4 ("1 correspondence, translation and isotropic scale").
    """
    usable = where & (magnification > 1.0 / MAX_MAGNIFICATION) & (magnification < MAX_MAGNIFICATION)
    magnification = jnp.where(usable, magnification, 1.0)
    shift = dst - magnification[:, None] * src
    return Hypotheses(scaled_shift(magnification, shift[:, 0], shift[:, 1]), usable)


def from_samples(src: Float[Array, "t m 2"], dst: Float[Array, "t m 2"], *, model: Model) -> Hypotheses:
    """The transform through each minimal sample; not usable if the sample is degenerate or the transform not plausible.

    ``model`` is "similarity", "affine" or "homography".
    """
    solve = {"similarity": _similarity_of_two, "affine": _affine_of_three, "homography": _homography_of_four}[model]
    transform, regular = solve(src, dst)
    # The sum over the small axis is written out, because the compiler vectorises only sums of whole arrays.
    x, y = ((sum(src[:, i, j] for i in range(1, src.shape[1])) + src[:, 0, j]) / src.shape[1] for j in range(2))
    usable = regular & plausible(transform, (x, y), model=model) & finite(transform)
    return Hypotheses(jnp.where(usable[:, None, None], transform, jnp.eye(3)), usable)


def plausible(
    transform: Float[Array, "t 3 3"], at: tuple[Float[Array, " t"], Float[Array, " t"]], *, model: Model
) -> Bool[Array, " t"]:
    """Whether a transform, linearised at the source points (x, y), is a view of the same surface from the same side.

    It is not for reflections, for points on or behind the horizon, if the ratio of the singular values is above
    ``MAX_ANISOTROPY``, or if the magnification is above ``MAX_MAGNIFICATION`` or below its inverse.
    """
    (a, b, _), (c, d, _), _ = rows = entries(transform)
    ahead = jnp.ones_like(a, bool)
    if model == "homography":
        u, v, w = (row[0] * at[0] + row[1] * at[1] + row[2] for row in rows)
        ahead = w > 1e-6
        inverse = 1.0 / jnp.where(ahead, w, 1.0)
        a, b = ((rows[0][i] - u * inverse * rows[2][i]) * inverse for i in range(2))
        c, d = ((rows[1][i] - v * inverse * rows[2][i]) * inverse for i in range(2))
    determinant = a * d - b * c
    # With singular values s and t: (s² + t²) / (s t) = s/t + t/s.
    round_enough = a * a + b * b + c * c + d * d <= determinant * (MAX_ANISOTROPY + 1.0 / MAX_ANISOTROPY)
    sized = (determinant < MAX_MAGNIFICATION**2) & (determinant > MAX_MAGNIFICATION**-2)
    return ahead & round_enough & sized


def refit(
    transform: Float[Array, "t 3 3"],
    src: Float[Array, "n 2"],
    dst: Float[Array, "n 2"],
    weights: Float[Array, "t n"],
    *,
    model: Model,
    as_affine: ArrayLike = False,
) -> Hypotheses:
    """Improves each transform by one step of weighted least squares over all matches.

    Similarities and affine transforms are solved exactly. A homography takes one Gauss-Newton step on its geometric
    error; with ``as_affine`` it becomes the best affine transform. A result is not usable if too few matches have a
    weight, if they lie on a line, or if it is not ``plausible``; then the given transform is returned.
    """
    # One product of matrices is faster than fourteen sums.
    factors = jnp.concatenate([jnp.ones_like(src[:, :1]), src, dst], axis=1).T
    products = factors[_FACTORS[0]] * factors[_FACTORS[1]]
    sums = jnp.matmul(products, weights.T, precision=HIGHEST)
    total = jnp.maximum(sums[0], 1e-12)
    x, y, u, v, xx, xy, yy, xu, xv, yu, yv, uu, vv = sums[1:] / total
    xx, xy, yy = xx - x * x, xy - x * y, yy - y * y
    spread = xx + yy
    # Fewer matches than a minimal sample are a point or a line.
    regular = spread > MIN_SPREAD**2
    if model != "similarity":
        regular &= xx * yy - xy * xy > (MIN_SINE * spread) ** 2 + ROUNDING * spread
    xu, xv, yu, yv = xu - x * u, xv - x * v, yu - y * u, yv - y * v
    inverse = 1.0 / jnp.where(regular, spread if model == "similarity" else xx * yy - xy * xy, 1.0)
    if model == "similarity":
        a, b = (xu + yv) * inverse, (xv - yu) * inverse
        linear = a, -b, b, a
    else:
        linear = (
            (xu * yy - yu * xy) * inverse,
            (yu * xx - xu * xy) * inverse,
            (xv * yy - yv * xy) * inverse,
            (yv * xx - xv * xy) * inverse,
        )
    improved = _affine(linear, (x, y), (u, v))
    if model == "homography":
        regular &= as_affine | (jnp.sum(weights > 0, axis=1) >= SAMPLE_SIZE[model])
        sizes = jnp.sqrt(jnp.where(regular, spread, 1.0)), jnp.sqrt(jnp.maximum(uu - u * u + vv - v * v, MIN_SPREAD**2))
        middles = jnp.stack([x, y], axis=-1), jnp.stack([u, v], axis=-1)
        share = weights / total[:, None]
        improved = lax.cond(
            as_affine,
            lambda: improved,
            lambda: _gauss_newton(transform, src, dst, share, middles, sizes),
        )
    usable = regular & plausible(improved, (x, y), model=model) & finite(improved)
    return Hypotheses(jnp.where(usable[:, None, None], improved, transform), usable)


def _affine(
    linear: tuple[Array, Array, Array, Array], src: tuple[Array, Array], dst: tuple[Array, Array]
) -> Float[Array, "t 3 3"]:
    """The affine transforms with the given linear part (row by row) that move (x, y) of ``src`` to ``dst``."""
    a, b, c, d = linear
    zero, one = jnp.zeros_like(a), jnp.ones_like(a)
    x = dst[0] - a * src[0] - b * src[1]
    y = dst[1] - c * src[0] - d * src[1]
    return matrix([[a, b, x], [c, d, y], [zero, zero, one]])


def _similarity_of_two(src: Float[Array, "t 2 2"], dst: Float[Array, "t 2 2"]) -> tuple[Array, Array]:
    s, d = src[:, 1] - src[:, 0], dst[:, 1] - dst[:, 0]
    squared = s[:, 0] ** 2 + s[:, 1] ** 2
    regular = squared > MIN_SPREAD**2
    inverse = 1.0 / jnp.where(regular, squared, 1.0)
    a = (s[:, 0] * d[:, 0] + s[:, 1] * d[:, 1]) * inverse
    b = (s[:, 0] * d[:, 1] - s[:, 1] * d[:, 0]) * inverse
    return _affine((a, -b, b, a), (src[:, 0, 0], src[:, 0, 1]), (dst[:, 0, 0], dst[:, 0, 1])), regular


def _affine_of_three(src: Float[Array, "t 3 2"], dst: Float[Array, "t 3 2"]) -> tuple[Array, Array]:
    s, d = src[:, 1:] - src[:, :1], dst[:, 1:] - dst[:, :1]
    determinant = s[:, 0, 0] * s[:, 1, 1] - s[:, 0, 1] * s[:, 1, 0]
    longest = jnp.maximum(*(s[:, i, 0] ** 2 + s[:, i, 1] ** 2 for i in range(2)))
    regular = (longest > MIN_SPREAD**2) & (jnp.abs(determinant) > MIN_SINE * longest)
    inverse = 1.0 / jnp.where(regular, determinant, 1.0)
    a, c = ((d[:, 0, i] * s[:, 1, 1] - d[:, 1, i] * s[:, 0, 1]) * inverse for i in range(2))
    b, e = ((d[:, 1, i] * s[:, 0, 0] - d[:, 0, i] * s[:, 1, 0]) * inverse for i in range(2))
    return _affine((a, b, c, e), (src[:, 0, 0], src[:, 0, 1]), (dst[:, 0, 0], dst[:, 0, 1])), regular


def _homography_of_four(src: Float[Array, "t 4 2"], dst: Float[Array, "t 4 2"]) -> tuple[Array, Array]:
    """The homography between the projective bases of the four points.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd edition, section 2.3.
    """
    src_area, dst_area = _triangles(src), _triangles(dst)
    spread = jnp.max(jnp.sum((src - jnp.roll(src, 1, axis=1)) ** 2, axis=2), axis=1)
    # A view from the same side keeps the sense of every triangle; a reflection or a crossed horizon does not.
    same_side = jnp.all(src_area * dst_area > 0, axis=1)
    regular = same_side & (spread > MIN_SPREAD**2)
    regular &= jnp.min(jnp.abs(src_area), axis=1) > MIN_SINE * spread
    src_area = jnp.where(regular[:, None], src_area, 1.0)
    dst_area = jnp.where(regular[:, None], dst_area, 1.0)
    ratio = dst_area[:, :3] / src_area[:, :3]
    # Column i of a basis is point i times the area of the triangle opposite to it. Row i of the inverse source basis is
    # the line through the other two points. So H is a sum of outer products.
    lines = jnp.cross(_homogeneous(jnp.roll(src[:, :3], -1, axis=1)), _homogeneous(jnp.roll(src[:, :3], -2, axis=1)))
    transform = jnp.einsum("tk,tki,tkj->tij", ratio, _homogeneous(dst[:, :3]), lines, precision=HIGHEST)
    w = transform[:, 2, 0] * src[:, 0, 0] + transform[:, 2, 1] * src[:, 0, 1] + transform[:, 2, 2]
    sign = jnp.where(w < 0, -1.0, 1.0)
    norm = jnp.sqrt(jnp.sum(transform**2, axis=(1, 2)))
    return transform * (sign / jnp.maximum(norm, 1e-12))[:, None, None], regular


def _triangles(points: Float[Array, "t 4 2"]) -> Float[Array, "t 4"]:
    """Twice the signed areas of (2, 3, 4), (3, 1, 4), (1, 2, 4) and (1, 2, 3)."""

    def area(i: int, j: int, k: int) -> Float[Array, " t"]:
        p, q = points[:, j] - points[:, i], points[:, k] - points[:, i]
        return p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]

    return jnp.stack([area(1, 2, 3), area(2, 0, 3), area(0, 1, 3), area(0, 1, 2)], axis=1)


def _homogeneous(points: Float[Array, "t k 2"]) -> Float[Array, "t k 3"]:
    return jnp.concatenate([points, jnp.ones_like(points[..., :1])], axis=-1)


def _gauss_newton(
    transform: Float[Array, "t 3 3"],
    src: Float[Array, "n 2"],
    dst: Float[Array, "n 2"],
    share: Float[Array, "t n"],
    middles: tuple[Float[Array, "t 2"], Float[Array, "t 2"]],
    sizes: tuple[Float[Array, " t"], Float[Array, " t"]],
) -> Float[Array, "t 3 3"]:
    """One Gauss-Newton step on the weighted transfer error, in frames centred on the weighted points.

    The horizon is far away in these frames. ``share`` are weights that sum to 1, ``middles`` and ``sizes`` those of the
    weighted points in both photos.
    """
    local = _in_frames(transform, middles, sizes)
    corner = local[:, 2, 2]
    local = local / jnp.where(corner > 1e-6, corner, 1.0)[:, None, None]
    (x, y), (u, v) = (
        [(points[:, i] - middle[:, i, None]) / size[:, None] for i in range(2)]
        for points, middle, size in zip((src, dst), middles, sizes)
    )
    (a, b, c), (d, e, f), (g, h, _) = ([entry[:, None] for entry in row] for row in entries(local))
    w = g * x + h * y + 1.0
    root = jnp.sqrt(jnp.where(w > 1e-3, share, 0.0))
    inverse = 1.0 / jnp.where(w > 1e-3, w, 1.0)
    fit_u, fit_v = (a * x + b * y + c) * inverse, (d * x + e * y + f) * inverse
    one = inverse * root
    x, y, zero = x * one, y * one, jnp.zeros_like(one)
    # Derivatives of the errors by the eight entries, and the errors themselves.
    rows = [
        [x, y, one, zero, zero, zero, -fit_u * x, -fit_u * y, (u - fit_u) * root],
        [zero, zero, zero, x, y, one, -fit_v * x, -fit_v * y, (v - fit_v) * root],
    ]
    stacked = jnp.stack([column for pair in zip(*rows) for column in pair], axis=1).reshape(len(share), 9, -1)
    normal = jnp.einsum("tin,tjn->tij", stacked, stacked, precision=HIGHEST)[:, :8]
    # A little damping keeps what few or clustered inliers do not determine.
    damping = 1e-6 * jnp.trace(normal, axis1=1, axis2=2) + 1e-12
    step = _solved(normal + damping[:, None, None] * jnp.eye(8, 9))
    local = local + jnp.pad(step, ((0, 0), (0, 1))).reshape(-1, 3, 3)
    return _in_frames(local, [-middle / size[:, None] for middle, size in zip(middles, sizes)], [1 / s for s in sizes])


def _in_frames(
    transform: Float[Array, "t 3 3"],
    middles: Sequence[Float[Array, "t 2"]],
    sizes: Sequence[Float[Array, " t"]],
) -> Float[Array, "t 3 3"]:
    """The transforms between frames with the origin at ``middles`` and ``sizes`` as unit, of the source and target."""
    last = transform[:, :, 2] + transform[:, :, 0] * middles[0][:, :1] + transform[:, :, 1] * middles[0][:, 1:]
    columns = jnp.concatenate([transform[:, :, :2] * sizes[0][:, None, None], last[:, :, None]], axis=2)
    rows = (columns[:, :2] - middles[1][:, :, None] * columns[:, 2:]) / sizes[1][:, None, None]
    return jnp.concatenate([rows, columns[:, 2:]], axis=1)


def _solved(system: Float[Array, "t n n+1"]) -> Float[Array, "t n"]:
    """Solutions of symmetric positive definite systems with their right sides in the last column, all at once.

    LAPACK would solve them one by one, and two programs that call it at once can deadlock (see ``chunks``). Such
    systems need no pivoting.
    """
    size = system.shape[1]

    def eliminate(system: Array, k: Array) -> tuple[Array, None]:
        row = system[:, k] / jnp.maximum(system[:, k, k], jnp.finfo(system.dtype).tiny)[:, None]
        rest = system - system[:, :, k, None] * row[:, None]
        return jnp.where((jnp.arange(size) == k)[:, None], row[:, None], rest), None

    return lax.scan(eliminate, system, jnp.arange(size))[0][:, :, -1]
