"""Overlays: what two photos carry at the same place and do not show, such as a frame, a watermark or a caption.

Matches on an overlay agree on one transform, but prove nothing. COLMAP's watermark detector has a similar aim.
"""

import itertools

import numpy as np
from jaxtyping import Bool, Float, Int

from delf_jax.features import Domain, LocalFeatures

# Largest distance of a match on an overlay from where the overlay would put it, in pixels of the reduced photos: the
# largest error of an inlier.
NEAR = 20.0
# A match with both ends so near to an overlay lies on it too: squares of a chessboard also resemble their neighbours.
BESIDE = 32.0
# Share of the inliers that an overlay must explain. If it explains fewer, the others prove the match.
EXPLAINED = 0.5
# What both photos have in common is divided into so many cells each way.
CELLS = 8
# A cell differs if fewer of the matches in it stay in place. Photos differ if so many cells of their middle do.
IN_PLACE = 0.3
DIFFERENT = 0.5


def on_overlay(
    a: LocalFeatures,
    b: LocalFeatures,
    rows: Int[np.ndarray, "m 2"],
    inliers: Bool[np.ndarray, " m"],
    *,
    domains: tuple[Domain, Domain],
) -> Bool[np.ndarray, " m"]:
    """Which matches lie on an overlay of two photos whose ``inliers`` agree on a transform; often none.

    Two things mark an overlay. Most inliers stay where they are (``_fixed_maps``). And the middles of the photos
    differ: most matches there do not stay. A copy of a photo, also one that was cut or reduced, matches everywhere.

    Args:
        a, b: the photos.
        rows: rows of the matched features, of ``a`` and of ``b``.
        inliers: those that agree.
        domains: where the features of ``a`` and of ``b`` can lie.
    """
    nothing = np.zeros(len(rows), bool)
    if not inliers.any():
        return nothing
    scales, shifts = _fixed_maps(a.image_size, b.image_size)
    pixel = np.maximum(scales.max(axis=1) * domains[0].pixel, domains[1].pixel)
    src, dst = a.keypoints[rows[:, 0]] + 0.5, b.keypoints[rows[:, 1]] + 0.5
    moved = scales[:, None] * src[inliers] + shifts[:, None]
    stay = np.sum(_length(moved - dst[inliers]) < NEAR * pixel[:, None], axis=1)
    best = np.argmax(stay)
    if stay[best] < EXPLAINED * np.sum(inliers):
        return nothing
    scale, shift, pixel = scales[best], shifts[best], pixel[best]
    moved = scale * src + shift
    stays = _length(moved - dst) < NEAR * pixel
    # The box in which both can have features, in pixels of b.
    (low, high), (low_b, high_b) = (np.array([domain[:2], domain[2:4]]) for domain in domains)
    common = np.maximum(scale * low + shift, low_b), np.minimum(scale * high + shift, high_b)
    if not _middles_differ(moved, dst, stays, common):
        return nothing
    of_overlay = dst[stays & inliers]
    ends = [_length(points[:, None] - of_overlay).min(axis=1) < BESIDE * pixel for points in (moved, dst)]
    return stays | np.logical_and(*ends)


def _fixed_maps(
    size_a: tuple[int, int], size_b: tuple[int, int]
) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, "k 2"]]:
    """Scales and shifts (x, y) that bring an overlay of one photo to that of the other; sizes are (height, width).

    It is as large in pixels, or in proportion to a side, or to both; and it keeps its distance to a corner, to the
    middle of a side, or to the middle of the photo. For photos of one size this is the identity alone.
    """
    a, b = np.array(size_a[::-1], float), np.array(size_b[::-1], float)
    ratio = b / a
    equal = (1.0, *ratio, b.max() / a.max(), b.min() / a.min())
    scales = np.array([*((scale, scale) for scale in equal), ratio])
    anchors = np.array([*itertools.product((0.0, 0.5, 1.0), repeat=2)])
    shifts = anchors * (b - scales[:, None] * a)
    maps = np.concatenate([np.broadcast_to(scales[:, None], shifts.shape), shifts], axis=2).reshape(-1, 4)
    scales, shifts = np.split(np.unique(maps.round(4), axis=0), 2, axis=1)
    return scales, shifts


def _length(vectors: Float[np.ndarray, "*k 2"]) -> Float[np.ndarray, "*k"]:
    return np.hypot(vectors[..., 0], vectors[..., 1])


def _middles_differ(
    src: Float[np.ndarray, "m 2"],
    dst: Float[np.ndarray, "m 2"],
    stays: Bool[np.ndarray, " m"],
    common: tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]],
) -> bool:
    """Whether most matches leave their place in most cells of the middle of a box, ``common`` to both photos.

    Each match counts at both of its ends, ``src`` and ``dst`` in pixels of one photo. ``common`` are corners of the
    box. Where nothing matches, nothing is known.
    """
    low, high = common
    matches, staying = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for points in (src, dst):
        place = np.floor((points - low) / np.maximum(high - low, 1.0) * CELLS)
        inside = np.all((place >= 0) & (place < CELLS), axis=1)
        column, row = place[inside].astype(int).T
        np.add.at(matches, (row, column), 1)
        np.add.at(staying, (row, column), stays[inside])
    middle = slice(CELLS // 4, CELLS - CELLS // 4)
    matches, staying = matches[middle, middle], staying[middle, middle]
    known = matches >= 2
    differ = known & (staying < IN_PLACE * matches)
    return bool(np.sum(differ) >= max(1, DIFFERENT * np.sum(known)))
