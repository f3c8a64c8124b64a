"""How well transforms agree with the matches of one candidate photo."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from retrieval.verification import epipolar, geometry
from retrieval.verification.geometry import HIGHEST, Candidates, Model

# Matches that a hypothesis meets while it is in registers.
BLOCK = 8


class Fit(NamedTuple):
    """Normalised matches of one candidate, and how a transform is held against them."""

    src: Float[Array, "n 2"]
    dst: Float[Array, "n 2"]
    magnification: Float[Array, " n"] | None  # from frame to frame; 0 where it is not known
    where: Bool[Array, " n"]
    valid: Int[Array, ""]
    limit: Float[Array, ""]  # squared threshold in the target frame
    src_to_dst: Float[Array, ""]  # brings lengths of the source frame to the target frame, at equal pixels

    def squared_residuals(self, transform: Float[Array, "t 3 3"], *, model: Model) -> Float[Array, "t n"]:
        each = [[entry[:, None] for entry in row] for row in geometry.entries(transform)]
        return self.squared_distance(each, (self.src[:, 0], self.src[:, 1]), (self.dst[:, 0], self.dst[:, 1]), model)

    def squared_distance(
        self, transform: geometry.Entries, src: tuple[Array, Array], dst: tuple[Array, Array], model: Model
    ) -> Array:
        if model == "fundamental":
            return epipolar.squared_epipolar_distance(transform, src, dst, src_to_dst_scale=self.src_to_dst)
        return geometry.squared_distance(transform, src, dst, model=model)

    def cost(self, squared: Float[Array, "t n"], usable: Bool[Array, " t"]) -> Float[Array, " t"]:
        """MSAC: squared residuals, cut at the threshold."""
        cut = jnp.where(self.where, jnp.minimum(squared, self.limit), 0.0)
        # A product of matrices is several times faster than a sum.
        return jnp.where(usable, jnp.matmul(cut, jnp.ones(cut.shape[1]), precision=HIGHEST), jnp.inf)

    def cost_of_many(
        self, hypotheses: Candidates, blocks: Int[Array, ""], factor: float, *, model: Model
    ) -> Float[Array, " t"]:
        """``cost`` at ``factor`` times the threshold over so many blocks of matches, without holding residuals."""
        limit = jnp.where(self.where, self.limit * factor**2, 0.0)
        fields = (*self.src.T, *self.dst.T, limit)
        fields = tuple(jnp.pad(field, (0, -limit.shape[0] % BLOCK)) for field in fields)
        # Without the barrier the compiler may fuse the solvers into the loop and solve anew for every block.
        transform = lax.optimization_barrier(geometry.entries(hypotheses.transform))

        def add(block: Int[Array, ""], cost: Float[Array, " t"]) -> Float[Array, " t"]:
            part = [lax.dynamic_slice_in_dim(field, block * BLOCK, BLOCK) for field in fields]
            for x, y, u, v, most in zip(*part, strict=True):
                cost += jnp.minimum(self.squared_distance(transform, (x, y), (u, v), model), most)
            return cost

        total = lax.fori_loop(0, blocks, add, jnp.zeros(hypotheses.usable.shape))
        return jnp.where(hypotheses.usable, total, jnp.inf)

    def weights(self, squared: Float[Array, "t n"], factor: ArrayLike) -> Float[Array, "t n"]:
        """Tukey's biweight at ``factor`` times the threshold."""
        inside = jnp.maximum(1.0 - squared / (self.limit * factor**2), 0.0)
        return jnp.where(self.where, inside**2, 0.0)
