"""Calibrates the packaged head on strangers: when matches are accepted, and how often wrongly at most.

    python -m benchmarks.calibration --json benchmarks/results/calibration.json --plot docs/images/calibration.svg

With --write the packaged head gets the calibrations.

Photos: ``landmarks`` in the data folder.

No query shows anything of the index that it is searched in (``benchmarks.strangers``). Queries that come from one photo
or one landmark go wrong together; how many independent ones they are worth is measured. The threshold is below the
score of every stranger, which proves the bound that so many independent ones can prove. For larger indexes it falls
with the logarithm of their size, as steeply as the surest strangers did; sizes that the fall was not taken from test
it. Stated bounds are tested too: thresholds that half of the regions calibrate meet the strangers of the other half.

It takes an hour of one core. A run goes on where the last one was stopped.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Float
from tyro.conf import arg

from benchmarks import datasets, plots, results_file, strangers
from benchmarks.command_line import run
from benchmarks.stranger_scores import Kind, OutOfTime, Scores, fingerprint, scores
from delf_cli.environment import start_jax
from delf_jax.extraction.calibration import Calibration
from delf_jax.extraction.head import Head
from delf_jax.loading import model_paths
from delf_jax.settings import ExtractionSettings
from retrieval.calibration import VERIFIED
from retrieval.verification import risk_control

WRONG_PER_THOUSAND = 1.0
CONFIDENCE = 0.95
SIZE = 60
# Sizes from which the fall is taken, and others to test it; they are dear, so each eighth stranger of two regions.
SIZES = (60, 1000, 10_000)
LEFT_OUT = (250, 4000)
EVERY = 8
ASKED = strangers.REGIONS[:2]
# The kinds of features beside the default, in an index of ``SIZE`` photos, and each so-many-th stranger.
OTHERS: Mapping[Kind, int] = {Kind(most=100): 4, Kind(dimension=40): 2, Kind(dimension=1024): 4}
STATED = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
# What the plot shows for 0.
_LEAST = 0.1
# Shares of the strangers whose score tells how the threshold moves with the size of the index.
LEVELS = (0.02, 0.05, 0.1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Calibrates the packaged head.

    Attributes:
        data: folder of the photos with ground truth (default: $DELF_SHARED).
        cache: folder where features and scores are kept.
        json: also write the results to this file.
        plot: draw the stated against the observed rates into this SVG file.
        minutes: stop after this time; the next run goes on.
        write: put the calibrations into the packaged head.
    """

    data: Path | None = None
    cache: Path = Path(".cache/calibration")
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    plot: Annotated[Path | None, arg(metavar="FILE")] = None
    minutes: float = math.inf
    write: bool = False


def main(options: Options) -> list[dict[str, Any]]:
    """Measures what is missing, prints the rows, and returns them. Exit code 3 if the time was not enough."""
    deadline = time.monotonic() + 60 * options.minutes
    photos = strangers.photos_by_region(datasets.data_folder(options.data))
    head = model_paths(ExtractionSettings.model)[1]

    def measured(kind: Kind, sizes: Sequence[int], every: int = 1, asked: Sequence[str] = strangers.REGIONS) -> Scores:
        return scores(
            photos, kind, head=head, sizes=sizes, cache=options.cache, deadline=deadline, every=every, asked=asked
        )

    try:
        default = measured(Kind(), (SIZE,))
        grown, between = (measured(Kind(), sizes, EVERY, ASKED) for sizes in (SIZES, LEFT_OUT))
        others = {kind: measured(kind, (SIZE,), every) for kind, every in OTHERS.items()}
    except OutOfTime:
        print("out of time; the same command goes on", file=sys.stderr)
        sys.exit(3)
    fall = fall_of(grown)
    named = {"default": default, "default, growing index": grown} | {_name(kind): each for kind, each in others.items()}
    rows = [row for name, each in named.items() for row in _of_sizes(name, each)]
    rows += [{"features": name, **independence(each)} for name, each in named.items()]
    rows += left_out(between, grown, fall)
    rows += curve(default, fall) + curve(grown, fall)
    few = [each for kind, each in others.items() if kind.dimension == Kind().dimension]
    calibrations = [calibration([default, grown, *few], Kind(), head, fall)]
    calibrations += [
        calibration([each], kind, head, fall) for kind, each in others.items() if kind.dimension != Kind().dimension
    ]
    rows += [{"part": "calibration", **each.to_json()} for each in calibrations]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if options.json is not None:
        settings = {"fall": fall, "levels": LEVELS, "regions": strangers.REGIONS, "scales": ExtractionSettings.scales}
        results_file.write(options.json, "calibration", rows, settings)
    if options.plot is not None:
        plot(options.plot, rows)
    if options.write:
        before = Head.open(head)
        notes = before.notes | {"threshold": {"command": "python -m benchmarks.calibration --write"}}
        dataclasses.replace(before, calibrations=tuple(calibrations), log10_nfa_threshold=None, notes=notes).save(head)
    return rows


