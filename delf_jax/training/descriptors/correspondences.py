"""Features of two photos that see the same spot, by the transform between the photos and whatever their descriptors."""

import numpy as np
from jaxtyping import Float, Int

from delf_jax.features import LocalFeatures

# Pixels of the reduced photo: three quarters of the stride of conv4.
FURTHEST = 12.0
# A feature sees as much of the place as its partner, up to this factor.
LARGEST_RATIO = 1.3


def correspondences(
    a: LocalFeatures, b: LocalFeatures, transform: Float[np.ndarray, "3 3"], *, pixel: float
) -> Int[np.ndarray, "m 2"]:
    """Rows of ``a`` and ``b`` that see the same spot at the same size, each the nearest of the other.

    Args:
        a: features of a photo.
        b: those of another.
        transform: from (x, y, 1) of ``a`` to ``b``, in pixels of the upright originals.
        pixel: side of a pixel of the photo ``b`` as it was reduced, in pixels of the original.
    """
    if not len(a) or not len(b):
        return np.zeros((0, 2), np.int32)
    points = np.c_[a.keypoints, np.ones(len(a))] @ np.asarray(transform, np.float64).T
    distance = np.linalg.norm(points[:, None, :2] / points[:, None, 2:] - np.asarray(b.keypoints)[None], axis=2)
    enlarged = np.sqrt(abs(np.linalg.det(transform[:2, :2])))
    # A feature at scale s covers 1 / s of its photo's pixels.
    ratio = enlarged * np.asarray(b.scales)[None] / np.asarray(a.scales)[:, None]
    distance[np.abs(np.log(ratio)) > np.log(LARGEST_RATIO)] = np.inf
    there, back = distance.argmin(axis=1), distance.argmin(axis=0)
    rows = np.arange(len(a))
    found = (distance[rows, there] < FURTHEST * pixel) & (back[there] == rows)
    return np.stack([rows[found], there[found]], axis=1).astype(np.int32)
