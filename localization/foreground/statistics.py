"""The mergeable running sums that the foreground predictor is made of, and its closed form.

State is O(C): the sum of features, the sum of unit features, counts and a histogram of norms, per class too if asked.
Shards add with ``a + b``; a photo is forgotten with ``a - b``. Sums are float32 within one photo and float64 across
photos: the predictor is the difference of two nearly parallel means, so rounding in the sums turns it visibly.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from delf_jax.errors import PredictorError
from delf_jax.files import model_file
from localization.maps.activation import AnyArray

NORM_EDGES = np.concatenate([[0.0], np.logspace(-6, 6, 961), [np.inf]])
"""Edges of the norm histogram: one bin below 1e-6, then 80 a decade (2.9 % wide), the same for every shard."""

_KIND = "foreground statistics"
_VERSION = 1


class PositionSums(NamedTuple):
    """Sums over the positions of each photo: feature, unit [..., C], positions int32 [...]; and norms [..., h, w]."""

    feature: Array
    unit: Array
    positions: Array
    norms: Array


@jax.jit
def position_sums(
    dense: Float[AnyArray, "*b h w c"], where: Bool[AnyArray, "*b h w"], norm_cap: Float[AnyArray, ""] | float = np.inf
) -> PositionSums:
    """Sums of f and f / max(||f||, 1e-12) over the positions of each photo (localization spec 1.2).

    Args:
        dense: [..., h, w, C] feature maps of any float type; computed in float32.
        where: bool [..., h, w], the positions that count.
        norm_cap: features longer than this are shortened to it first (norm clipping); infinite leaves them alone.

    Returns:
        float32 sums; norms are after clipping and 0 where ``where`` is False.
    """
    dense = jnp.where(where[..., None], dense.astype(jnp.float32), 0)
    norms = jnp.linalg.norm(dense, axis=-1)
    unit = dense / jnp.maximum(norms, 1e-12)[..., None]
    capped = jnp.minimum(norms, norm_cap)
    feature = jnp.sum(unit * capped[..., None], axis=(-3, -2))
    return PositionSums(feature, jnp.sum(unit, axis=(-3, -2)), jnp.sum(where, axis=(-2, -1), dtype=jnp.int32), capped)


@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums over one group of positions: feature and unit float64 [C], count of positions."""

    feature: Float[np.ndarray, " c"]
    unit: Float[np.ndarray, " c"]
    count: int

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.feature + other.feature, self.unit + other.unit, self.count + other.count)

    def __sub__(self, other: "Sums") -> "Sums":
        return Sums(self.feature - other.feature, self.unit - other.unit, self.count - other.count)


@dataclasses.dataclass(frozen=True)
class Solution:
    """The closed form of one group.

    Attributes:
        w: float64 [C], unit length: the foreground direction.
        tau: norm threshold ||v|| / ||u||; positions longer than it count as foreground.
        scale: Z = ||v - tau u||, so that alpha_i = (r_i - tau) / (N Z).
        count: N, positions.
        angle: radians between the mean feature v and the mean unit feature u.
    """

    w: Float[np.ndarray, " c"]
    tau: float
    scale: float
    count: int
    angle: float

    def importance(
        self, norms: Float[np.ndarray, "*n"], cosines: Float[np.ndarray, "*n"] | None = None
    ) -> Float[np.ndarray, "*n"]:
        """Global sample importance alpha_i of training positions with these norms (identity I2).

        ``cosines`` with w* matter only to losses at finite regularisation.
        """
        return (np.asarray(norms, np.float64) - self.tau) / (self.count * self.scale)


