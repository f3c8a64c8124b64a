"""Does it find the same building again, and does it refuse what it does not know?

    python -m benchmarks.accuracy --json benchmarks/results/accuracy.json

Two experiments, every method with the same budget of features, the same verification and its own best matching rule:
60 photos of buildings asked among 488 photos (``buildings``), and 128 photos of other things asked among 360 photos
that hold nothing of them (``strangers``).
"""

import dataclasses
import datetime
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from jaxtyping import Bool, Float
from tyro.conf import arg

from benchmarks import datasets, exhaustive
from benchmarks.exhaustive import Answer
from benchmarks.feature_cache import cached_features, strongest
from benchmarks.methods import METHODS, Method, Request
from delf_jax import atomic
from delf_jax.errors import DelfError
from delf_jax.features import LocalFeatures
from delf_jax.head import Head
from delf_jax.loading import model_paths
from retrieval import metrics
from retrieval.index import Index


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures retrieval and refusal on real photos.

    Attributes:
        data: folder of the photos with ground truth; default $DELF_SHARED, then ../shared/data beside the repository.
        json: write the results to this file too.
        cache: features are kept here between runs.
        methods: which rows to measure.
        features: budgets of features a photo.
        exhaustive: match every pair of photos with every method, instead of searching an index.
        verify: photos verified for each query.
        log10_nfa: an answer is accepted at or below this; default the packaged head's own threshold.
        seed: of the verification.
    """

    data: Path | None = None
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    cache: Path = Path(".cache/accuracy")
    methods: tuple[str, ...] = tuple(METHODS)
    features: tuple[int, ...] = (600,)
    exhaustive: bool = False
    verify: int = 100
    log10_nfa: float | None = None
    seed: int = 0


def main(options: Options) -> list[dict[str, Any]]:
    """Measures every method at every budget, prints the table, and returns its rows."""
    data = datasets.data_folder(options.data)
    threshold = _threshold(options)
    buildings, strangers = datasets.buildings(data), datasets.strangers(data)
    photos = sorted({*buildings.queries, *buildings.database, *strangers.queries, *strangers.database})
    references = [photo for photo in buildings.database if photo.parent.name == "Reference"]
    request = Request(max(options.features), references, options.cache)
    rows = []
    for name in options.methods:
        method = METHODS[name](request)
        kept = cached_features(method.extract, photos, description=method.description, folder=options.cache)
        extracted = [method.finish(one) for one in kept]
        for budget in options.features:
            features = {photo: strongest(one, budget) for photo, one in zip(photos, extracted)}
            start = time.perf_counter()
            found = ask(buildings, features, method, options, threshold=threshold)
            unknown = ask(strangers, features, method, options, threshold=threshold)
            row = {"method": name, "features": budget, **measure(buildings, found, unknown, threshold=threshold)}
            print(f"{name} {budget}: searched in {time.perf_counter() - start:.0f} s", file=sys.stderr)
            rows.append(row)
    print(table(rows))
    if options.json is not None:
        settings = {
            "verify": options.verify,
            "log10_nfa": threshold,
            "seed": options.seed,
            "exhaustive": options.exhaustive,
        }
        report = {"benchmark": "accuracy", "environment": environment(), "settings": settings, "rows": rows}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(options.json, (json.dumps(report, indent=1) + "\n").encode())
    return rows


def environment() -> dict[str, Any]:
    """What the numbers were measured with."""
    packages = {name: importlib.metadata.version(name) for name in ("jax", "opencv-python-headless", "scann")}
    device = jax.devices()[0]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"date": today, "device": device.device_kind, "python": platform.python_version(), **packages}


def ask(
    dataset: datasets.RetrievalSet,
    features: dict[Path, LocalFeatures],
    method: Method,
    options: Options,
    *,
    threshold: float,
) -> list[list[Answer]]:
    """The verified answers to every query of a set, best first: those of the index, or of every pair of photos."""
    if method.matching is not None or options.exhaustive:
        database = [features[photo] for photo in dataset.database]
        return [
            exhaustive.search(
                features[query],
                database,
                matching=method.matching or exhaustive.Matching(),
                verify=options.verify,
                threshold=threshold,
                key=jax.random.key(options.seed),
            )
            for query in dataset.queries
        ]
    index = Index.build(((str(i), features[photo]) for i, photo in enumerate(dataset.database)), threshold=threshold)
    results = [
        index.search(features[query], verify=options.verify, top=options.verify, seed=options.seed)
        for query in dataset.queries
    ]
    return [
        [Answer(int(match.image), match.inliers, _certain(match.log10_nfa)) for match in result.matches]
        for result in results
    ]


def measure(
    buildings: datasets.RetrievalSet,
    found: Sequence[Sequence[Answer]],
    unknown: Sequence[Sequence[Answer]],
    *,
    threshold: float,
) -> dict[str, Any]:
    """The numbers of one row, in percent but for counts and confidences.

    ``found`` answers the buildings' queries, ``unknown`` the strangers'. A building is accepted where the log10_nfa of
    its first answer is at or below ``threshold``, a stranger where any answer's is. ``recall_at_0`` and ``recall_at_1``
    are the shares of buildings answered right and surer than all strangers, and than all strangers but one.
    """
    depth = max(1, *(len(answers) for answers in found))
    relevant = np.zeros((len(found), depth), bool)
    for row, (answers, right) in enumerate(zip(found, buildings.relevant, strict=True)):
        relevant[row, : len(answers)] = [answer.photo in right for answer in answers]
    positives = np.array([len(right) for right in buildings.relevant])
    first = relevant[:, 0]
    sure = np.array([-answers[0].log10_nfa if answers else -np.inf for answers in found])
    strange = np.array([-min((answer.log10_nfa for answer in answers), default=np.inf) for answers in unknown])
    confidence = np.concatenate([sure, strange])
    correct = np.concatenate([first, np.zeros(len(strange), bool)])
    return {
        "top1": 100 * metrics.top_k_accuracy(relevant),
        "top5": 100 * metrics.top_k_accuracy(relevant, k=5),
        "map": 100 * metrics.mean_average_precision(relevant, positives=positives),
        "gap": 100 * metrics.global_average_precision(confidence, correct, positives=len(first)),
        "accepted_right": 100 * float(np.mean(first & (sure >= -threshold))),
        "accepted_wrong": int(np.sum(~first & (sure >= -threshold))),
        "strangers_accepted": int(np.sum(strange >= -threshold)),
        "recall_at_0": 100 * recall_at_false_accepts(sure, first, strange, allowed=0),
        "recall_at_1": 100 * recall_at_false_accepts(sure, first, strange, allowed=1),
        "surest_strangers": sorted(float(-value) for value in strange)[:5],
        "wrong": [query.stem for query, right in zip(buildings.queries, first) if not right],
    }


def recall_at_false_accepts(
    sure: Float[np.ndarray, " q"], right: Bool[np.ndarray, " q"], strange: Float[np.ndarray, " s"], *, allowed: int
) -> float:
    """Share of queries answered right at the lowest threshold that accepts at most ``allowed`` strangers.

    >>> recall_at_false_accepts(np.array([9.0, 5.0]), np.array([True, True]), np.array([7.0, 1.0]), allowed=0)
    0.5
    """
    limit = np.sort(strange)[::-1][allowed] if allowed < len(strange) else -np.inf
    return float(np.mean(right & (sure > limit)))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as plain text."""
    heads = ("method", "features", "top1", "top5", "map", "gap", "accepted_right", "strangers_accepted", "recall_at_0")
    cells = [[_cell(row[head]) for head in (*heads, "recall_at_1")] for row in rows]
    lines = [[*heads, "recall_at_1"], *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines)


def _cell(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _certain(log10_nfa: float | None) -> float:
    """A photo that was not verified is no evidence at all."""
    return float("inf") if log10_nfa is None else log10_nfa


def _threshold(options: Options) -> float:
    if options.log10_nfa is not None:
        return options.log10_nfa
    threshold = Head.open(model_paths("delf-r50")[1]).log10_nfa_threshold
    if threshold is None:
        raise DelfError("the packaged head has no calibrated threshold; give one with --log10-nfa")
    return threshold


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except (DelfError, FileNotFoundError) as error:
        sys.exit(str(error))
