"""Accuracy of search: are photos of the same place found, and are photos of other things refused?

    python -m benchmarks.accuracy --json benchmarks/results/accuracy.json --plot benchmarks/results/accuracy.svg

Photos: ``smvs_landmarks``, ``coco128``, ``landmarks`` (and for ``phototourism`` its own) in the data folder, or a
folder with ``queries`` and ``references`` (see ``benchmarks.datasets``).

Every method gets the same number of features, the same first stage (votes of an index of its own descriptors), and the
verification that suits it best. ``smvs``: 60 photos of buildings are searched among 488 photos, and 128 photos of other
things are searched among 360 photos that do not show them. ``phototourism``: 23 photos of five landmarks.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tyro.conf import arg

from benchmarks import datasets, methods, plots, results_file, scoring
from benchmarks.command_line import run
from benchmarks.errors import Unavailable
from benchmarks.feature_cache import cached_features, strongest
from benchmarks.ranking import Answers, Search, accepted_at, ask
from delf_cli.environment import start_jax
from delf_jax.loading import model_paths

METHODS = ("rootsift", "aliked", "norm", "foreground", "learned")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures search, and refusal of strangers, on real photos.

    Attributes:
        dataset: smvs, phototourism, or a folder with queries and references.
        data: folder of the photos with ground truth (default: $DELF_SHARED).
        json: also write the results to this file.
        plot: draw precision and recall, and top-1 against features, into this SVG file.
        cache: folder where features are kept between runs.
        methods: which rows to measure: rootsift, aliked, or SCORER[-DIMENSION][-adapt] as in learned-40.
        head: head file for our rows (default: the packaged one).
        features: most features per photo; each number gives a row.
        verify: number of photos that are verified for each query.
        log10_nfa: largest log10_nfa that is accepted (default: the threshold of the head).
        seed: random seed of the verification.
    """

    dataset: str = "smvs"
    data: Path | None = None
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    plot: Annotated[Path | None, arg(metavar="FILE")] = None
    cache: Path = Path(".cache/accuracy")
    methods: tuple[str, ...] = METHODS
    head: Path | None = None
    features: tuple[int, ...] = (600,)
    verify: int = 100
    log10_nfa: float | None = None
    seed: int = 0


def main(options: Options) -> list[dict[str, Any]]:
    """Measures every method with every number of features, prints the table, and returns its rows."""
    experiment = datasets.experiment(options.dataset, options.data)
    head = options.head or model_paths("delf-r50")[1]
    threshold = options.log10_nfa
    if threshold is None:
        threshold = accepted_at(len(experiment.known.database), options.head)
    search = Search(verify=options.verify, threshold=threshold, seed=options.seed)
    request = methods.Request(
        max_features=max(options.features),
        head=head,
        collection=experiment.collection,
        cache=options.cache,
        peer_weights=_peer_weights(options),
    )
    settings = {
        "dataset": experiment.known.name,
        "queries": len(experiment.known.queries),
        "photos": len(experiment.known.database),
        "head": head.name,
        "log10_nfa": search.threshold,
        "verify": search.verify,
        "seed": search.seed,
    }
    rows: list[dict[str, Any]] = []
    for name in options.methods:
        try:
            rows += measure(methods.method(name, request), experiment, options, search)
        except Unavailable as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            rows.append({"method": name, "left_out": str(error)})
        if options.json is not None:
            results_file.write(options.json, "accuracy", rows, settings)
    print(scoring.table(rows))
    if options.plot is not None:
        plots.write_accuracy(options.plot, rows, title=f"{experiment.known.name}, affine verification")
    return rows


def measure(
    method: methods.Method, experiment: datasets.Experiment, options: Options, search: Search
) -> list[dict[str, Any]]:
    """The rows of one method: every number of features, with and without verification."""
    photos = experiment.photos
    kept = cached_features(method.extract, photos, description=method.description, folder=options.cache)
    extracted = [method.finish(one) for one in kept]
    rows = []
    for budget in options.features:
        features = {photo: strongest(one, budget) for photo, one in zip(photos, extracted, strict=True)}
        start = time.perf_counter()
        known = ask(experiment.known, features, method.matching, search)
        strangers = experiment.strangers
        unknown = Answers([], []) if strangers is None else ask(strangers, features, method.matching, search)
        print(f"{method.name} {budget}: searched in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        described = {
            "method": method.name,
            "features": budget,
            "dimension": extracted[0].descriptors.shape[1],
            "features_found": float(np.mean([len(one) for one in features.values()])),
        }
        numbers = scoring.verified(experiment, known, unknown, threshold=search.threshold)
        rows.append(described | {"verified": True} | numbers)
        rows.append(described | {"verified": False} | scoring.voted(experiment, known, unknown))
    return rows


def _peer_weights(options: Options) -> Path:
    try:
        return datasets.data_folder(options.data) / "peer_weights"
    except FileNotFoundError:
        return Path("peer_weights")


if __name__ == "__main__":
    start_jax()
    run(main, Options, __doc__)