@dataclasses.dataclass(frozen=True)
class Diagnostics:
    """Whether the encoder's norms say anything about the foreground.

    Attributes:
        angle_degrees: between mean feature and mean unit feature; rounding dominates when it is tiny.
        positive_share: share of positions with positive importance (norm above tau), to the width of a histogram bin.
        norm_spread: standard deviation of the norms divided by their mean.
    """

    angle_degrees: float
    positive_share: float
    norm_spread: float


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Everything that fitting needs to remember about the training photos.

    Attributes:
        total: sums over all positions.
        classes: the same, by class name; empty unless classes were given.
        photos: number of photos.
        norm_sum, norm_square_sum: float64 moments of the norms.
        norm_histogram: int64 [962], counts between ``NORM_EDGES``.
        norm_cap: norms were clipped to this; infinite when they were not.
        encoder: JSON description of what made the features; sums of different encoders do not add.
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
        """The statistics of one photo's feature map (float [h, w, C]); ``label`` names its class.

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
        """The statistics of one photo out of what ``position_sums`` gave for it.

        Raises:
            PredictorError: the features held NaN or infinity.
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
        """The statistics of both sets of photos. PredictorError when encoder, channels or norm cap differ."""
        self._check_compatible(other)
        classes = dict(self.classes)
        for name, sums in other.classes.items():
            classes[name] = classes[name] + sums if name in classes else sums
        return self._combined(other, 1, self.total + other.total, classes)

    def __sub__(self, other: "Statistics") -> "Statistics":
        """Forgets the photos of ``other``, which must be among these. PredictorError when they cannot be."""
        self._check_compatible(other)
        if missing := [name for name in other.classes if name not in self.classes]:
            raise PredictorError(f"cannot forget photos of class {missing[0]!r}: these statistics have none of it")
        classes = {name: s - other.classes[name] if name in other.classes else s for name, s in self.classes.items()}
        short = self.total.count < other.total.count or (self.norm_histogram < other.norm_histogram).any()
        if short or any(sums.count < 0 for sums in classes.values()):
            raise PredictorError("cannot forget photos that these statistics do not hold")
        return self._combined(other, -1, self.total - other.total, {n: s for n, s in classes.items() if s.count})

    def _combined(self, other: "Statistics", sign: int, total: Sums, classes: dict[str, Sums]) -> "Statistics":
        return dataclasses.replace(
            self,
            total=total,
            photos=self.photos + sign * other.photos,
            norm_sum=self.norm_sum + sign * other.norm_sum,
            norm_square_sum=self.norm_square_sum + sign * other.norm_square_sum,
            norm_histogram=self.norm_histogram + sign * other.norm_histogram,
            classes=classes,
        )

    def _check_compatible(self, other: "Statistics") -> None:
        mine, theirs = self.total.feature.shape[0], other.total.feature.shape[0]
        if mine != theirs:
            raise PredictorError(f"features have {mine} and {theirs} channels; statistics of one encoder only add up")
        if dict(self.encoder) != dict(other.encoder):
            raise PredictorError(
                f"statistics come from different encoders ({_short(self.encoder)} and {_short(other.encoder)}); "
                "fit both with the same one"
            )
        if self.norm_cap != other.norm_cap:
            raise PredictorError(f"norm caps differ ({self.norm_cap} and {other.norm_cap}); fit both with the same cap")

    def solve(self, *, label: str | None = None, minimum_angle: float = 1e-3) -> Solution:
        """The closed form w* = (v - tau u) / ||v - tau u||, tau = ||v|| / ||u|| (localization spec 1.2), in float64.

        Args:
            label: solve for this class instead of all positions.
            minimum_angle: radians between v and u below which the answer would be rounding noise.

        Raises:
            PredictorError: no positions, an unknown class, or norms that (nearly) do not vary.
        """
        v, u, count = self._means(label)
        v_norm, u_norm = float(np.linalg.norm(v)), float(np.linalg.norm(u))
        direction = v / v_norm - u / u_norm
        length = float(np.linalg.norm(direction))
        angle = _angle(v, u)
        if angle < minimum_angle:
            raise PredictorError(
                f"{_of(label)}the encoder's feature norms hardly vary (mean feature and mean unit feature are "
                f"{np.degrees(angle):.1e} degrees apart), so they cannot tell objects from background; "
                "use features after a ReLU"
            )
        return Solution(direction / length, v_norm / u_norm, v_norm * length, count, angle)

    def diagnostics(self) -> Diagnostics:
        """Angle, share of positive importance and spread of the norms, of all positions.

        Raises:
            PredictorError: no positions.
        """
        v, u, count = self._means(None)
        tau = float(np.linalg.norm(v) / np.linalg.norm(u))
        mean = self.norm_sum / count
        variance = max(self.norm_square_sum / count - mean**2, 0.0)
        shares = np.concatenate([[0], np.cumsum(self.norm_histogram)]) / count
        below = np.interp(tau, np.append(NORM_EDGES[:-1], 1e7), shares)
        return Diagnostics(float(np.degrees(_angle(v, u))), float(1 - below), float(np.sqrt(variance) / mean))

    def _means(self, label: str | None) -> tuple[np.ndarray, np.ndarray, int]:
        if label is not None and label not in self.classes:
            raise PredictorError(f"class {label!r} was not fitted; these were: {', '.join(sorted(self.classes)[:20])}")
        sums = self.total if label is None else self.classes[label]
        if sums.count < 1:
            raise PredictorError(f"{_of(label)}no positions to fit on; give at least one readable photo")
        if not (sums.feature.any() and sums.unit.any()):
            raise PredictorError(f"{_of(label)}all features are zero; check the encoder and its input")
        return sums.feature / sums.count, sums.unit / sums.count, sums.count

    def norm_quantile(self, q: float) -> float:
        """The norm below which a share ``q`` of the positions lie, to the width of a bin: a cap for norm clipping."""
        shares = np.cumsum(self.norm_histogram) / max(self.total.count, 1)
        return float(NORM_EDGES[int(np.searchsorted(shares, q)) + 1])

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file with a JSON description, atomically."""
        names = sorted(self.classes)
        tensors = {
            "feature_sum": self.total.feature,
            "unit_sum": self.total.unit,
            "norm_histogram": self.norm_histogram,
        }
        if names:
            tensors["class_feature_sums"] = np.stack([self.classes[n].feature for n in names])
            tensors["class_unit_sums"] = np.stack([self.classes[n].unit for n in names])
        description = {
            "kind": _KIND,
            "version": _VERSION,
            "count": self.total.count,
            "photos": self.photos,
            "norm_sum": self.norm_sum,
            "norm_square_sum": self.norm_square_sum,
            "norm_cap": None if np.isinf(self.norm_cap) else self.norm_cap,
            "encoder": dict(self.encoder),
            "classes": names,
            "class_counts": [self.classes[n].count for n in names],
        }
        model_file.write(path, tensors, description)

    @classmethod
    def open(cls, path: str | Path) -> "Statistics":
        """Reads what ``save`` wrote.

        Raises:
            PredictorError: another kind of file, or a newer version.
            ModelError: the file is missing or damaged.
        """
        description, tensors = model_file.read(path)
        if description.get("kind") != _KIND:
            raise PredictorError(f"{path}: not foreground statistics but {description.get('kind')!r}")
        try:
            if description["version"] > _VERSION:
                raise PredictorError(f"{path}: written by a newer version; update delf-jax")
            return cls._described(description, tensors)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = " ".join(str(error).split())[:200]
            raise PredictorError(f"{path}: damaged ({reason}); fit the predictor again") from error

    @classmethod
    def _described(cls, description: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> "Statistics":
        """What a file holds; KeyError, TypeError or ValueError where that is no statistics."""
        names, counts = description["classes"], description["class_counts"]
        arrays = [tensors["feature_sum"], tensors["unit_sum"]]
        if names:
            arrays += [*tensors["class_feature_sums"], *tensors["class_unit_sums"]]
        numbers = [description[name] for name in ("count", "photos")] + list(counts)
        if len(arrays) != 2 + 2 * len(names) or len(counts) != len(set(names)):
            raise ValueError("its classes do not have sums each")
        if not all(array.shape == arrays[0].shape and array.ndim == 1 and np.isfinite(array).all() for array in arrays):
            raise ValueError("its sums have several shapes, or are infinite")
        if not all(type(number) is int and 0 <= number < 2**53 for number in numbers):
            raise ValueError("a count that is none")
        if not all(0 <= float(description[name]) < 1e150 for name in ("norm_sum", "norm_square_sum")):
            raise ValueError("a sum of norms that is none")
        if tensors["norm_histogram"].shape != (len(NORM_EDGES) - 1,):
            raise ValueError("a histogram of other norms")
        classes = {
            name: Sums(tensors["class_feature_sums"][i], tensors["class_unit_sums"][i], description["class_counts"][i])
            for i, name in enumerate(description["classes"])
        }
        return cls(
            total=Sums(tensors["feature_sum"], tensors["unit_sum"], description["count"]),
            photos=description["photos"],
            norm_sum=float(description["norm_sum"]),
            norm_square_sum=float(description["norm_square_sum"]),
            norm_histogram=tensors["norm_histogram"],
            classes=classes,
            norm_cap=np.inf if description["norm_cap"] is None else float(description["norm_cap"]),
            encoder=dict(description["encoder"]),
        )


def _angle(v: Float[np.ndarray, " c"], u: Float[np.ndarray, " c"]) -> float:
    # Of half sums and differences: arccos of the cosine loses half the digits at small angles.
    v, u = v / np.linalg.norm(v), u / np.linalg.norm(u)
    return 2 * float(np.arctan2(np.linalg.norm(v - u), np.linalg.norm(v + u)))


def _of(label: str | None) -> str:
    return "" if label is None else f"class {label!r}: "


def _short(encoder: Mapping[str, Any]) -> str:
    return json.dumps(dict(encoder), sort_keys=True)[:80]
