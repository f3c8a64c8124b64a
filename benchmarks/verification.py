"""Time and success of geometric verification, compared with its peers on random problems with a known answer.

    python -m benchmarks.verification --json benchmarks/results/verification.json

Photos: none; the matches are random.

Photos have 640x480 pixels. A given share of the putative matches is random; the errors of the others are 1 to 3 pixels.
A photo is a success if the found and the planted transform move the true matches, on average, to points less than 5
pixels apart. Every time is that of the whole batch. Methods are timed in turns; slow peers are timed once.
"""

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from tyro.conf import arg

from benchmarks import planted, results_file, verifiers
from benchmarks.command_line import run
from benchmarks.planted import Problem
from benchmarks.timing import spread, take_turns
from benchmarks.verifiers import Verifier
from retrieval.verification.transforms import Model

OUTLIERS = (0.1, 0.3, 0.5, 0.7, 0.75, 0.9)
# Peers that take longer are timed once; scikit-image, which takes candidates one by one, with few of them.
SLOW_SECONDS = 2.0
SCIKIT_CANDIDATES = 5

OURS = "delf-jax"
BLIND = "delf-jax without scales"


class Case(NamedTuple):
    """One kind of planted problem."""

    model: Model
    candidates: int
    matches: int
    outliers: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures verification beside scikit-image, OpenCV, PoseLib, pydegensac and pycolmap.

    Attributes:
        json: write the results to this file too.
        full: measure all combinations of candidates, matches, share of outliers and model.
        only: models to measure; default all.
        problems: number of planted problems of each kind.
        rounds: number of times that each method is timed.
    """

    json: Annotated[Path | None, arg(metavar="FILE")] = None
    full: bool = False
    only: tuple[Model, ...] = ("affine", "similarity", "homography")
    problems: int = 2
    rounds: int = 4


def main(options: Options) -> list[dict[str, Any]]:
    """Measures all cases, prints a table after each and the summary at the end, and returns the rows."""
    rows = []
    for case in cases(full=options.full):
        if case.model in options.only:
            measured = measure(case, problems=options.problems, rounds=options.rounds)
            print(table(measured), flush=True)
            rows += measured
    print("\n".join(summary(rows)))
    if options.json is not None:
        settings = {
            "photo": f"{planted.WIDTH}x{planted.HEIGHT}",
            "noise_px": planted.NOISE,
            "threshold_px": verifiers.THRESHOLD,
            "success_px": planted.SUCCESS,
            "threads": verifiers.THREADS,
            "problems": options.problems,
            "rounds": options.rounds,
        }
        results_file.write(options.json, "verification", rows, settings)
    return rows


def cases(*, full: bool) -> list[Case]:
    """The outlier grid at 100 candidates of 200 matches; then few and many candidates, few and many matches."""
    if full:
        grid = itertools.product((1, 10, 100, 1000), (50, 200, 1000), (0.1, 0.3, 0.5, 0.7, 0.9))
        models: tuple[Model, ...] = ("affine", "similarity", "homography")
        return [Case(model, *sizes) for sizes in grid for model in models] + [
            Case(model, 100, 200, 0.75) for model in models
        ]
    return [
        *(Case("affine", 100, 200, outliers) for outliers in OUTLIERS),
        *(Case("affine", candidates, 200, 0.75) for candidates in (1, 10, 1000)),
        *(Case("affine", 100, matches, 0.75) for matches in (50, 1000)),
        *(Case("similarity", 100, 200, outliers) for outliers in (0.3, 0.75, 0.9)),
        *(Case("homography", 100, 200, outliers) for outliers in (0.3, 0.5, 0.75)),
    ]


def measure(case: Case, *, problems: int, rounds: int) -> list[dict[str, Any]]:
    """One row for every method: its quality over all problems, and its time for one problem."""
    planted_problems = [planted.plant(**case._asdict(), seed=seed) for seed in range(problems)]
    ways = {OURS: verifiers.ours(case.model, scales=True), BLIND: verifiers.ours(case.model, scales=False)}
    others, missing = verifiers.peers(case.model)
    rows: dict[str, dict[str, Any]] = {}
    quick: dict[str, Verifier] = {}
    for name, verifier in {**ways, **others}.items():
        asked = planted_problems
        if name == "scikit-image":
            asked = [_first(problem, SCIKIT_CANDIDATES) for problem in planted_problems[:1]]
        rows[name], seconds = _quality(verifier, asked)
        rows[name] |= _time([1000 * seconds * case.candidates / len(asked[0].src)])
        if name in ways or (seconds < SLOW_SECONDS and name != "scikit-image"):
            quick[name] = verifier
    timed = take_turns({name: way.run for name, way in quick.items()}, planted_problems, rounds=rounds)
    for name, passed in timed.items():
        rows[name] |= _time(1000 * passed)
    rows |= {name: {"skipped": reason} for name, reason in missing.items()}
    return [{**case._asdict(), "method": name, **row} for name, row in rows.items()]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of one case as plain text."""
    first = rows[0]
    lines = [
        f"{first['model']}, {first['candidates']} candidates, {first['matches']} matches, "
        f"{first['outliers']:.0%} outliers",
        f"  {'':24}{'ms':>11}{'quartiles':>20}{'success':>10}{'error':>9}{'recall':>9}",
    ]
    for row in rows:
        if "skipped" in row:
            lines.append(f"  {row['method']:24}skipped: {row['skipped']}")
            continue
        lower, upper = row["ms_quartiles"]
        error = "" if row["error_px"] is None else f"{row['error_px']:.2f}"
        lines.append(
            f"  {row['method']:24}{row['ms']:11.2f}{f'{lower:.2f} to {upper:.2f}':>20}"
            f"{row['success_percent']:9.1f}%{error:>9}{row['recall_percent']:8.1f}%"
        )
    return "\n".join(lines)


def summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many times as fast as OpenCV's fastest method and as scikit-image ours is, for batches of 100 candidates."""
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        of_opencv, of_scikit = [], []
        for case in dict.fromkeys(_case(row) for row in rows if row["model"] == model and row["candidates"] == 100):
            times = {row["method"]: row["ms"] for row in rows if _case(row) == case and "ms" in row}
            of_opencv.append(min(ms for name, ms in times.items() if name.startswith("OpenCV")) / times[OURS])
            if "scikit-image" in times:
                of_scikit.append(times["scikit-image"] / times[OURS])
        for name, ratios in (("OpenCV's fastest", of_opencv), ("scikit-image", of_scikit)):
            if ratios:
                lines.append(
                    f"{model}, 100 candidates: {np.exp(np.mean(np.log(ratios))):.3g} times as fast as {name} "
                    f"(geometric mean of {len(ratios)} cases, {min(ratios):.3g} to {max(ratios):.3g})"
                )
    return lines


def _quality(verifier: Verifier, problems: Sequence[Problem]) -> tuple[dict[str, Any], float]:
    """Success, error of the successes and recall over all problems, and the seconds of the last run."""
    judged = []
    for problem in problems:
        begin = time.perf_counter()
        found = verifier.run(problem)
        seconds = time.perf_counter() - begin
        judged.append(planted.judge(problem, *verifier.read(problem, found)))
    error, success, recall = (np.concatenate(field) for field in zip(*judged, strict=True))
    return {
        "success_percent": 100 * float(success.mean()),
        "error_px": float(np.median(error[success])) if success.any() else None,
        "recall_percent": 100 * float(recall.mean()),
        "judged": len(success),
    }, seconds


def _time(milliseconds: Sequence[float] | np.ndarray) -> dict[str, Any]:
    median, lower, upper = spread(milliseconds)
    return {"ms": median, "ms_quartiles": (lower, upper), "times": len(milliseconds)}


def _first(problem: Problem, candidates: int) -> Problem:
    return Problem(problem.model, *(field[:candidates] for field in problem[1:]))


def _case(row: Mapping[str, Any]) -> Case:
    return Case(*(row[name] for name in Case._fields))


if __name__ == "__main__":
    run(main, Options, __doc__)
