"""The metrics of several objects in a photo, without classes: average precision, and recall with a few boxes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from localization.evaluation.metrics import box_iou

_IOU = 0.5


def average_precision(
    found: Sequence[Float[np.ndarray, "_n 5"]], truth: Sequence[Float[np.ndarray, "_m 4"]], *, iou: float = _IOU
) -> float:
    """The area under the curve of precision over recall, precision being the best one at that recall or beyond (VOC).

    Args:
        found: boxes [x0, y0, x1, y1, score] of each photo, as edges; scores of all photos are compared.
        truth: true boxes of each photo.
        iou: a box is right if it has this IoU with a true box that no box of higher score has met.
    """
    total, ranked = sum(map(len, truth)), by_score(found)
    if not total or not sum(map(len, ranked)):
        return 0.0
    right = np.concatenate([meets(boxes[:, :4], true, iou=iou) for boxes, true in zip(ranked, truth)])
    order = np.argsort(-np.concatenate([boxes[:, 4] for boxes in ranked]), kind="stable")
    hits = np.cumsum(right[order])
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * np.diff(hits, prepend=0)).sum() / total)


def recall(
    found: Sequence[Float[np.ndarray, "_n 5"]],
    truth: Sequence[Float[np.ndarray, "_m 4"]],
    *,
    most: int,
    iou: float = _IOU,
) -> float:
    """The share of all true boxes that the ``most`` best boxes of their photo meet, each box at most one of them."""
    met = sum(meets(boxes[:most, :4], true, iou=iou).sum() for boxes, true in zip(by_score(found), truth))
    return float(met / max(sum(map(len, truth)), 1))


def by_score(found: Sequence[Float[np.ndarray, "_n 5"]]) -> list[Float[np.ndarray, "_n 5"]]:
    """The boxes of each photo, highest score first."""
    return [boxes[np.argsort(-boxes[:, 4], kind="stable")] for boxes in found]


def meets(boxes: Float[np.ndarray, "n 4"], truth: Float[np.ndarray, "m 4"], *, iou: float) -> Bool[np.ndarray, " n"]:
    """Whether each box, best first, meets a true box that no box before it has met; it takes the one it fits best."""
    met = np.zeros(len(boxes), bool)
    if not len(boxes) or not len(truth):
        return met
    overlaps = box_iou(boxes, truth, convention="edges")
    for number, row in enumerate(overlaps):
        best = int(row.argmax())
        if row[best] >= iou:
            met[number] = True
            overlaps[:, best] = 0
    return met
