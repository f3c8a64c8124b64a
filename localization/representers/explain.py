"""Answers why a place is foreground: the training positions of the largest representer values, of either sign.

The values and the three rankings are in ``values``. For ``value`` and ``centred`` the score of a position is at most
|alpha_i| times the length of the query. So an exact scan by decreasing |alpha_i| can stop as soon as no other position
can enter the list. Very many points are searched approximately instead (``mips``).
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from localization.foreground.closed_form import Solution
from localization.foreground.solvers import FiniteSolution
from localization.representers import mips
from localization.representers.mips import PointIndex
from localization.representers.points import Points
from localization.representers.values import (
    PointRanking,
    RepresenterPoint,
    ranking_query,
    ranking_scores,
)

SearchMethod = Literal["exact", "scann"]

_BLOCK = 2048
# Up to a gigabyte of unit features is held in memory in float32, for fast exact scans.
_MOST_IN_MEMORY = 2**28
_CANDIDATES = 50
# Unit features are stored in float16: their length can exceed 1 by this factor.
_ROUNDING = 1.001


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What makes a place foreground, and what makes it background.

    Attributes:
        value: <w*, q>, the sum of the cosines of the query's positions with w*.
        excitatory: points of positive importance, best first.
        inhibitory: points of negative importance, best first.
        points_scanned: number of points that were compared with the query.
    """

    value: float
    excitatory: list[RepresenterPoint]
    inhibitory: list[RepresenterPoint]
    points_scanned: int


class RankedPoints(NamedTuple):
    """Rows of the points, best first, their scores, and how many points were compared with the query."""

    rows: Int[np.ndarray, " k"]
    scores: Float[np.ndarray, " k"]
    points_scanned: int


