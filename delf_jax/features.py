"""``LocalFeatures``: the keypoints and descriptors of a photo, or of a batch of photos."""

import dataclasses
from typing import Any

import jax
import jax.export
import numpy as np


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
    """

    keypoints: Any
    scales: Any
    scores: Any
    descriptors: Any
    image_size: Any
    valid: Any = None

    def __len__(self) -> int:
        """Number of features; in a batch, the number K of rows, padding included."""
        return int(self.keypoints.shape[-2])

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
jax.export.register_pytree_node_serialization(
    LocalFeatures,
    serialized_name="delf_jax.LocalFeatures",
    serialize_auxdata=lambda _: b"",
    deserialize_auxdata=lambda _: (),
)
