"""The nearest descriptors of a query, of one index or merged from several."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Neighbours(NamedTuple):
    """For each of q descriptors of a query its k nearest descriptors, and which photos own those.

    Attributes:
        photos: int [q, k], numbers of the photos; -1 if fewer than k neighbours were found.
        similarities: float32 [q, k], dot products, descending.
    """

    photos: Int[np.ndarray, "q k"]
    similarities: Float[np.ndarray, "q k"]


def merge_neighbours(parts: Sequence[Neighbours], count: int) -> Neighbours:
    """The nearest ``count`` of several indexes: those that one index of all their photos would find.

    Of equal similarities that of the photo with the lower number comes first.
    """
    photos, similarities = (np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True))
    nearest = np.lexsort((photos, -similarities), axis=-1)[:, :count]
    return Neighbours(np.take_along_axis(photos, nearest, 1), np.take_along_axis(similarities, nearest, 1))