def calibration(found: Sequence[Scores], kind: Kind, head: Path, fall: float) -> Calibration:
    """The threshold that no stranger of these measurements passes, and what the first of them prove by that.

    No correction for many tests is needed: the threshold has to pass all of them.
    """
    independent = independence(found[0])["effective"]
    wrong = max(WRONG_PER_THOUSAND, _provable(independent))
    lowest = [
        each.values[:, place].min() + fall * larger(size) for each in found for place, size in enumerate(each.sizes)
    ]
    threshold = min(risk_control.LOOSEST, math.ceil(100 * min(lowest) - 1) / 100)
    return Calibration(
        wrong_per_thousand=wrong,
        confidence=CONFIDENCE,
        strangers=independent,
        fingerprint=fingerprint(head, kind.dimension),
        scorer=kind.scorer,
        detection=ExtractionSettings.detection,
        verified=VERIFIED,
        photos=VERIFIED,
        photos_tested=max(max(each.sizes) for each in found),
        fall=fall,
        thresholds=(threshold,),
    )


def larger(size: int) -> float:
    """How many times tenfold an index is larger than what is verified of it."""
    return max(0.0, math.log10(size / VERIFIED))


def _provable(count: int) -> float:
    """The bound in 1000, with one digit, that so many strangers can prove."""
    return math.ceil(10_000 * risk_control.upper_bound(0, count, confidence=CONFIDENCE)) / 10


def fall_of(found: Scores) -> float:
    """How far the scores of the surest strangers fall for a tenfold size: the steepest of all levels and sizes."""
    steepest = 0.0
    for level in LEVELS:
        first, *rest = np.quantile(found.values, level, axis=0)
        steepest = max(steepest, *((first - value) / larger(size) for value, size in zip(rest, found.sizes[1:])))
    return math.ceil(20 * steepest) / 20


def left_out(between: Scores, grown: Scores, fall: float) -> list[dict[str, Any]]:
    """For sizes that the fall was not taken from: how many strangers pass the threshold of each stated bound."""
    rows = []
    for wrong in STATED:
        base = _base(grown.values, grown.sizes, fall, wrong)
        for place, size in enumerate(between.sizes if base is not None else ()):
            passed = between.values[:, place] <= (base or 0.0) - fall * larger(size)
            rows.append({"part": "size left out", "photos": size, "stated": wrong, **_observed(passed)})
    return rows


def curve(found: Scores, fall: float) -> list[dict[str, Any]]:
    """Bounds that half of the regions state, and what the strangers of the other half observe; both ways together."""
    rows = []
    regions = list(dict.fromkeys(found.regions.tolist()))
    first = np.isin(found.regions, regions[::2])
    for wrong in STATED:
        own, other = (_base(found.values[half], found.sizes, fall, wrong) for half in (first, ~first))
        if own is None or other is None:
            continue
        for place, size in enumerate(found.sizes):
            limit = np.where(first, other, own) - fall * larger(size)
            rows.append(
                {"part": "curve", "photos": size, "stated": wrong, **_observed(found.values[:, place] <= limit)}
            )
    return rows


def _base(values: Float[np.ndarray, "n s"], sizes: Sequence[int], fall: float, wrong: float) -> float | None:
    """The threshold for ``VERIFIED`` photos that keeps to a bound in all sizes; None for too few strangers."""
    limits = [
        None if limit is None else limit + fall * larger(size)
        for column, size in zip(values.T, sizes)
        for limit in [risk_control.threshold_for(column, rate=wrong / 1000, confidence=CONFIDENCE)]
    ]
    known = [limit for limit in limits if limit is not None]
    return min(known) if len(known) == len(limits) else None


