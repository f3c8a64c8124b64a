"""At which log10_nfa a match is accepted: the threshold in a head file, from photos that match nothing.

    python -m benchmarks.calibration --write

134 photos of landmarks elsewhere are asked among 60 photos of San Francisco, so every answer is wrong, and no pair of
photos is one that ``benchmarks.accuracy`` counts refusals on.
The threshold is the surest of them, rounded down to a half, so that none of these queries would be accepted, and never
above -2: one false alarm in a hundred queries.
"""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import tyro

from benchmarks import datasets
from benchmarks.feature_cache import cached_features
from benchmarks.methods import Request, method
from benchmarks.ranking import Search, ask
from delf_cli.environment import start_jax
from delf_jax.errors import DelfError
from delf_jax.extraction.head import Head
from delf_jax.loading import model_paths

_HIGHEST = -2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibrates the threshold of the packaged head.

    Attributes:
        data: folder of the photos with ground truth; default $DELF_SHARED, then ../shared/data beside the repository.
        method: the row of ``benchmarks.accuracy`` that the head is used as.
        features: features a photo.
        cache: features are kept here between runs.
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
    """Measures, prints and, if asked, writes the threshold; returns what was measured."""
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
    """Landmarks of the distractor list's ``val`` part, asked among the buildings' references."""
    queries = tuple(photo for photo in datasets.landmark_distractors(data) if photo.parent.parent.name == "val")
    database = tuple(photo for photo in datasets.buildings(data).database if photo.parent.name == "Reference")
    return datasets.RetrievalSet("landmarks elsewhere", queries, database, (frozenset(),) * len(queries))


if __name__ == "__main__":
    start_jax()
    try:
        main(tyro.cli(Calibration, description=__doc__))
    except (DelfError, FileNotFoundError) as error:
        sys.exit(str(error))
