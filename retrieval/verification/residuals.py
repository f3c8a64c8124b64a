"""Residuals of transforms: their distances to the matches of a candidate photo, and the costs made of them."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from retrieval.verification.transforms import (
    HIGHEST,
    Entries,
    Hypotheses,
    Model,
    entries,
    in_frame,
    normalisation,
    rows_of,
)

# A hypothesis is compared with so many matches at a time: its residuals stay in registers.
BLOCK = 8


class Kind(NamedTuple):
    """Hypotheses of one kind, and the tolerance of their cost in units of the threshold."""

    hypotheses: Hypotheses
    model: Model
    factor: float


class NormalisedMatches(NamedTuple):
    """The matches of one candidate photo, in the normalised frames of both photos.

    Attributes:
        src: [n, 2], points (x, y) in the source frame.
        dst: [n, 2], their partners in the target frame.
        magnification: [n], scale from the source frame to the target frame; 0 where it is not known. None if no scale
            is known.
        where: [n], False for padding.
        valid: number of matches without padding.
        squared_threshold: square of the largest residual of an inlier, in the target frame.
        src_to_dst_scale: brings lengths of the source frame to the target frame, at equal pixels.
    """

    src: Float[Array, "n 2"]
    dst: Float[Array, "n 2"]
    magnification: Float[Array, " n"] | None
    where: Bool[Array, " n"]
    valid: Int[Array, ""]
    squared_threshold: Float[Array, ""]
    src_to_dst_scale: Float[Array, ""]

    def squared_residuals(self, transform: Float[Array, "t 3 3"], *, model: Model) -> Float[Array, "t n"]:
        """Squared residual of every match under every transform."""
        each = [[entry[:, None] for entry in row] for row in entries(transform)]
        return self._squared_distance(each, (self.src[:, 0], self.src[:, 1]), (self.dst[:, 0], self.dst[:, 1]), model)

    def inliers(self, transform: Float[Array, "3 3"], *, model: Model) -> Bool[Array, " n"]:
        """Matches with a residual below the threshold."""
        return self.where & (self.squared_residuals(transform[None], model=model)[0] < self.squared_threshold)

    def cost(self, squared: Float[Array, "t n"], usable: Bool[Array, " t"]) -> Float[Array, " t"]:
        """MSAC cost: the sum of squared residuals, each at most the threshold; infinite where not ``usable``.

        Source: Torr and Zisserman, CVIU 2000.
        """
        cut = jnp.where(self.where, jnp.minimum(squared, self.squared_threshold), 0.0)
        # A product of matrices is several times faster than a sum.
        return jnp.where(usable, jnp.matmul(cut, jnp.ones(cut.shape[1]), precision=HIGHEST), jnp.inf)

    def cost_of_many(self, kinds: Sequence[Kind]) -> list[Float[Array, " _"]]:
        """``cost`` of hypotheses of each kind, for matches without gaps.

        It never holds the residuals of all matches, so many hypotheses fit into the cache of a CPU.
        """
        within = jnp.where(self.where, self.squared_threshold, 0.0)
        fields = jnp.stack([*self.src.T, *self.dst.T, *(within * kind.factor**2 for kind in kinds)])
        fields = jnp.pad(fields, ((0, 0), (0, -fields.shape[1] % BLOCK)))
        # Without the barrier the compiler may fuse the solvers into the loop and solve anew for every block.
        transforms = lax.optimization_barrier(
            [jnp.moveaxis(kind.hypotheses.transform, 0, -1).reshape(9, -1) for kind in kinds]
        )

        def add(block: Int[Array, ""], costs: list[Float[Array, " _"]]) -> list[Float[Array, " _"]]:
            part = lax.dynamic_slice_in_dim(fields, block * BLOCK, BLOCK, axis=1)
            return [
                self._add_block(cost, [[*transform[i : i + 3]] for i in (0, 3, 6)], part[:4], part[4 + k], kind.model)
                for k, (cost, transform, kind) in enumerate(zip(costs, transforms, kinds, strict=True))
            ]

        # Blocks of padding cost no time.
        blocks = (self.valid + BLOCK - 1) // BLOCK
        totals = lax.fori_loop(0, blocks, add, [jnp.zeros(kind.hypotheses.usable.shape) for kind in kinds])
        return [jnp.where(kind.hypotheses.usable, total, jnp.inf) for kind, total in zip(kinds, totals, strict=True)]

    def _add_block(self, cost: Array, transform: Entries, points: Array, limit: Array, model: Model) -> Array:
        for (x, y, u, v), most in zip(points.T, limit, strict=True):
            cost += jnp.minimum(self._squared_distance(transform, (x, y), (u, v), model), most)
        return cost

    def weights(self, squared: Float[Array, "t n"], factor: ArrayLike) -> Float[Array, "t n"]:
        """Tukey's biweight at ``factor`` times the threshold."""
        inside = jnp.maximum(1.0 - squared / (self.squared_threshold * factor**2), 0.0)
        return jnp.where(self.where, inside**2, 0.0)

    def _squared_distance(
        self, transform: Entries, src: tuple[Array, Array], dst: tuple[Array, Array], model: Model
    ) -> Array:
        if model == "fundamental":
            return squared_epipolar_distance(transform, src, dst, src_to_dst_scale=self.src_to_dst_scale)
        return squared_distance(transform, src, dst, model=model)


