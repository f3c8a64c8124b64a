"""Fundamental matrices: the seven-point solver and weighted eight-point refinement.

F [t, 3, 3] maps a source point x to its epipolar line F x in the target photo: x'^T F x = 0. The frames are those of
``transforms.normalisation``. Source: Hartley and Zisserman, Multiple View Geometry, 2nd edition, chapter 11.
"""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from retrieval.verification.transforms import HIGHEST, MIN_SPREAD, Hypotheses, scaled_shift


def from_seven(src: Float[Array, "t 7 2"], dst: Float[Array, "t 7 2"]) -> Hypotheses:
    """The one or three fundamental matrices through each sample of seven matches, as [3 t] hypotheses.

    The seven constraints leave the matrices x F1 + F2; det(x F1 + F2) = 0 is a cubic in x. Samples whose constraints
    are not independent, such as those with coincident points, give no usable hypothesis.
    """
    first, second, regular = _pencil(_constraints(src, dst))
    roots, real = _cubic_roots(*_determinant_cubic(first, second))
    fundamental = roots[..., None, None] * first[:, None] + second[:, None]
    norm = jnp.sqrt(jnp.sum(fundamental**2, axis=(2, 3), keepdims=True))
    usable = real & regular[:, None] & jnp.all(jnp.isfinite(fundamental), axis=(2, 3)) & (norm[..., 0, 0] > 1e-6)
    fundamental = jnp.where(usable[..., None, None], fundamental / jnp.maximum(norm, 1e-6), jnp.eye(3))
    return Hypotheses(fundamental.reshape(-1, 3, 3), usable.reshape(-1))


def refit_fundamental(
    fundamental: Float[Array, "t 3 3"], src: Float[Array, "n 2"], dst: Float[Array, "n 2"], weights: Float[Array, "t n"]
) -> Hypotheses:
    """One weighted eight-point fit of each fundamental matrix, with Sampson weights; the result has rank 2."""
    share = (weights / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1e-12)).T
    into_src, src_spread = _centred_frame(src, share)
    into_dst, dst_spread = _centred_frame(dst, share)
    x, y = (into_src[:, 0, 0] * src[:, i, None] + into_src[:, i, 2] for i in range(2))
    u, v = (into_dst[:, 0, 0] * dst[:, i, None] + into_dst[:, i, 2] for i in range(2))
    a, b = (fundamental[:, i, 0] * src[:, 0, None] + fundamental[:, i, 1] * src[:, 1, None] for i in range(2))
    a, b = a + fundamental[:, 0, 2], b + fundamental[:, 1, 2]
    c, d = (fundamental[:, 0, j] * dst[:, 0, None] + fundamental[:, 1, j] * dst[:, 1, None] for j in range(2))
    c, d = c + fundamental[:, 2, 0], d + fundamental[:, 2, 1]
    gradient = a * a + b * b + c * c + d * d
    row_weight = jnp.sqrt(share / jnp.maximum(gradient / jnp.maximum(jnp.max(gradient, axis=0), 1e-20), 1e-4))
    one = jnp.ones_like(x)
    rows = jnp.stack([u * x, u * y, u, v * x, v * y, v, x, y, one], axis=-1) * row_weight[..., None]
    # The normal equations would square the condition number; QR does not.
    triangle = jnp.linalg.qr(jnp.moveaxis(rows, 0, 1), mode="r")
    solution = jnp.linalg.svd(triangle, full_matrices=False)[2][:, -1].reshape(-1, 3, 3)
    left, values, right = jnp.linalg.svd(solution)
    solution = jnp.einsum("tik,tk,tkj->tij", left[..., :2], values[:, :2], right[:, :2], precision=HIGHEST)
    improved = jnp.einsum("tki,tkl,tlj->tij", into_dst, solution, into_src, precision=HIGHEST)
    improved = improved / jnp.maximum(jnp.sqrt(jnp.sum(improved**2, axis=(1, 2), keepdims=True)), 1e-12)
    enough = jnp.sum(weights > 0, axis=1) >= 8
    usable = (
        enough & (src_spread > MIN_SPREAD) & (dst_spread > MIN_SPREAD) & jnp.all(jnp.isfinite(improved), axis=(1, 2))
    )
    return Hypotheses(jnp.where(usable[:, None, None], improved, fundamental), usable)


def _centred_frame(points: Float[Array, "n 2"], share: Float[Array, "n t"]) -> tuple[Array, Array]:
    """The normalisation [t, 3, 3] of the weighted points, and their spread [t], for each hypothesis."""
    middle = jnp.matmul(share.T, points, precision=HIGHEST)
    squared = sum((points[:, i, None] - middle[:, i]) ** 2 for i in range(2))
    spread = jnp.sqrt(jnp.sum(share * squared, axis=0))
    scale = 1.0 / jnp.maximum(spread, MIN_SPREAD)
    return scaled_shift(scale, -middle[:, 0] * scale, -middle[:, 1] * scale), spread


def _constraints(src: Float[Array, "t k 2"], dst: Float[Array, "t k 2"]) -> Float[Array, "t k 9"]:
    x, y, u, v = src[..., 0], src[..., 1], dst[..., 0], dst[..., 1]
    return jnp.stack([u * x, u * y, u, v * x, v * y, v, x, y, jnp.ones_like(x)], axis=-1)