def _observed(passed: Bool[np.ndarray, " n"]) -> dict[str, Any]:
    accepted, count = int(passed.sum()), len(passed)
    bounds = (
        bound(accepted, count, confidence=0.975) for bound in (risk_control.lower_bound, risk_control.upper_bound)
    )
    low, high = (round(1000 * value, 3) for value in bounds)
    observed = round(1000 * accepted / count, 3)
    return {"strangers": count, "accepted": accepted, "observed": observed, "low": low, "high": high}


def independence(found: Scores) -> dict[str, Any]:
    """How many independent strangers these are worth, because those of one photo and of one site may be alike.

    The share of strangers below their 5 % quantile is compared between groups: the intraclass correlation r of groups
    of m strangers on average (weighted by size) makes the variance 1 + (m - 1) r times that of independent ones.
    """
    values = found.values[:, -1]
    low = values <= np.quantile(values, 0.05)
    counted: dict[str, Any] = {"part": "independence", "strangers": len(low)}
    effective = float(len(low))
    for name, keys in (
        ("photos", [str(one.photo) for one in found.strangers]),
        ("sites", [one.site for one in found.strangers]),
    ):
        sizes, correlation = _correlation(low, keys)
        inflation = max(1.0, 1 + (np.sum(sizes**2) / len(low) - 1) * correlation)
        effective = min(effective, len(low) / inflation)
        counted |= {name: len(sizes), f"correlation in {name}": round(correlation, 4)}
    return counted | {"effective": int(effective)}


def _correlation(low: Bool[np.ndarray, " n"], keys: Sequence[str]) -> tuple[Float[np.ndarray, " g"], float]:
    """The sizes of the groups, and the intraclass correlation by analysis of variance."""
    _, group = np.unique(keys, return_inverse=True)
    sizes = np.bincount(group).astype(float)
    shares = np.bincount(group, weights=low) / sizes
    groups, count = len(sizes), len(low)
    between = np.sum(sizes * (shares - low.mean()) ** 2) / (groups - 1)
    within = np.sum(sizes * shares * (1 - shares)) / max(count - groups, 1)
    typical = (count - np.sum(sizes**2) / count) / (groups - 1)
    return sizes, float((between - within) / (between + (typical - 1) * within))


def _of_sizes(name: str, found: Scores) -> list[dict[str, Any]]:
    """The surest strangers in each size of index."""
    rows = []
    for place, size in enumerate(found.sizes):
        values = found.values[:, place]
        order = np.argsort(values)[:5]
        rows.append(
            {
                "part": "strangers",
                "features": name,
                "photos": size,
                "strangers": len(values),
                "features_found": round(float(found.features.mean())),
                "quantiles": {f"{level:g}": round(float(np.quantile(values, level)), 2) for level in LEVELS},
                "surest": [
                    [round(float(values[i]), 2), _short(found.strangers[i].photo), _short(Path(found.surest[i, place]))]
                    for i in order
                ],
            }
        )
    return rows


def _short(photo: Path) -> str:
    return f"{photo.parent.name}/{photo.name}"


def _name(kind: Kind) -> str:
    return f"{kind.scorer}, {kind.dimension} dimensions, {kind.most} features"


def plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Observed against stated wrong acceptances in 1000 queries, one panel for each size of index, on log scales."""
    panels = []
    for size in SIZES:
        shown = [row for row in rows if row["part"] == "curve" and row["photos"] == size]
        lines = {
            "stated bound": [(wrong, wrong) for wrong in STATED],
            "observed": [(row["stated"], max(row["observed"], _LEAST)) for row in shown],
            "its 95 % interval": [
                (row["stated"], max(row[side], _LEAST))
                for side, order in (("low", 1), ("high", -1))
                for row in shown[::order]
            ],
        }
        panels.append(
            plots.Panel(
                f"{size} photos",
                "stated, wrong in 1000",
                "observed, wrong in 1000",
                STATED,
                (_LEAST, 1, 10, 100, 200),
                lines,
                marks=True,
                log=True,
            )
        )
    plots.write(path, panels, title="Strangers that the calibration did not see")


if __name__ == "__main__":
    start_jax()
    run(main, Options, __doc__)