def squared_distance(transform: Entries, src: tuple[Array, Array], dst: tuple[Array, Array], *, model: Model) -> Array:
    """Squared distance between source points under planar transforms and their partners in the target.

    It is infinite for points on or behind the horizon of a homography. The entries of the transforms and (x, y) of the
    points broadcast.
    """
    x, y = src
    u, v, w = (row[0] * x + row[1] * y + row[2] for row in transform)
    if model == "homography":
        ahead = w > 1e-6
        inverse = 1.0 / jnp.where(ahead, w, 1.0)
        return jnp.where(ahead, (u * inverse - dst[0]) ** 2 + (v * inverse - dst[1]) ** 2, jnp.inf)
    return (u - dst[0]) ** 2 + (v - dst[1]) ** 2


def squared_epipolar_distance(
    fundamental: Entries, src: tuple[Array, Array], dst: tuple[Array, Array], *, src_to_dst_scale: Float[Array, ""]
) -> Array:
    """Squared distance to the epipolar line, in the target frame or in the source frame: the larger one.

    A match must lie near both of its lines, because many a wrong matrix satisfies one of them. The entries of the
    matrices and (x, y) of the points broadcast. ``src_to_dst_scale`` brings lengths of the source frame to the target
    frame.
    """
    f, (x, y), (u, v) = fundamental, src, dst
    a, b, c = (f[i][0] * x + f[i][1] * y + f[i][2] for i in range(3))
    a_back, b_back = (f[0][j] * u + f[1][j] * v + f[2][j] for j in range(2))
    algebraic = (u * a + v * b + c) ** 2
    in_target = algebraic / jnp.maximum(a * a + b * b, 1e-20)
    in_source = algebraic / jnp.maximum(a_back * a_back + b_back * b_back, 1e-20)
    return jnp.maximum(in_target, in_source * src_to_dst_scale**2)


def normalised(
    src: Float[Array, "n 2"],
    dst: Float[Array, "n 2"],
    where: Bool[Array, " n"],
    scales: tuple[Float[Array, " n"], Float[Array, " n"]] | None,
    threshold: Float[Array, ""],
) -> tuple[Float[Array, "3 3"], Float[Array, "3 3"], NormalisedMatches]:
    """The normalisations of both photos, and the matches in their frames; ``threshold`` is in pixels of the target."""
    into_src, into_dst = jax.vmap(normalisation, in_axes=(0, None))(jnp.stack([src, dst]), where)
    ratio = into_dst[0, 0] / into_src[0, 0]
    magnification = None
    if scales is not None:
        known = where & (scales[0] > 0) & (scales[1] > 0)
        magnification = jnp.where(known, scales[0], 0.0) / jnp.where(known, scales[1], 1.0) * ratio
    matches = NormalisedMatches(
        src=jnp.where(where[:, None], in_frame(into_src, src), 0.0),
        dst=jnp.where(where[:, None], in_frame(into_dst, dst), 0.0),
        magnification=magnification,
        where=where,
        valid=jnp.sum(where),
        squared_threshold=(threshold * into_dst[0, 0]) ** 2,
        src_to_dst_scale=ratio,
    )
    return into_src, into_dst, matches


def without_gaps(matches: NormalisedMatches) -> NormalisedMatches:
    """The matches in the same order, with all padding behind them."""
    n = len(matches.where)
    first = jnp.arange(n) < matches.valid

    def closed() -> NormalisedMatches:
        # The row of match k has k matches before it.
        places = jnp.sum(jnp.cumsum(matches.where) <= jnp.arange(n)[:, None], axis=1)
        src, dst, magnification = rows_of((matches.src, matches.dst, matches.magnification), jnp.minimum(places, n - 1))
        return matches._replace(src=src, dst=dst, magnification=magnification, where=first)

    return lax.cond(jnp.all(matches.where == first), lambda: matches, closed)