def _pencil(rows: Float[Array, "t 7 9"]) -> tuple[Array, Array, Bool[Array, " t"]]:
    """Two orthonormal matrices that span the null space of seven constraints, by Householder reflections.

    It is written out so that it runs over all samples at once; LAPACK would take them one by one.
    """
    rows = jnp.moveaxis(rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1e-12), 0, -1)

    def reflected(vectors: Float[Array, "k 9 t"], axis: Float[Array, "9 t"]) -> Float[Array, "k 9 t"]:
        return vectors - 2.0 * jnp.sum(vectors * axis, axis=1, keepdims=True) * axis

    def forth(rows: Float[Array, "7 9 t"], k: Int[Array, ""]) -> tuple[Array, tuple[Array, Array]]:
        place = jnp.arange(9)[:, None]
        tail = jnp.where(place < k, 0.0, rows[k])
        length = jnp.sqrt(jnp.sum(tail**2, axis=0))
        axis = jnp.where(place == k, tail + jnp.where(tail < 0, -length, length), tail)
        axis = axis / jnp.maximum(jnp.sqrt(jnp.sum(axis**2, axis=0)), 1e-12)
        return reflected(rows, axis), (axis, length > 1e-4)

    _, (axes, regular) = lax.scan(forth, rows, jnp.arange(7))
    basis = jnp.broadcast_to(jnp.eye(9)[7:, :, None], (2, 9, rows.shape[-1]))
    basis, _ = lax.scan(lambda basis, axis: (reflected(basis, axis), None), basis, axes, reverse=True)
    basis = jnp.moveaxis(basis, -1, 0).reshape(-1, 2, 3, 3)
    return basis[:, 0], basis[:, 1], jnp.all(regular, axis=0)


def _determinant_cubic(
    first: Float[Array, "t 3 3"], second: Float[Array, "t 3 3"]
) -> tuple[Float[Array, " t"], Float[Array, " t"], Float[Array, " t"], Float[Array, " t"]]:
    """Coefficients of det(x ``first`` + ``second``), highest power first."""
    cofactors, second_cofactors = _cofactors(jnp.stack([first, second]))
    return (
        jnp.sum(first[:, 0] * cofactors[:, 0], axis=-1),
        jnp.sum(second * cofactors, axis=(1, 2)),
        jnp.sum(first * second_cofactors, axis=(1, 2)),
        jnp.sum(second[:, 0] * second_cofactors[:, 0], axis=-1),
    )


def _cofactors(m: Float[Array, "*t 3 3"]) -> Float[Array, "*t 3 3"]:
    # Rows and columns go on with the first ones, so that all nine entries are one expression.
    m = jnp.pad(m, [(0, 0)] * (m.ndim - 2) + [(0, 2), (0, 2)], mode="wrap")
    return m[..., 1:4, 1:4] * m[..., 2:, 2:] - m[..., 1:4, 2:] * m[..., 2:, 1:4]


def _cubic_roots(
    a: Float[Array, " t"], b: Float[Array, " t"], c: Float[Array, " t"], d: Float[Array, " t"]
) -> tuple[Float[Array, "t 3"], Bool[Array, "t 3"]]:
    """Real roots of a x³ + b x² + c x + d, and which of the three are roots (Viète and Cardano, then Newton)."""
    # If the first coefficient is 0, a root is at infinity; the reversed cubic has it at 0.
    swap = jnp.abs(a) < jnp.abs(d)
    a, b, c, d = jnp.where(swap, d, a), jnp.where(swap, c, b), jnp.where(swap, b, c), jnp.where(swap, a, d)
    known = jnp.abs(a) > 1e-12
    safe = jnp.where(known, a, 1.0)
    b, c, d = b / safe, c / safe, d / safe
    q = (b * b - 3.0 * c) / 9.0
    r = (2.0 * b**3 - 9.0 * b * c + 27.0 * d) / 54.0
    three = r * r < q**3
    angle = jnp.arccos(jnp.clip(r / jnp.sqrt(jnp.where(three, q**3, 1.0)), -1.0, 1.0))
    turns = jnp.asarray([0.0, 2.0, -2.0]) * jnp.pi
    trigonometric = -2.0 * jnp.sqrt(jnp.maximum(q, 0.0))[:, None] * jnp.cos((angle[:, None] + turns) / 3.0)
    cube = -jnp.sign(r) * jnp.cbrt(jnp.abs(r) + jnp.sqrt(jnp.maximum(r * r - q**3, 0.0)))
    single = cube + jnp.where(cube == 0.0, 0.0, q / jnp.where(cube == 0.0, 1.0, cube))
    depressed = jnp.where(three[:, None], trigonometric, single[:, None])
    roots = depressed - (b / 3.0)[:, None]
    b, c, d = b[:, None], c[:, None], d[:, None]

    def newton(roots: Float[Array, "t 3"], _: None) -> tuple[Float[Array, "t 3"], None]:
        slope = (3.0 * roots + 2.0 * b) * roots + c
        value = ((roots + b) * roots + c) * roots + d
        steep = jnp.abs(slope) > 1e-6
        return roots - jnp.where(steep, value / jnp.where(steep, slope, 1.0), 0.0), None

    roots, _ = lax.scan(newton, roots, length=2)
    real = known[:, None] & (three[:, None] | (jnp.arange(3) == 0))
    finite = ~swap[:, None] | (jnp.abs(roots) > 1e-6)
    roots = jnp.where(swap[:, None], 1.0 / jnp.where(jnp.abs(roots) > 1e-6, roots, 1.0), roots)
    return roots, real & finite
