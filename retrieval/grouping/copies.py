"""Copies of a photo: the same pixels at another size, compressed, cropped, framed or without colour."""

import numpy as np
from jaxtyping import Float

from delf_jax.features import Domain, LocalFeatures
from retrieval.verification.verify import Match

# These limits were chosen on 150 disguised copies of 30 photos, and on 72 pairs of views of landmarks.
# A copy is neither turned nor stretched nor sheared: largest difference of the linear part from its scale.
UNTURNED = 0.08
# Largest median error of the inliers, in pixels of the reduced photos.
ERROR = 5.5
# So many of the matches must agree.
MATCHES = 0.8
# And so many of the features in what both photos show, in the photo that has fewer there.
FEATURES = 0.45


def is_copy(a: LocalFeatures, b: LocalFeatures, match: Match, *, domains: tuple[Domain, Domain]) -> bool:
    """Whether two photos whose ``match`` was accepted are copies of one picture, not two views of one thing.

    Copies agree everywhere, and their transform only enlarges and moves. So do two photos of a still scene from one
    place: they count as copies unless light or motion has changed them much.

    Args:
        a, b: the query and the photo of the match.
        match: an affine or similarity transform from ``a`` to ``b``.
        domains: where the features of ``a`` and of ``b`` can lie.
    """
    assert match.transform is not None
    linear, shift = match.transform[:2, :2].astype(float), match.transform[:2, 2].astype(float)
    scale = np.sqrt(max(np.linalg.det(linear), 0.0))
    if scale == 0 or np.abs(linear / scale - np.eye(2)).max() > UNTURNED:
        return False
    src, dst = match.query_points[match.is_inlier], match.points[match.is_inlier]
    errors = np.linalg.norm(src @ linear.T + shift - dst, axis=1) / max(domains[1].pixel, scale * domains[0].pixel)
    if np.median(errors) > ERROR:
        return False
    there = a.keypoints @ linear.T + shift
    back = (b.keypoints - shift) @ np.linalg.inv(linear).T
    fewest = min(_inside(there, domains[1]), _inside(back, domains[0]))
    return match.inliers >= max(MATCHES * match.putative, FEATURES * fewest)


def _inside(points: Float[np.ndarray, "n 2"], domain: Domain) -> int:
    x, y = points.T
    return int(np.sum((domain.x0 <= x) & (x <= domain.x1) & (domain.y0 <= y) & (y <= domain.y1)))
