"""Planar transforms between two photos: from minimal samples, from single correspondences, by weighted least squares.

Points are in the frames of ``transforms.normalisation``. Weights are [t, n], matches last.
"""

import jax.numpy as jnp
from jax import Array
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
    at = jnp.stack([sum(src[:, i, j] for i in range(1, src.shape[1])) + src[:, 0, j] for j in range(2)], axis=-1)
    usable = regular & plausible(transform, at / src.shape[1]) & finite(transform)
    return Hypotheses(jnp.where(usable[:, None, None], transform, jnp.eye(3)), usable)


def plausible(transform: Float[Array, "t 3 3"], at: Float[Array, "t 2"]) -> Bool[Array, " t"]:
    """Whether a transform, linearised at the source point ``at``, is a view of the same surface from the same side.

    It is not for reflections, for points on or behind the horizon, if the ratio of the singular values is above
    ``MAX_ANISOTROPY``, or if the magnification is above ``MAX_MAGNIFICATION`` or below its inverse.
    """
    x, y = at[:, 0], at[:, 1]
    u, v, w = (transform[:, i, 0] * x + transform[:, i, 1] * y + transform[:, i, 2] for i in range(3))
    ahead = w > 1e-6
    w = jnp.where(ahead, w, 1.0)
    a, b = ((transform[:, 0, i] - u / w * transform[:, 2, i]) / w for i in range(2))
    c, d = ((transform[:, 1, i] - v / w * transform[:, 2, i]) / w for i in range(2))
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
) -> Hypotheses:
    """Improves each transform by one step of weighted least squares over all matches.

    Similarities and affine transforms are solved exactly; a homography takes one Gauss-Newton step on its geometric
    error. A result is not usable if too few matches have a weight, if they lie on a line, or if it is not
    ``plausible``; then the given transform is returned.
    """
    x, y, u, v = src[:, 0], src[:, 1], dst[:, 0], dst[:, 1]
    products = [x, y, u, v, x * x, x * y, y * y, x * u, x * v, y * u, y * v]
    # One product of matrices is faster than twelve sums.
    sums = jnp.matmul(jnp.stack([jnp.ones_like(x), *products]), weights.T, precision=HIGHEST)
    x, y, u, v, xx, xy, yy, xu, xv, yu, yv = sums[1:] / jnp.maximum(sums[0], 1e-12)
    xx, xy, yy = xx - x * x, xy - x * y, yy - y * y
    middle = jnp.stack([x, y], axis=-1), jnp.stack([u, v], axis=-1)
    spread = xx + yy
    # Fewer matches than a minimal sample are a point or a line.
    regular = spread > MIN_SPREAD**2
    if model != "similarity":
        regular &= xx * yy - xy * xy > (MIN_SINE * spread) ** 2 + ROUNDING * spread
    if model == "homography":
        regular &= jnp.sum(weights > 0, axis=1) >= SAMPLE_SIZE[model]
        x, y, u, v = (points[:, i] - middle[j][:, i, None] for j, points in enumerate((src, dst)) for i in range(2))
        share = weights / jnp.maximum(sums[0], 1e-12)[:, None]
        improved = _gauss_newton(transform, (x, y), (u, v), share, middle, jnp.where(regular, spread, 1.0))
    else:
        xu, xv, yu, yv = xu - x * u, xv - x * v, yu - y * u, yv - y * v
        if model == "similarity":
            scale = jnp.where(regular, spread, 1.0)
            a, b = (xu + yv) / scale, (xv - yu) / scale
            linear = a, -b, b, a
        else:
            determinant = jnp.where(regular, xx * yy - xy * xy, 1.0)
            linear = (
                (xu * yy - yu * xy) / determinant,
                (yu * xx - xu * xy) / determinant,
                (xv * yy - yv * xy) / determinant,
                (yv * xx - xv * xy) / determinant,
            )
        improved = _affine(linear, *middle)
    usable = regular & plausible(improved, middle[0]) & finite(improved)
    return Hypotheses(jnp.where(usable[:, None, None], improved, transform), usable)


def _affine(
    linear: tuple[Array, Array, Array, Array], src: Float[Array, "t 2"], dst: Float[Array, "t 2"]
) -> Float[Array, "t 3 3"]:
    """The affine transforms with the given linear part (row by row) that move ``src`` to ``dst``."""
    a, b, c, d = linear
    zero, one = jnp.zeros_like(a), jnp.ones_like(a)
    x = dst[:, 0] - a * src[:, 0] - b * src[:, 1]
    y = dst[:, 1] - c * src[:, 0] - d * src[:, 1]
    return matrix([[a, b, x], [c, d, y], [zero, zero, one]])


def _similarity_of_two(src: Float[Array, "t 2 2"], dst: Float[Array, "t 2 2"]) -> tuple[Array, Array]:
    s, d = src[:, 1] - src[:, 0], dst[:, 1] - dst[:, 0]
    squared = s[:, 0] ** 2 + s[:, 1] ** 2
    regular = squared > MIN_SPREAD**2
    squared = jnp.where(regular, squared, 1.0)
    a = (s[:, 0] * d[:, 0] + s[:, 1] * d[:, 1]) / squared
    b = (s[:, 0] * d[:, 1] - s[:, 1] * d[:, 0]) / squared
    return _affine((a, -b, b, a), src[:, 0], dst[:, 0]), regular


