"""Do explanations point to the right places: inside the object, in photos of the same class?"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from localization.encoders.base import DenseFeatures
from localization.evaluation.annotated_photo import AnnotatedPhoto
from localization.evaluation.protocols import OFFICIAL_FINE_GRAINED
from localization.foreground.statistics import unit_features
from localization.predictor import Predictor

_TOP = 10


def measure(
    predictor: Predictor, train: Sequence[AnnotatedPhoto], test: Sequence[AnnotatedPhoto]
) -> list[dict[str, Any]]:
    """Of the ten excitatory points of each test photo's strongest place: the shares inside boxes and of its class.

    Args:
        predictor: fitted with points on ``train`` photos squashed to the protocol's ``fit_side``.
    """
    explainer, rng = predictor.explainer, np.random.default_rng(0)
    points, side = explainer.points, OFFICIAL_FINE_GRAINED.fit_side or 0
    truth = {}
    for photo in train:
        height, width = photo.load().original_size
        truth[str(photo.path)] = np.array(photo.boxes) * side / np.array([width, height] * 2)
    positive = np.flatnonzero(explainer.importance > 0)
    shown = ((photo.label, OFFICIAL_FINE_GRAINED.prepare(photo.load().pixels)) for photo in test)
    inside: dict[str, list[bool]] = {}
    same: dict[str, list[bool]] = {}
    used: dict[str, set[int]] = {}
    arguments = {"w": predictor.direction()}
    for label, _, row in predictor.running_encoder.run(_strongest, arguments, shown):
        query = np.asarray(row)[None]
        ranked = {
            name: explainer.rank(query, sign=1, top=_TOP, ranking=name).rows for name in ("value", "centred", "local")
        }
        for name, rows in (ranked | {"random": rng.choice(positive, _TOP, replace=False)}).items():
            for point, fitted in zip(rows, points.photos.take(points.photo[rows])):
                x, y = fitted.position(points.cell[point])
                boxes = truth[fitted.name]
                hits = (boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])
                inside.setdefault(name, []).append(bool(hits.any()))
                same.setdefault(name, []).append(fitted.label == label)
                used.setdefault(name, set()).add(int(point))
    return [
        {
            "method": name,
            "photos": len(test),
            "top": _TOP,
            "inside_box": float(np.mean(inside[name])),
            "same_class": float(np.mean(same[name])),
            "distinct_points": len(used[name]),
        }
        for name in inside
    ]


def _strongest(arguments: Any, dense: DenseFeatures) -> Any:
    """The unit feature of the place with the largest cosine with w* in each photo, [B, C]."""
    units = unit_features(dense.features).reshape(dense.features.shape[0], -1, dense.features.shape[-1])
    best = jnp.argmax(units @ arguments["w"], axis=-1)
    return jnp.take_along_axis(units, best[:, None, None], axis=1)[:, 0]
