"""The running sums that give the foreground direction. They merge with ``a + b``, and ``a - b`` forgets photos.

The sums are those of the features f and of the unit features f / ||f||, with counts and a histogram of the norms, for
all photos together and for each class. Their size is O(C), whatever the number of photos. Sums are float32 within a
photo and float64 across photos: w* is the difference of two nearly parallel means, so rounding errors would turn it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from delf_jax.errors import PredictorError

NORM_EDGES = np.concatenate([[0.0], np.logspace(-6, 6, 961), [np.inf]])
"""Edges of the norm histogram: one bin below 1e-6, then 80 bins a decade (each 2.9 % wide)."""


class PositionSums(NamedTuple):
    """Sums over the positions of each photo: feature, unit [..., C], positions int32 [...]; and norms [..., h, w]."""

    feature: Float[Array, "*b c"]
    unit: Float[Array, "*b c"]
    positions: Int[Array, "*b"]
    norms: Float[Array, "*b h w"]


@jax.jit
def position_sums(
    dense: Float[Array | np.ndarray, "*b h w c"],
    where: Bool[Array | np.ndarray, "*b h w"],
    norm_cap: Float[Array | np.ndarray, ""] | float = np.inf,
) -> PositionSums:
    """Sums of f and of f / max(||f||, 1e-12) over the positions of each photo.

    Args:
        dense: [..., h, w, C] feature maps of any float type; the sums are computed in float32.
        where: bool [..., h, w], the positions that count.
        norm_cap: longer features are shortened to this norm first; infinity changes nothing.

    Returns:
        float32 sums. The norms are those after shortening, and 0 where ``where`` is False.
    """
    dense = jnp.where(where[..., None], dense.astype(jnp.float32), 0)
    norms = jnp.linalg.norm(dense, axis=-1)
    unit = dense / jnp.maximum(norms, 1e-12)[..., None]
    capped = jnp.minimum(norms, norm_cap)
    feature = jnp.sum(unit * capped[..., None], axis=(-3, -2))
    return PositionSums(feature, jnp.sum(unit, axis=(-3, -2)), jnp.sum(where, axis=(-2, -1), dtype=jnp.int32), capped)


def unit_features(features: Float[Array | np.ndarray, "*b h w c"]) -> Float[Array, "*b h w c"]:
    """f / max(||f||, 1e-12) in float32."""
    features = jnp.asarray(features, jnp.float32)
    return features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """Sums over one group of positions: feature and unit float64 [C], count of positions."""

    feature: Float[np.ndarray, " c"]
    unit: Float[np.ndarray, " c"]
    count: int

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.feature + other.feature, self.unit + other.unit, self.count + other.count)

    def __sub__(self, other: "Sums") -> "Sums":
        if self.count == other.count:  # nothing is left, not even the rounding errors
            return Sums(np.zeros_like(self.feature), np.zeros_like(self.unit), 0)
        return Sums(self.feature - other.feature, self.unit - other.unit, self.count - other.count)

    @property
    def mean_unit(self) -> Float[np.ndarray, " c"]:
        """u, the mean unit feature."""
        return self.unit / self.count


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """Everything that fitting has to remember about the training photos.

    Attributes:
        total: sums over all positions.
        photos: number of photos.
        norm_sum, norm_square_sum: sums of the norms and of their squares, over all positions.
        norm_histogram: int64 [962], counts of norms between ``NORM_EDGES``.
        classes: sums by class name; empty unless the photos had classes.
        norm_cap: the norms were cut at this value; infinity if they were not.
        encoder: JSON description of the encoder. Statistics of different encoders cannot be added.
    """

    total: Sums
    photos: int
    norm_sum: float
    norm_square_sum: float
    norm_histogram: Int[np.ndarray, " bins"]
    classes: Mapping[str, Sums] = dataclasses.field(default_factory=dict)
    norm_cap: float = np.inf
    encoder: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_photo(
        cls,
        dense: Float[np.ndarray, "h w c"],
        *,
        where: Bool[np.ndarray, "h w"] | None = None,
        label: str | None = None,
        norm_cap: float = np.inf,
        encoder: Mapping[str, Any] | None = None,
    ) -> "Statistics":
        """The statistics of one photo from its feature map, float [h, w, C].

        Args:
            where: the positions that count; None for all.
            label: the photo's class.

        Raises:
            PredictorError: the map holds NaN or infinity.
        """
        h, w, c = dense.shape
        where = np.ones((h, w), bool) if where is None else np.asarray(where)
        # Padded to a power of two positions, so that photos of all sizes share a dozen compiled programs.
        rows = 1 << max(h * w - 1, 1).bit_length()
        padded = np.zeros((rows, 1, c), np.float32)
        padded[: h * w] = np.asarray(dense, np.float32).reshape(h * w, 1, c)
        mask = np.zeros((rows, 1), bool)
        mask[: h * w, 0] = where.reshape(-1)
        sums = jax.device_get(position_sums(padded, mask, norm_cap))
        return cls.of_sums(sums, mask, label=label, norm_cap=norm_cap, encoder=encoder)

    @classmethod
    def of_sums(
        cls,
        sums: PositionSums,
        where: Bool[np.ndarray, "h w"],
        *,
        label: str | None = None,
        norm_cap: float = np.inf,
        encoder: Mapping[str, Any] | None = None,
    ) -> "Statistics":
        """The statistics of one photo from its ``position_sums``.

        Raises:
            PredictorError: the features hold NaN or infinity.
        """
        total = Sums(np.asarray(sums.feature, np.float64), np.asarray(sums.unit, np.float64), int(sums.positions))
        if not (np.isfinite(total.feature).all() and np.isfinite(total.unit).all()):
            raise PredictorError("a feature map holds NaN or infinity; check the encoder and its input")
        norms = np.asarray(sums.norms, np.float64)[np.asarray(where)]
        return cls(
            total=total,
            photos=1,
            norm_sum=float(norms.sum()),
            norm_square_sum=float(np.square(norms).sum()),
            norm_histogram=np.histogram(norms, NORM_EDGES)[0].astype(np.int64),
            classes={} if label is None else {label: total},
            norm_cap=norm_cap,
            encoder=dict(encoder or {}),
        )

    def __add__(self, other: "Statistics") -> "Statistics":
        """The statistics of both sets of photos.

        Raises:
            PredictorError: the encoders, the numbers of channels or the norm caps differ.
        """
        self._check_compatible(other)
        classes = dict(self.classes)
        for name, sums in other.classes.items():
            classes[name] = classes[name] + sums if name in classes else sums
        return self._combined(other, 1, self.total + other.total, classes)

    def __sub__(self, other: "Statistics") -> "Statistics":
        """The statistics without the photos of ``other``, which must be among these.

        Raises:
            PredictorError: they are not among these, or the encoders, channels or norm caps differ.
        """
        self._check_compatible(other)
        if missing := [name for name in other.classes if name not in self.classes]:
            raise PredictorError(f"cannot forget photos of class {missing[0]!r}: these statistics have no such class")
        classes = {name: s - other.classes[name] if name in other.classes else s for name, s in self.classes.items()}
        short = self.total.count < other.total.count or (self.norm_histogram < other.norm_histogram).any()
        if short or any(sums.count < 0 for sums in classes.values()):
            raise PredictorError("cannot forget photos that these statistics do not hold")
        return self._combined(other, -1, self.total - other.total, {n: s for n, s in classes.items() if s.count})

    def _combined(self, other: "Statistics", sign: int, total: Sums, classes: dict[str, Sums]) -> "Statistics":
        norm_sums = (
            (self.norm_sum + sign * other.norm_sum, self.norm_square_sum + sign * other.norm_square_sum)
            if total.count
            else (0.0, 0.0)
        )
        return dataclasses.replace(
            self,
            total=total,
            photos=self.photos + sign * other.photos,
            norm_sum=max(norm_sums[0], 0.0),  # rounding may leave less than nothing of norms of 0
            norm_square_sum=max(norm_sums[1], 0.0),
            norm_histogram=self.norm_histogram + sign * other.norm_histogram,
            classes=classes,
        )

    def _check_compatible(self, other: "Statistics") -> None:
        mine, theirs = self.total.feature.shape[0], other.total.feature.shape[0]
        if mine != theirs:
            raise PredictorError(f"features have {mine} and {theirs} channels; only statistics of one encoder add up")
        if dict(self.encoder) != dict(other.encoder):
            differ = differing(self.encoder, other.encoder)
            raise PredictorError(f"statistics come from different encoders ({differ}); fit both with the same one")
        if self.norm_cap != other.norm_cap:
            raise PredictorError(f"norm caps differ ({self.norm_cap} and {other.norm_cap}); fit both with the same cap")

    def norm_quantile(self, q: float) -> float:
        """The norm below which a share ``q`` of the positions lie, rounded up to the edge of a bin."""
        shares = np.cumsum(self.norm_histogram) / max(self.total.count, 1)
        return float(NORM_EDGES[int(np.searchsorted(shares, q)) + 1])


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """What two descriptions of encoders have different.

    >>> differing({"layer": "conv4", "side": 800}, {"layer": "conv5", "side": 800, "stride": 1})
    'layer conv4 and conv5, stride not set and 1'
    """
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    return ", ".join(f"{name} {first.get(name, 'not set')} and {second.get(name, 'not set')}" for name in names)[:200]
