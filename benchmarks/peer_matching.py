"""Matching and verification by other rules than the library's, for peers that do better with them."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from delf_jax.features import LocalFeatures
from retrieval.verification import ransac
from retrieval.verification.evidence import log10_odds
from retrieval.verification.verify import CELL, INLIER_RADIUS, TRIALS


class Answer(NamedTuple):
    """A photo of the database as an answer.

    Attributes:
        photo: index into the database.
        inliers: inliers of the best transform; 0 if the photo was not verified.
        confidence: higher is surer; -log10_nfa if the photo was verified, otherwise its votes.
    """

    photo: int
    inliers: int
    confidence: float


@dataclasses.dataclass(frozen=True)
class Matching:
    """How features are matched and verified.

    Attributes:
        ratio: of Lowe's ratio test, which mutual nearest neighbours must pass too; None: no such test.
        least_cosine: smallest cosine of a match; None: no limit.
        inlier_radius: largest error of an inlier in pixels.
        cell: side in pixels of the cells in which only one match counts.
    """

    ratio: float | None = None
    least_cosine: float | None = None
    inlier_radius: float = INLIER_RADIUS
    cell: float = CELL


def verified(
    query: LocalFeatures,
    voted: Sequence[Answer],
    database: Sequence[LocalFeatures],
    *,
    matching: Matching,
    threshold: float,
    seed: int = 0,
) -> list[Answer]:
    """Verifies some photos; the best come first: accepted ones, and both these and the others by their evidence.

    It verifies as ``Index.search`` does: with an affine transform and residuals in both photos, of which the surer
    result counts.

    Args:
        query: features of the query photo.
        voted: those to verify, with their votes.
        database: features of all photos.
        matching: what counts as a match and as an inlier.
        threshold: a photo is accepted at or below this log10_nfa.
        seed: of the random samples.
    """
    if not voted or not len(query):
        return []
    photos = [answer.photo for answer in voted]
    rules = {"ratio": matching.ratio, "least_cosine": matching.least_cosine}
    pairs = [putative(query.descriptors, database[i].descriptors, **rules)[0] for i in photos]
    shape = (len(photos), _padded(max(len(pair) for pair in pairs)))
    points, scales = np.zeros((2, *shape, 2), np.float32), np.ones((2, *shape), np.float32)
    mask, sizes = np.zeros(shape, bool), np.ones((2, len(photos), 2), np.float32)
    for row, (i, pair) in enumerate(zip(photos, pairs)):
        mask[row, : len(pair)] = True
        for side, features in enumerate((query, database[i])):
            points[side, row, : len(pair)] = features.keypoints[pair[:, side]]
            scales[side, row, : len(pair)] = features.scales[pair[:, side]]
            sizes[side, row] = features.image_size
    found = ransac.estimate(
        points,
        points[::-1],
        np.stack([mask, mask]),
        model="affine",
        trials=TRIALS,
        key=jax.random.key(seed),
        scales=(scales, scales[::-1]),
        threshold=matching.inlier_radius,
        nfa=ransac.NfaSettings(sizes[::-1], photos_verified=2 * len(photos), cell=matching.cell),
    )
    log10_nfa = np.asarray(found.log10_nfa)
    surer = (log10_nfa.argmin(axis=0), np.arange(len(photos)))
    count, log10_nfa = np.asarray(found.count)[surer], log10_nfa[surer]
    evidence = log10_odds([answer.confidence for answer in voted], log10_nfa)
    order = np.lexsort((-evidence, log10_nfa > threshold))
    return [Answer(photos[row], int(count[row]), float(-log10_nfa[row])) for row in order]


def putative(
    a: Float[np.ndarray, "n d"],
    b: Float[np.ndarray, "m d"],
    *,
    ratio: float | None = None,
    least_cosine: float | None = None,
) -> tuple[Int[np.ndarray, "k 2"], Float[np.ndarray, " k"]]:
    """Mutual nearest neighbours of unit-length descriptors, nearest first: their rows in ``a`` and ``b``, and cosines.

    The matches are those of ``retrieval.matching.mutual_nearest``, which is written for accelerators. On a CPU, NumPy
    takes a quarter of its time, and benchmarks match 20 000 pairs.
    """
    if len(a) == 0 or len(b) == 0:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    cosine = a @ b.T
    rows = np.arange(len(a))
    nearest = cosine.argmax(axis=1)
    best = cosine[rows, nearest]
    found = best == cosine.max(axis=0)[nearest]
    if least_cosine is not None:
        found &= best >= least_cosine
    if ratio is not None and len(b) > 1:
        cosine[rows, nearest] = -np.inf
        found &= 2 - 2 * best < ratio**2 * (2 - 2 * cosine.max(axis=1))
    order = np.argsort(-best[found], kind="stable")
    return np.stack([rows[found], nearest[found]], axis=1)[order], best[found][order]


def _padded(count: int) -> int:
    """The next power of two, at least 64. Few shapes need few compilations."""
    return max(64, 1 << (count - 1).bit_length()) if count else 64
