"""The metrics of weakly supervised localization: IoU, GT-Known Loc, Top-k Loc, MaxBoxAccV2, CorLoc, PxAP and PIoU.

"Official code" is that of Song et al. (github.com/yeonghwansong/UOLwRPS), and wsolevaluation that of Choe et al.
("Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020). Two box conventions are in use, and they
give different numbers:

    edges      [x0, y0, x1, y1] are pixel edges; a box of one pixel has area 1 and x1 = x0 + 1 (this project, COCO)
    inclusive  they are pixel indices, both ends included; a side is x1 - x0 + 1 (official code, wsolevaluation, VOC)
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

BoxConvention = Literal["edges", "inclusive"]
THRESHOLDS = np.arange(1, 100) / 100
"""The map thresholds of the official code, .01 to .99."""


def box_iou(
    a: Num[np.ndarray, "n 4"], b: Num[np.ndarray, "m 4"], *, convention: BoxConvention
) -> Float[np.ndarray, "n m"]:
    """Intersection over union of every box of ``a`` with every box of ``b``."""
    extra = 1 if convention == "inclusive" else 0
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.maximum(high - low + extra, 0).prod(axis=-1)
    areas = [np.maximum(box[:, 2:] - box[:, :2] + extra, 0).prod(axis=-1) for box in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - intersection
    return intersection / np.where(union > 0, union, 1)


def inclusive_box(box: Sequence[float], width: int, height: int) -> tuple[float, float, float, float]:
    """A box of edges as wsolevaluation has it: the far corner is x + w, y + h, clipped to the last pixel."""
    return box[0], box[1], min(box[2], width - 1), min(box[3], height - 1)


def centre_box(width: float, height: float, *, share: float = 0.5) -> tuple[float, float, float, float]:
    """The centre baseline, the same for every photo: a centred box of its shape that covers ``share`` of its area."""
    x, y = width * (1 - share**0.5) / 2, height * (1 - share**0.5) / 2
    return x, y, width - x, height - y


def centre_map(height: int, width: int) -> Float[np.ndarray, "H W"]:
    """The centre baseline for pixels: a Gaussian of the photo's shape, 1 at the centre and 0 in the corners."""
    y, x = (np.linspace(-1, 1, size) for size in (height, width))
    bump = np.exp(-2 * np.square(y))[:, None] * np.exp(-2 * np.square(x))
    return ((bump - bump.min()) / (bump.max() - bump.min())).astype(np.float32)


class ThresholdCurve(NamedTuple):
    """The share of photos whose box reaches an IoU with a true box, for each map threshold.

    Attributes:
        thresholds: [t].
        accuracy: share of photos [t] by IoU bound.
    """

    thresholds: Float[np.ndarray, " t"]
    accuracy: Mapping[float, Float[np.ndarray, " t"]]

    def best(self, iou: float = 0.5) -> tuple[float, float]:
        """The highest accuracy at an IoU, and its threshold. On the test photos themselves this is an oracle."""
        i = int(np.argmax(self.accuracy[iou]))
        return float(self.accuracy[iou][i]), float(self.thresholds[i])

    def at(self, threshold: float, iou: float = 0.5) -> float:
        """The accuracy at the threshold closest to the given one."""
        return float(self.accuracy[iou][int(np.argmin(np.abs(self.thresholds - threshold)))])


def threshold_curve(
    ious: Float[np.ndarray, "photos t"],
    *,
    thresholds: Float[np.ndarray, " t"] = THRESHOLDS,
    bounds: Sequence[float] = (0.3, 0.5, 0.7),
    where: Bool[np.ndarray, " photos"] | None = None,
) -> ThresholdCurve:
    """GT-Known Loc (IoU >= .5) over map thresholds; Top-k Loc if ``where`` marks the photos of known class.

    Args:
        ious: best IoU with a true box, of each photo at each threshold; 0 without a box.
        bounds: the IoUs at which a box counts as right.
        where: photos that can count as right (their class was predicted); the share is that of all photos.
    """
    allowed = np.ones(len(ious), bool) if where is None else where
    return ThresholdCurve(thresholds, {b: ((ious >= b) & allowed[:, None]).mean(axis=0) for b in bounds})


def max_box_acc_v2(
    curve: ThresholdCurve,
    *,
    convention: Literal["official", "wsolevaluation"],
    chosen_on: ThresholdCurve | None = None,
) -> float:
    """Mean accuracy over the curve's IoU bounds (.3, .5, .7).

    ``official`` takes one threshold for all bounds, the one with the best mean; ``wsolevaluation`` takes the best one
    for each bound. They are chosen on ``chosen_on``; None chooses them on the curve's own photos: an oracle.
    """
    stacked = np.stack(list(curve.accuracy.values()))
    chosen = np.stack(list((chosen_on or curve).accuracy.values()))
    if convention == "official":
        return float(stacked.mean(axis=0)[chosen.mean(axis=0).argmax()])
    return float(np.take_along_axis(stacked, chosen.argmax(axis=1)[:, None], axis=1).mean())


def in_top_k(logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], k: int) -> Bool[np.ndarray, " n"]:
    """Whether the true class is among the k largest; ties count against it."""
    true = np.take_along_axis(logits, labels[:, None], axis=1)
    return (logits >= true).sum(axis=1) <= k


def corloc(
    boxes: Iterable[Sequence[float] | None],
    truth: Iterable[Sequence[Sequence[float]]],
    *,
    convention: BoxConvention,
    iou: float = 0.5,
) -> float:
    """Share of photos whose box reaches ``iou`` with any true object; photos without objects are left out."""
    hits = []
    for box, objects in zip(boxes, truth, strict=True):
        if len(objects):
            found = box is not None and box_iou(np.array([box[:4]]), np.array(objects), convention=convention).max()
            hits.append(bool(found >= iou) if box is not None else False)
    return float(np.mean(hits))


class PixelCounts:
    """Histograms of map values on object and background pixels, in bins of 0.01, for PxAP and PIoU."""

    def __init__(self) -> None:
        self.true = np.zeros(101, np.int64)
        self.false = np.zeros(101, np.int64)

    def add(self, activation: Float[np.ndarray, "H W"], truth: Num[np.ndarray, "H W"]) -> None:
        """Counts one photo: activation in 0-1; truth 1 for object, 0 for background, 255 ignored."""
        # 1.0 has its own bin, as in wsolevaluation. Without rounding, 0.29 * 100 = 28.999... would go to bin 28.
        bins = np.floor(np.round(activation * 100.0, 6)).astype(np.int64)
        self.true += np.bincount(bins[truth == 1], minlength=101)
        self.false += np.bincount(bins[truth == 0], minlength=101)

    def pxap(self) -> float:
        """Area under the precision-recall curve of the pixels (PxAP of wsolevaluation)."""
        true, both = self._cumulative()
        with np.errstate(invalid="ignore"):
            precision = np.where(both > 0, true / np.maximum(both, 1), 0)
        recall = true / max(self.true.sum(), 1)
        return float((precision[1:] * np.diff(recall)).sum() + precision[0] * recall[0])

    def piou(self) -> float:
        """The best intersection over union of the pixels of all photos together, over thresholds (official code)."""
        true, both = self._cumulative()
        return float((true / np.maximum(self.true.sum() + both - true, 1)).max())

    def _cumulative(self) -> tuple[Int[np.ndarray, " bins"], Int[np.ndarray, " bins"]]:
        true = self.true[::-1].cumsum()
        return true, true + self.false[::-1].cumsum()
