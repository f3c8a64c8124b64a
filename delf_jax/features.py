"""``LocalFeatures``: the keypoints and descriptors of a photo, or of a batch of photos, and where they can lie."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np
from jaxtyping import Bool, Float


class Domain(NamedTuple):
    """Where the features of a photo can lie, and at which size it was looked at; in a batch, float32 [B] each.

    Features cannot lie where a photo shows nothing (bars, frames, clear sky), at its border, or outside the part that
    was looked at.

    Attributes:
        x0, y0, x1, y1: edges of the box around these places, in pixels of the upright original photo.
        area: of these places, in square pixels of the original.
        pixel: side of a pixel of the photo as it was looked at, in pixels of the original; at least 1 unless the photo
            was enlarged.
    """

    x0: Any
    y0: Any
    x1: Any
    y1: Any
    area: Any
    pixel: Any

    @classmethod
    def whole(cls, image_size: tuple[int, int], max_side: int) -> "Domain":
        """All of a photo of size (height, width), reduced to at most ``max_side`` pixels."""
        height, width = image_size
        return cls(0.0, 0.0, float(width), float(height), float(width * height), max(1.0, max(image_size) / max_side))

    def placed(self, ratio: Float[np.ndarray, "2"], corner: Sequence[float] = (0.0, 0.0)) -> "Domain":
        """The domain in a photo of which this one is a part: enlarged by ``ratio`` (x, y), then moved by ``corner``."""
        across, down = (float(each) for each in ratio)
        x, y = (float(each) for each in corner)
        return Domain(
            x0=float(self.x0) * across + x,
            y0=float(self.y0) * down + y,
            x1=float(self.x1) * across + x,
            y1=float(self.y1) * down + y,
            area=float(self.area) * across * down,
            pixel=float(self.pixel) * math.sqrt(across * down),
        )


def are_domains(rows: Float[np.ndarray, "n 6"]) -> Bool[np.ndarray, " n"]:
    """Which rows, the fields of ``Domain`` as a file holds them, are places of a photo; others cannot be counted with.

    >>> are_domains(np.array([[0.0, 0, 4, 2, 8, 1], [0, 0, 4, 2, 9, 1], [4, 0, 0, 2, 0, 1]])).tolist()
    [True, False, False]
    """
    x0, y0, x1, y1, area, pixel = np.asarray(rows, np.float64).T
    with np.errstate(invalid="ignore"):
        fits = (0 <= area) & (area <= 1.001 * (x1 - x0) * (y1 - y0))  # the numbers are rounded
        return np.isfinite(rows).all(axis=1) & (x0 <= x1) & (y0 <= y1) & fits & (pixel > 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LocalFeatures:
    """Attentive local features of one photo, or of a batch of photos. A JAX pytree; compared by identity.

    One photo (returned by the extractor): NumPy arrays without padding, by descending score.
    A batch (returned by ``Extractor.apply``): the same fields with leading axes ``[B, K]``, padded to a fixed K.

    Attributes:
        keypoints: float32 [n, 2], (x, y) in pixels of the upright original photo; the centre of the top-left pixel is
            (0, 0).
        scales: float32 [n], the image scale at which each feature was found, relative to the original photo (2 is the
            photo enlarged twice).
        scores: float32 [n], attention scores, descending; their unit depends on the scorer.
        descriptors: float32 [n, d], unit length.
        image_size: (height, width) in pixels of the upright original photo; int32 [B, 2] in a batch.
        valid: bool [B, K] in a batch, False on rows that are padding; None for one photo.
        domain: where the features can lie. None if it is not known: in the whole photo.
        log10_nfa_threshold: at or below which matches of these features are accepted: that of the head of their model;
            None if it is not known, as in a batch.
    """

    keypoints: Any
    scales: Any
    scores: Any
    descriptors: Any
    image_size: Any
    valid: Any = None
    domain: Domain | None = None
    log10_nfa_threshold: float | None = None

    def __len__(self) -> int:
        """Number of features; in a batch, the number K of rows, padding included."""
        return int(self.keypoints.shape[-2])

    def is_finite(self) -> Bool[np.ndarray, " n"]:
        """Which features of one photo consist of finite numbers alone; the others can neither match nor be found."""
        columns = (self.keypoints, self.scales[:, None], self.scores[:, None], self.descriptors)
        return np.logical_and.reduce([np.isfinite(np.asarray(column)).all(axis=1) for column in columns])

    def take(self, rows: Any) -> "LocalFeatures":
        """The features of one photo at these rows: a slice, a mask, or numbers in the wanted order."""
        columns = {name: getattr(self, name)[rows] for name in ("keypoints", "scales", "scores", "descriptors")}
        return dataclasses.replace(self, **columns)

    @classmethod
    def empty(cls, image_size: tuple[int, int], dimension: int) -> "LocalFeatures":
        """The features of a photo in which nothing was found."""
        return cls(
            keypoints=np.zeros((0, 2), np.float32),
            scales=np.zeros((0,), np.float32),
            scores=np.zeros((0,), np.float32),
            descriptors=np.zeros((0, dimension), np.float32),
            image_size=image_size,
        )


# Programs that ``jax.export`` writes to a file may take and return features.
jax.export.register_namedtuple_serialization(Domain, serialized_name="delf_jax.Domain")
jax.export.register_pytree_node_serialization(
    LocalFeatures,
    serialized_name="delf_jax.LocalFeatures",
    serialize_auxdata=lambda _: b"",
    deserialize_auxdata=lambda _: (),
)
