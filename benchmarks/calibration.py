"""Chooses the log10_nfa at which a match is accepted, and writes it to a head file.

    python -m benchmarks.calibration --write

Photos: ``landmarks`` and ``smvs_landmarks`` in the data folder.

134 photos of other landmarks are searched among 60 photos of San Francisco, so every answer is wrong. No pair of photos
is used by ``benchmarks.accuracy`` for its refusals. The threshold is the lowest log10_nfa of these answers, rounded
down to a multiple of 0.5, so that none of them would be accepted. It is never above -2: one false alarm in a hundred
queries.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from benchmarks import datasets
from benchmarks.command_line import run
from benchmarks.feature_cache import cached_features
from benchmarks.methods import Request, method
from benchmarks.ranking import Search, ask
from delf_cli.environment import start_jax
from delf_jax.extraction.head import Head
from delf_jax.loading import model_paths

_HIGHEST = -2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibrates the threshold of the packaged head.

    Attributes:
        data: folder of the photos with ground truth (default: $DELF_SHARED).
        method: the row of ``benchmarks.accuracy`` that the head is used as.
        features: most features per photo.
        cache: folder where features are kept between runs.
        head: the head file to calibrate; default the packaged one.
        write: put the threshold into the head file.
    """

    data: Path | None = None
    method: str = "norm"
    features: int = 1000
    cache: Path = Path(".cache/accuracy")
    head: Path | None = None
    write: bool = False


def main(options: Calibration) -> dict[str, Any]:
    """Measures and prints the threshold, and writes it with --write. Returns the measurement."""
    data = datasets.data_folder(options.data)
    unrelated = landmarks_elsewhere(data)
    path = options.head or model_paths("delf-r50")[1]
    request = Request(
        max_features=options.features,
        head=path,
        collection=(),
        cache=options.cache,
        peer_weights=data / "peer_weights",
    )
    chosen = method(options.method, request)
    photos = [*unrelated.queries, *unrelated.database]
    kept = cached_features(chosen.extract, photos, description=chosen.description, folder=options.cache)
    features = {photo: chosen.finish(one) for photo, one in zip(photos, kept, strict=True)}
    answers = ask(unrelated, features, chosen.matching, Search(verify=100, threshold=-math.inf))
    surest = sorted(min((-answer.confidence for answer in found), default=math.inf) for found in answers.verified)
    threshold = min(math.floor(2 * surest[0]) / 2, _HIGHEST)
    measured = {
        "queries": len(unrelated.queries),
        "photos": len(unrelated.database),
        "surest": [round(value, 2) for value in surest[:5]],
    }
    print(f"{options.method}: {measured}; threshold {threshold}")
    if options.write:
        head = Head.open(path)
        notes = head.notes | {"threshold": {"command": "python -m benchmarks.calibration --write", **measured}}
        dataclasses.replace(head, log10_nfa_threshold=threshold, notes=notes).save(path)
    return measured | {"threshold": threshold}


def landmarks_elsewhere(data: Path) -> datasets.RetrievalSet:
    """Landmarks of the ``val`` part of the distractor list, searched among the references of the buildings."""
    queries = tuple(photo for photo in datasets.landmark_distractors(data) if photo.parent.parent.name == "val")
    database = tuple(photo for photo in datasets.buildings(data).database if photo.parent.name == "Reference")
    return datasets.RetrievalSet("landmarks elsewhere", queries, database, (frozenset(),) * len(queries))


if __name__ == "__main__":
    start_jax()
    run(main, Calibration, __doc__)
