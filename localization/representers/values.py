"""Representer values: how much each training position adds to the activation of a place.

The representer value of training position i for a query q, the sum of the unit features of m positions, is
alpha_i <fhat_i, q> (Song et al., ICCV 2023; docs/maths/foreground.md). The values of all training positions add up to
<w*, q>. Positions of positive importance alpha_i (excitatory) and of negative alpha_i (inhibitory) are ranked apart:

    value     by |alpha_i| <fhat_i, q>: the exact share, but the same few positions of large norm win for every query
    centred   by |alpha_i| <fhat_i, q - m u>: how much more a position says about this query than about the average one
    local     by the cosine with the query
"""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float

PointRanking = Literal["value", "centred", "local"]


@dataclasses.dataclass(frozen=True)
class RepresenterPoint:
    """One training position in an explanation.

    Attributes:
        image: name of its photo.
        xy: (x, y) in pixels of its upright original photo.
        image_size: (height, width) of that photo.
        label: the photo's class, if it had one.
        thumbnail: JPEG of the photo, or None.
        importance: alpha_i, the same for every query.
        similarity: mean cosine with the query's positions.
        value: representer value alpha_i <fhat_i, q>; over all training positions they add up to ``Explanation.value``.
        share: its value divided by the value of all points with the same sign of importance.
        cumulative: sum of the shares up to and including this point.
    """

    image: str
    xy: tuple[float, float]
    image_size: tuple[int, int]
    label: str | None
    thumbnail: bytes | None
    importance: float
    similarity: float
    value: float
    share: float
    cumulative: float


def representer_values(
    unit: Float[np.ndarray, "n c"], importance: Float[np.ndarray, " n"], q: Float[np.ndarray, " c"]
) -> Float[np.ndarray, " n"]:
    """alpha_i <fhat_i, q> of positions with unit features ``unit`` [n, C] and importance alpha [n]."""
    return importance * (unit @ q)


def ranking_query(
    query: Float[np.ndarray, "m c"], mean_unit: Float[np.ndarray, " c"], ranking: PointRanking
) -> tuple[Float[np.ndarray, " c"], float]:
    """The vector that points are compared with, and the length of the sum before ``local`` scales it to 1."""
    q = query.sum(axis=0)
    if ranking == "centred":
        q = q - len(query) * mean_unit
    length = float(np.linalg.norm(q))
    return (q / max(length, 1e-12) if ranking == "local" else q), length


def ranking_scores(
    unit: Float[np.ndarray, "n c"],
    importance: Float[np.ndarray, " n"],
    q: Float[np.ndarray, " c"],
    ranking: PointRanking,
) -> Float[np.ndarray, " n"]:
    """What points are ranked by: |alpha_i| <fhat_i, q>, or the cosine for ``local``; ``q`` is of ``ranking_query``."""
    return unit @ q if ranking == "local" else representer_values(unit, np.abs(importance), q)
