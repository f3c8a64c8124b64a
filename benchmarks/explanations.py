"""Time of an explanation with an index of the training points, compared with brute force over all points."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from benchmarks.timing import spread, take_turns
from localization.predictor import Predictor
from localization.representers import mips
from localization.representers.explain import Explainer, Explanation, SearchMethod

TOP = 10

Query = Float[np.ndarray, "m c"]


def measure(predictor: Predictor, queries: Sequence[Query], *, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds per query of the exact and the approximate explainer, and of two forms of brute force.

    Explanations are centred and have ten points of each sign, at most one per photo. Brute force only computes the
    values of all points and sorts them.

    Args:
        predictor: fitted with points.
        queries: unit features of places in photos that it was not fitted on.
    """
    assert predictor.points is not None
    exact, exact_seconds = _indexed(predictor, "exact", queries[0])
    ways: dict[str, Callable[[Query], Any]] = {"exact": _explain(exact)}
    indexing = {"exact": exact_seconds}
    if mips.is_installed():
        approximate, indexing["scann"] = _indexed(predictor, "scann", queries[0])
        ways["scann"] = _explain(approximate)
    ways |= _brute_force(exact)
    seconds = take_turns(ways, queries, rounds=rounds)
    truth = [_places(ways["exact"](query)) for query in queries]
    rows = []
    for name in ways:
        milliseconds = spread(1000 * seconds[name])
        row = {
            "part": "explain",
            "what": name,
            "ms": milliseconds.median,
            "ms_quartiles": milliseconds[1:],
            "of_brute_force": spread(seconds[name] / seconds["brute force, NumPy"]).median,
            "points": len(predictor.points),
            "photos": predictor.statistics.photos,
        }
        if name in indexing:
            found = [ways[name](query) for query in queries]
            agreeing = sum(len(_places(one) & right) for one, right in zip(found, truth))
            row["indexed_in_s"] = indexing[name]
            row["recall"] = agreeing / sum(map(len, truth))
            row["share_scanned"] = float(np.mean([one.points_scanned for one in found])) / len(predictor.points)
        rows.append(row)
    return rows


def _indexed(predictor: Predictor, index: SearchMethod, query: Query) -> tuple[Explainer, float]:
    """An explainer that has answered one query, and the seconds that this took."""
    assert predictor.points is not None
    begin = time.perf_counter()
    explainer = Explainer(
        predictor.points, predictor.solution, mean_unit=predictor.statistics.total.mean_unit, index=index
    )
    explainer.explain(query, top=TOP)
    return explainer, time.perf_counter() - begin


def _explain(explainer: Explainer) -> Callable[[Query], Explanation]:
    return lambda query: explainer.explain(query, top=TOP)


def _brute_force(explainer: Explainer) -> dict[str, Callable[[Query], Any]]:
    weighted = explainer.points.unit.astype(np.float32) * explainer.importance.astype(np.float32)[:, None]
    on_device = jnp.asarray(weighted)

    def with_numpy(query: Query) -> Any:
        values = weighted @ (query.sum(axis=0) - len(query) * explainer.mean_unit)
        return np.argsort(values)

    def with_jax(query: Query) -> Any:
        return jax.device_get(_sorted_values(on_device, query.sum(axis=0) - len(query) * explainer.mean_unit))

    return {"brute force, NumPy": with_numpy, "brute force, JAX": with_jax}


@jax.jit
def _sorted_values(weighted: Float[Array, "n c"], query: Float[Array, " c"]) -> Array:
    return jnp.argsort(jnp.matmul(weighted, query, precision=lax.Precision.HIGHEST))


def _places(explanation: Explanation) -> set[tuple[str, tuple[float, float]]]:
    return {(point.image, point.xy) for point in (*explanation.excitatory, *explanation.inhibitory)}
