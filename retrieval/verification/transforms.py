"""3x3 transforms between two photos: their kinds, their entries, and the frames in which they are computed.

Transforms are [t, 3, 3] from source to target points (x, y). They are computed in frames made by ``normalisation``,
because float32 needs coordinates near 1.
"""

from typing import Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int

Model = Literal["similarity", "affine", "homography", "fundamental"]
# Matches of a minimal sample.
SAMPLE_SIZE: dict[str, int] = {"similarity": 2, "affine": 3, "homography": 4, "fundamental": 7}

# A set of points with a smaller spread counts as one point: half a pixel in a photo of 1000, in normalised units.
MIN_SPREAD = 1e-3

HIGHEST = lax.Precision.HIGHEST

Entries = list[list[Array]]
Rows = TypeVar("Rows")


class Hypotheses(NamedTuple):
    """Transforms [t, 3, 3] and whether each may be used [t]; those that may not hold finite numbers."""

    transform: Float[Array, "t 3 3"]
    usable: Bool[Array, " t"]


def normalisation(points: Float[Array, "n 2"], where: Bool[Array, " n"]) -> Float[Array, "3 3"]:
    """The similarity [3, 3] that brings the bounding box of the points to [-1, 1] in its longer direction.

    A box, unlike a mean, does not depend on the order of summation, so padding changes no bit of the result. Boxes
    smaller than a pixel count as one pixel.
    """
    low = jnp.min(jnp.where(where[:, None], points, jnp.inf), axis=0, initial=jnp.inf)
    high = jnp.max(jnp.where(where[:, None], points, -jnp.inf), axis=0, initial=-jnp.inf)
    low, high = jnp.where(jnp.any(where), low, 0.0), jnp.where(jnp.any(where), high, 0.0)
    scale = 2.0 / jnp.maximum(jnp.max(high - low), 1.0)
    x, y = (low + high) / 2.0
    return scaled_shift(scale, -scale * x, -scale * y)


def scaled_shift(scale: Float[Array, "..."], x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "... 3 3"]:
    """The transforms [..., 3, 3] that multiply by ``scale`` and then add (x, y)."""
    zero, one = jnp.zeros_like(scale), jnp.ones_like(scale)
    return matrix([[scale, zero, x], [zero, scale, y], [zero, zero, one]])


def matrix(rows: list[list[Array]]) -> Float[Array, "... 3 3"]:
    """Matrices [..., 3, 3] from nine equal-shaped entries."""
    # The compiler keeps the order in memory in which they are stacked: an entry of all matrices stays contiguous.
    stacked = jnp.stack([entry for row in rows for entry in row])
    return jnp.moveaxis(stacked.reshape(3, 3, *stacked.shape[1:]), (0, 1), (-2, -1))


def rows_of(tree: Rows, rows: Int[Array, "..."]) -> Rows:
    """The given rows of all arrays; the rows must exist."""
    found: Rows = jax.tree.map(lambda x: x.at[rows].get(mode="promise_in_bounds"), tree)
    return found


def in_frame(into: Float[Array, "3 3"], points: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
    """Points [n, 2] under a ``normalisation``."""
    return into[0, 0] * points + into[:2, 2]


def entries(transform: Float[Array, "t 3 3"]) -> Entries:
    """The nine entries of the transforms, row by row, each [t]."""
    return [[transform[:, i, j] for j in range(3)] for i in range(3)]


def finite(transform: Float[Array, "t 3 3"]) -> Bool[Array, " t"]:
    """Whether all nine entries of each transform are finite."""
    first, *others = (jnp.abs(entry) for row in entries(transform) for entry in row)
    return sum(others, start=first) < jnp.inf


def in_pixels(
    transform: Float[Array, "3 3"], into_src: Float[Array, "3 3"], into_dst: Float[Array, "3 3"], model: Model
) -> Float[Array, "3 3"]:
    """The transform between pixels of both photos, from one between their normalised frames.

    A fundamental matrix gets norm 1, other transforms a last entry of 1.
    """
    if model == "fundamental":
        transform = jnp.matmul(jnp.matmul(into_dst.T, transform, precision=HIGHEST), into_src, precision=HIGHEST)
        return transform / jnp.maximum(jnp.sqrt(jnp.sum(transform**2)), 1e-30)
    scale = 1.0 / into_dst[0, 0]
    back = scaled_shift(scale, -into_dst[0, 2] * scale, -into_dst[1, 2] * scale)
    transform = jnp.matmul(jnp.matmul(back, transform, precision=HIGHEST), into_src, precision=HIGHEST)
    corner = transform[2, 2]
    return transform / jnp.where(jnp.abs(corner) > 1e-6 * jnp.sqrt(jnp.sum(transform**2)), corner, 1.0)