def _affine_of_three(src: Float[Array, "t 3 2"], dst: Float[Array, "t 3 2"]) -> tuple[Array, Array]:
    s, d = src[:, 1:] - src[:, :1], dst[:, 1:] - dst[:, :1]
    determinant = s[:, 0, 0] * s[:, 1, 1] - s[:, 0, 1] * s[:, 1, 0]
    longest = jnp.maximum(*(s[:, i, 0] ** 2 + s[:, i, 1] ** 2 for i in range(2)))
    regular = (longest > MIN_SPREAD**2) & (jnp.abs(determinant) > MIN_SINE * longest)
    determinant = jnp.where(regular, determinant, 1.0)
    a, c = ((d[:, 0, i] * s[:, 1, 1] - d[:, 1, i] * s[:, 0, 1]) / determinant for i in range(2))
    b, e = ((d[:, 1, i] * s[:, 0, 0] - d[:, 0, i] * s[:, 1, 0]) / determinant for i in range(2))
    return _affine((a, b, c, e), src[:, 0], dst[:, 0]), regular


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
    src: tuple[Array, Array],
    dst: tuple[Array, Array],
    share: Float[Array, "t n"],
    middle: tuple[Array, Array],
    spread: Float[Array, " t"],
) -> Float[Array, "t 3 3"]:
    """One Gauss-Newton step on the weighted transfer error, in frames centred on the weighted points.

    The horizon is far away in these frames.
    """
    size = jnp.sqrt(spread)
    dst_size = jnp.maximum(jnp.sqrt(jnp.sum(share * (dst[0] ** 2 + dst[1] ** 2), axis=1)), MIN_SPREAD)
    (x, y), (u, v) = (c / size[:, None] for c in src), (c / dst_size[:, None] for c in dst)
    into = scaled_shift(1 / size, -middle[0][:, 0] / size, -middle[0][:, 1] / size)
    back = scaled_shift(size, middle[0][:, 0], middle[0][:, 1])
    target_into = scaled_shift(1 / dst_size, -middle[1][:, 0] / dst_size, -middle[1][:, 1] / dst_size)
    target_back = scaled_shift(dst_size, middle[1][:, 0], middle[1][:, 1])
    local = jnp.matmul(jnp.matmul(target_into, transform, precision=HIGHEST), back, precision=HIGHEST)
    corner = local[:, 2, 2]
    local = local / jnp.where(corner > 1e-6, corner, 1.0)[:, None, None]

    (a, b, c), (d, e, f), (g, h, _) = ([entry[:, None] for entry in row] for row in entries(local))
    w = g * x + h * y + 1.0
    inverse = 1.0 / jnp.where(w > 1e-3, w, 1.0)
    fit_u, fit_v = (a * x + b * y + c) * inverse, (d * x + e * y + f) * inverse
    root = jnp.sqrt(jnp.where(w > 1e-3, share, 0.0))
    x, y, one = x * inverse * root, y * inverse * root, inverse * root
    zero = jnp.zeros_like(x)
    columns = [
        [x, y, one, zero, zero, zero, -fit_u * x, -fit_u * y],
        [zero, zero, zero, x, y, one, -fit_v * x, -fit_v * y],
    ]
    rows = jnp.concatenate([jnp.stack(column, axis=1) for column in columns], axis=2)
    errors = jnp.concatenate([(u - fit_u) * root, (v - fit_v) * root], axis=1)
    normal = jnp.einsum("tin,tjn->tij", rows, rows, precision=HIGHEST)
    right = jnp.einsum("tin,tn->ti", rows, errors, precision=HIGHEST)
    # A little damping keeps what few or clustered inliers do not determine.
    damping = 1e-6 * jnp.trace(normal, axis1=1, axis2=2) + 1e-12
    step = _solved(normal + damping[:, None, None] * jnp.eye(8), right)
    local = local + jnp.pad(step, ((0, 0), (0, 1))).reshape(-1, 3, 3)
    return jnp.matmul(jnp.matmul(target_back, local, precision=HIGHEST), into, precision=HIGHEST)


def _solved(matrix: Float[Array, "t n n"], right: Float[Array, "t n"]) -> Float[Array, "t n"]:
    """Solutions of symmetric positive definite systems, all at once, by L D L^T factors.

    LAPACK would solve them one by one, and two programs that call it at once can deadlock (see ``cpu_threads``).
    """
    size = right.shape[1]
    lower: list[list[Array]] = [[] for _ in range(size)]
    pivot: list[Array] = []
    found: list[Array] = []
    for i in range(size):
        # Row i of L D, minus what the columns before it account for.
        scaled: list[Array] = []
        for j in range(i):
            entry = matrix[:, i, j]
            for k in range(j):
                entry = entry - scaled[k] * lower[j][k]
            scaled.append(entry)
            lower[i].append(entry / pivot[j])
        rest, value = matrix[:, i, i], right[:, i]
        for k in range(i):
            rest, value = rest - scaled[k] * lower[i][k], value - lower[i][k] * found[k]
        pivot.append(jnp.maximum(rest, jnp.finfo(rest.dtype).tiny))
        found.append(value)
    for i in reversed(range(size)):
        found[i] = found[i] / pivot[i]
        for k in range(i + 1, size):
            found[i] = found[i] - lower[k][i] * found[k]
    return jnp.stack(found, axis=1)