class Explainer:
    """Answers queries about one set of points.

    Args:
        points: stored training positions.
        solution: gives w* and the importance.
        mean_unit: [C], u, the mean unit feature of all training positions.
        index: ``exact`` or ``scann``. None chooses ScaNN, if it is installed, for points of more than a gigabyte in
            float32.
    """

    def __init__(
        self,
        points: Points,
        solution: Solution,
        *,
        mean_unit: Float[np.ndarray, " c"],
        index: SearchMethod | None = None,
    ) -> None:
        self.points = points
        self.solution = solution
        self.mean_unit = mean_unit.astype(np.float32)
        self._float32_blocks: dict[tuple[int, int], Float[np.ndarray, "n c"]] = {}
        cosines = None
        if isinstance(solution, FiniteSolution):
            w = solution.w.astype(np.float32)
            steps = range(0, len(points), _BLOCK)
            cosines = np.concatenate([self._unit(np.arange(i, min(i + _BLOCK, len(points)))) @ w for i in steps])
        self.importance = solution.importance(points.norm, cosines)
        order = np.argsort(-np.abs(self.importance), kind="stable")
        self._order = {sign: order[sign * self.importance[order] > 0] for sign in (1, -1)}
        self._in_memory = points.unit.size <= _MOST_IN_MEMORY
        self.index: SearchMethod = index or ("exact" if self._in_memory or not mips.is_installed() else "scann")

    def explain(
        self,
        query: Float[np.ndarray, "m c"],
        *,
        top: int = 10,
        ranking: PointRanking = "centred",
        per_photo: int | None = 1,
    ) -> Explanation:
        """The excitatory and inhibitory points for a place.

        Args:
            query: float32 [m, C], unit features of the place's m positions.
            top: number of points of each sign.
            ranking: ``value``, ``centred`` or ``local``; see ``values``.
            per_photo: largest number of points of one photo; None for any number.
        """
        query = np.asarray(query, np.float32)
        q = query.sum(axis=0)
        found = {sign: self.rank(query, sign=sign, top=top, ranking=ranking, per_photo=per_photo) for sign in (1, -1)}
        points_scanned = sum(ranked.points_scanned for ranked in found.values())
        listed = [self._describe(found[sign].rows, q, len(query), sign) for sign in (1, -1)]
        return Explanation(float(self.solution.w @ q), listed[0], listed[1], points_scanned)

    def rank(
        self,
        query: Float[np.ndarray, "m c"],
        *,
        sign: int,
        top: int,
        ranking: PointRanking = "centred",
        per_photo: int | None = 1,
    ) -> RankedPoints:
        """The best ``top`` points among those whose importance has this sign; exact unless ``index`` is ``scann``.

        Scores are |alpha_i| <fhat_i, q'>, with q' the query or the centred query; the cosine for ``local``.
        """
        q, length = ranking_query(query, self.mean_unit, ranking)
        if self.index == "scann":
            return self._approximate(q, sign, top, ranking, per_photo)
        best = RankedPoints(np.zeros(0, np.int64), np.zeros(0), 0)
        points_scanned = 0
        for rows, unit in self._ordered_blocks(sign):
            worst = best.scores[-1] if len(best.rows) == top else -math.inf
            if ranking != "local" and worst >= float(abs(self.importance[rows[0]])) * length * _ROUNDING:
                break
            scores = ranking_scores(unit, self.importance[rows], q, ranking)
            points_scanned += len(rows)
            better = scores > worst
            candidates = np.concatenate([best.rows, rows[better]]), np.concatenate([best.scores, scores[better]])
            best = RankedPoints(*self._limited(*candidates, top, per_photo), points_scanned=0)
        return best._replace(points_scanned=points_scanned)

    def _approximate(
        self, q: Float[np.ndarray, " c"], sign: int, top: int, ranking: PointRanking, per_photo: int | None
    ) -> RankedPoints:
        index, direction = (self._local_index, q) if ranking == "local" else (self._value_index, sign * q)
        # Neighbouring cells of one photo look alike, and some have the other sign: few of the candidates remain.
        rows = index.nearest(direction, _CANDIDATES * top)
        rows = rows[sign * self.importance[rows] > 0]
        scores = ranking_scores(self._unit(rows), self.importance[rows], q, ranking)
        limited = self._limited(rows, scores, top, per_photo)
        return RankedPoints(*limited, points_scanned=len(rows))

    @functools.cached_property
    def _value_index(self) -> PointIndex:
        return PointIndex(self.points.unit, self.importance)

    @functools.cached_property
    def _local_index(self) -> PointIndex:
        return PointIndex(self.points.unit, np.ones(len(self.points)))

    def _limited(
        self, rows: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"], top: int, per_photo: int | None
    ) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """The best ``top`` rows, at most ``per_photo`` of one photo. Limiting block by block gives the same result."""
        order = np.argsort(-scores, kind="stable")
        if per_photo is not None:
            photos = self.points.photo[rows[order]]
            grouped = np.argsort(photos, kind="stable")
            firsts = np.searchsorted(photos[grouped], photos[grouped])
            place = np.empty(len(rows), np.int64)
            place[grouped] = np.arange(len(rows)) - firsts
            order = order[place < per_photo]
        order = order[:top]
        return rows[order], scores[order]

    def _describe(
        self, rows: Int[np.ndarray, " k"], q: Float[np.ndarray, " c"], positions: int, sign: int
    ) -> list[RepresenterPoint]:
        products = self._unit(rows) @ q
        values = self.importance[rows] * products
        total = float(self._total_value[sign] @ q)
        shares = values / total if total else np.zeros_like(values)
        photos, running = self.points.photos.take(self.points.photo[rows]), np.cumsum(shares)
        listed = []
        for i, (row, photo) in enumerate(zip(rows, photos)):
            listed.append(
                RepresenterPoint(
                    image=photo.name,
                    xy=photo.position(self.points.cell[row]),
                    image_size=photo.size,
                    label=photo.label,
                    thumbnail=photo.thumbnail,
                    importance=float(self.importance[row]),
                    similarity=float(products[i]) / positions,
                    value=float(values[i]),
                    share=float(shares[i]),
                    cumulative=float(running[i]),
                )
            )
        return listed

    @functools.cached_property
    def _total_value(self) -> dict[int, Float[np.ndarray, " c"]]:
        """sum alpha_i fhat_i over the points of each sign; its inner product with q is their total value."""
        totals = {1: np.zeros(self.points.unit.shape[1]), -1: np.zeros(self.points.unit.shape[1])}
        for sign, total in totals.items():
            for rows, unit in self._ordered_blocks(sign):
                total += self.importance[rows].astype(np.float32) @ unit
        return totals

    def _ordered_blocks(self, sign: int) -> Iterator[tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n c"]]]:
        """Rows of one sign of importance by decreasing |alpha|, and their unit features in float32."""
        order = self._order[sign]
        for start in range(0, len(order), _BLOCK):
            rows = order[start : start + _BLOCK]
            unit = self._float32_blocks.get((sign, start))
            if unit is None:
                unit = self._unit(rows)
                if self._in_memory:
                    self._float32_blocks[sign, start] = unit
            yield rows, unit

    def _unit(self, rows: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k c"]:
        return self.points.unit[rows].astype(np.float32)
