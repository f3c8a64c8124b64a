"""One vector for each visual word of a photo: the normalised sum of the residuals of its descriptors."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from retrieval.asmk.codebook import Codebook

# A shorter sum of residuals has no direction: that of a descriptor that is equal to the centroid, for example.
_SHORTEST = 1e-6


class Aggregated(NamedTuple):
    """The visual words of a photo.

    Attributes:
        words: int64 [w], the words that occur, ascending.
        vectors: float32 [w, d], for each word the sum of residuals, divided by its length.
    """

    words: Int[np.ndarray, " w"]
    vectors: Float[np.ndarray, "w d"]


def aggregate(regions: Sequence[Float[np.ndarray, "_n d"]], codebook: Codebook, *, assignments: int = 1) -> Aggregated:
    """Sums of residuals of one photo, or of a photo and its regions.

    For descriptors x of one region, V(c) is the sum of x - c over those that belong to word c. If there are several
    regions (R-ASMK: Detect-to-Retrieve, Teichmann et al., CVPR 2019, section 4), the sums of each are first divided by
    the norm of all its words together, and then averaged: all regions count alike, however many features they have.
    Finally every word's vector is normalised to unit length.

    Args:
        regions: descriptors of the whole photo, then of its regions; empty ones do not count.
        codebook: the words.
        assignments: nearest words that each descriptor belongs to; more than one is for queries.
    """
    parts = [_residuals(descriptors, codebook, assignments) for descriptors in regions if len(descriptors)]
    if not parts:
        return Aggregated(np.zeros(0, np.int64), np.zeros((0, codebook.dimension), np.float32))
    if len(parts) > 1:
        parts = [(words, sums / max(float(np.linalg.norm(sums)), 1e-12)) for words, sums in parts]
    words, sums = _summed(*(np.concatenate(column) for column in zip(*parts)))
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    long = norms[:, 0] > _SHORTEST
    return Aggregated(words[long], sums[long] / norms[long])


def binarised(vectors: Float[np.ndarray, "w d"]) -> UInt8[np.ndarray, "w b"]:
    """One bit for each dimension, 1 if it is positive, packed in bytes; the last byte is filled with zeros."""
    return np.packbits(vectors > 0, axis=1)


def _residuals(
    descriptors: Float[np.ndarray, "n d"], codebook: Codebook, assignments: int
) -> tuple[Int[np.ndarray, " w"], Float[np.ndarray, "w d"]]:
    nearest = codebook.nearest(descriptors, assignments)
    rows = np.repeat(np.arange(len(descriptors)), nearest.shape[1])
    words = nearest.reshape(-1)
    return _summed(words, np.asarray(descriptors, np.float32)[rows] - codebook.centroids[words])


def _summed(
    words: Int[np.ndarray, " n"], vectors: Float[np.ndarray, "n d"]
) -> tuple[Int[np.ndarray, " w"], Float[np.ndarray, "w d"]]:
    """The sum of every word's vectors, words ascending."""
    order = np.argsort(words, kind="stable")
    found, starts = np.unique(words[order], return_index=True)
    return found, np.add.reduceat(vectors[order], starts, axis=0)
