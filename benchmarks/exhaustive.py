"""Search without an index: every query against every photo, so that features are compared and not indexes."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from delf_jax.features import LocalFeatures
from retrieval import ransac
from retrieval.search import CELL, INLIER_RADIUS


class Answer(NamedTuple):
    """One photo of the database as a verified answer.

    Attributes:
        photo: index into the database.
        inliers: matches that the best transform explains.
        log10_nfa: log10 of the expected number of false alarms; lower is surer.
    """

    photo: int
    inliers: int
    log10_nfa: float


@dataclasses.dataclass(frozen=True)
class Matching:
    """How features are matched and verified.

    Attributes:
        ratio: mutual nearest neighbours must also pass Lowe's ratio test; None: being that is enough.
        inlier_radius: pixels that an inlier may be off.
        cell: side in pixels of the cells in which only one match counts as evidence.
    """

    ratio: float | None = None
    inlier_radius: float = INLIER_RADIUS
    cell: float = CELL


def search(
    query: LocalFeatures,
    database: Sequence[LocalFeatures],
    *,
    matching: Matching,
    verify: int = 100,
    threshold: float,
    key: jax.Array,
) -> list[Answer]:
    """Verified answers to one query, best first: accepted ones, then by inliers, then by the sum of their cosines.

    Args:
        query: features of the photo that asks.
        database: features of every photo that is searched.
        matching: what counts as a match and as an inlier.
        verify: so many photos, those of the largest sum of cosines, are verified with an affine transform.
        threshold: answers at or below this log10_nfa are accepted.
        key: JAX random key of the verification.
    """
    pairs = [putative(query.descriptors, photo.descriptors, ratio=matching.ratio) for photo in database]
    weights = np.array([cosine.sum() for _, cosine in pairs])
    shortlist = np.argsort(-weights, kind="stable")[:verify]
    width = _padded(max((len(pairs[i][0]) for i in shortlist), default=0))
    shape = (len(shortlist), width)
    src, dst = np.zeros((*shape, 2), np.float32), np.zeros((*shape, 2), np.float32)
    src_scales, dst_scales = np.ones(shape, np.float32), np.ones(shape, np.float32)
    mask = np.zeros(shape, bool)
    for row, i in enumerate(shortlist):
        a, b = pairs[i][0].T
        src[row, : len(a)], dst[row, : len(a)] = query.keypoints[a], database[i].keypoints[b]
        src_scales[row, : len(a)], dst_scales[row, : len(a)] = query.scales[a], database[i].scales[b]
        mask[row, : len(a)] = True
    found = ransac.estimate(
        src,
        dst,
        mask,
        model="affine",
        key=key,
        src_scales=src_scales,
        dst_scales=dst_scales,
        threshold=matching.inlier_radius,
        cell=matching.cell,
        target_size=np.array([database[i].image_size for i in shortlist], np.float32),
        photos_verified=len(shortlist),
    )
    count, log10_nfa = np.asarray(found.count), np.asarray(found.log10_nfa)
    order = np.lexsort((-count, log10_nfa > threshold))
    return [Answer(int(shortlist[row]), int(count[row]), float(log10_nfa[row])) for row in order]


def putative(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], *, ratio: float | None = None
) -> tuple[Int[np.ndarray, "k 2"], Float[np.ndarray, " k"]]:
    """Mutual nearest neighbours of unit-length descriptors: rows of ``a`` and ``b``, and their cosines.

    The same matches as ``retrieval.matching.mutual_nearest``, which is written for accelerators; on a CPU, where a
    benchmark makes 75 000 of them, NumPy needs a quarter of its time.
    """
    if len(a) == 0 or len(b) == 0:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    cosine = a @ b.T
    rows = np.arange(len(a))
    nearest = cosine.argmax(axis=1)
    best = cosine[rows, nearest]
    found = best == cosine.max(axis=0)[nearest]
    if ratio is not None and len(b) > 1:
        cosine[rows, nearest] = -np.inf
        found &= 2 - 2 * best < ratio**2 * (2 - 2 * cosine.max(axis=1))
    return np.stack([rows[found], nearest[found]], axis=1), best[found]


def _padded(count: int) -> int:
    """The next power of two, at least 64: few shapes, so few compilations."""
    return max(64, 1 << (count - 1).bit_length()) if count else 64
