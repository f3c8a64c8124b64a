"""Calibrates the packaged head on strangers: when matches are accepted, and how often wrongly at most.

    python -m benchmarks.calibration --json benchmarks/results/calibration.json --plot docs/images/calibration.svg

Photos: ``landmarks`` in the data folder.

No query shows anything of the index that it is searched in (``benchmarks.strangers``). Queries of one photo,
one landmark or one region (all are searched in one index) go wrong together; how many independent ones they are worth
is measured. For larger indexes the threshold falls with their size, as if each photo were one more chance; that was not
measured. Stated bounds are tested: thresholds that two regions calibrate meet the strangers of the other two.

Extraction takes half an hour of one core, the search five minutes of two. A run goes on where the last one was stopped.
With --write the packaged head gets the calibration.
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
from benchmarks.stranger_scores import SIZE, OutOfTime, Scores, fingerprint, scores
from delf_cli.environment import start_jax
from delf_jax.errors import DelfError
from delf_jax.extraction.calibration import Calibration
from delf_jax.extraction.head import Head
from delf_jax.loading import model_paths
from delf_jax.settings import ExtractionSettings
from retrieval.calibration import FALL
from retrieval.verification import risk_control

# The least of 5, 10, 20 and 50 that these strangers prove: they are worth 195; 20 in 1000 takes 149, and 10 takes 299.
WRONG_PER_THOUSAND = 20.0
CONFIDENCE = 0.95
STATED = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
# What the plot shows for 0.
_LEAST = 0.1
LEVELS = (0.01, 0.02, 0.05)
# Numbers of features where the groups of ``by_features`` begin.
FEATURES = (1, 60, 104, 150)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Calibrates the packaged head.

    Attributes:
        data: folder of the photos with ground truth (default: $DELF_SHARED).
        cache: folder where features and scores are kept.
        json: also write the results to this file.
        plot: draw the stated against the observed rates into this SVG file.
        minutes: stop after this time; the next run goes on.
        write: put the calibration into the packaged head.
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
    try:
        found = scores(photos, head=head, cache=options.cache, deadline=deadline)
    except OutOfTime:
        print("out of time; the same command goes on", file=sys.stderr)
        sys.exit(3)
    made = calibration(found, head)
    known = [_surest(found), by_features(found), tail(found), independence(found)]
    rows = [*known, *curve(found), {"part": "calibration", **made.to_json()}]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if options.json is not None:
        settings = {"regions": strangers.REGIONS, "scales": ExtractionSettings.scales, "photos": SIZE}
        results_file.write(options.json, "calibration", rows, settings)
    if options.plot is not None:
        plot(options.plot, rows)
    if options.write:
        before = Head.open(head)
        notes = before.notes | {"threshold": {"command": "python -m benchmarks.calibration --write"}}
        dataclasses.replace(before, calibrations=(made,), log10_nfa_threshold=None, notes=notes).save(head)
    return rows


def calibration(found: Scores, head: Path) -> Calibration:
    """The threshold that keeps to the bound, by as many strangers as are independent."""
    independent = independence(found)["effective"]
    rate = WRONG_PER_THOUSAND / 1000
    threshold = risk_control.threshold_for(found.values, rate=rate, confidence=CONFIDENCE, independent=independent)
    if threshold is None:
        raise DelfError(f"{independent} independent strangers cannot prove {WRONG_PER_THOUSAND:g} wrong in 1000")
    return Calibration(
        wrong_per_thousand=WRONG_PER_THOUSAND,
        confidence=CONFIDENCE,
        strangers=independent,
        fingerprint=fingerprint(head),
        scorer=ExtractionSettings.scorer,
        detection=ExtractionSettings.detection,
        verified=SIZE,
        photos=SIZE,
        photos_tested=SIZE,
        features_tested=int(found.features.max()),
        fall=FALL,
        thresholds=(threshold,),
    )


def curve(found: Scores) -> list[dict[str, Any]]:
    """Bounds that half of the regions state, and what the strangers of the other half observe; both ways together."""
    rows = []
    first = np.isin(found.regions, strangers.REGIONS[::2])
    values = found.values
    halves = [(half, independence(found, half)["effective"]) for half in (first, ~first)]
    for wrong in STATED:
        own, other = (
            risk_control.threshold_for(values[half], rate=wrong / 1000, confidence=CONFIDENCE, independent=count)
            for half, count in halves
        )
        if own is not None and other is not None:
            passed = values <= np.where(first, other, own)
            rows.append({"part": "curve", "stated": wrong, "thresholds": [own, other], **_observed(passed)})
    return rows


def _observed(passed: Bool[np.ndarray, " n"]) -> dict[str, Any]:
    accepted, count = int(passed.sum()), len(passed)
    bounds = (
        bound(accepted, count, confidence=0.975) for bound in (risk_control.lower_bound, risk_control.upper_bound)
    )
    low, high = (round(1000 * value, 3) for value in bounds)
    observed = round(1000 * accepted / count, 3)
    return {"strangers": count, "accepted": accepted, "observed": observed, "low": low, "high": high}


def independence(found: Scores, part: Bool[np.ndarray, " n"] | None = None) -> dict[str, Any]:
    """How many independent strangers these (of a ``part``) are worth: those of one photo, site or region may be alike.

    The share of strangers below their 5 % quantile is compared between groups: the intraclass correlation r of groups
    of m strangers on average (weighted by size) makes the variance 1 + (m - 1) r times that of independent ones.
    """
    chosen = np.arange(len(found.values)) if part is None else np.flatnonzero(part)
    values = found.values[chosen]
    low = values <= np.quantile(values, 0.05)
    counted: dict[str, Any] = {"part": "independence", "strangers": len(low)}
    effective = float(len(low))
    for name, keys in (
        ("photos", [str(found.strangers[i].photo) for i in chosen]),
        ("sites", [found.strangers[i].site for i in chosen]),
        ("regions", found.regions[chosen].tolist()),
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


def _surest(found: Scores) -> dict[str, Any]:
    """The surest strangers."""
    values = found.values
    return {
        "part": "strangers",
        "photos": SIZE,
        "strangers": len(values),
        "features_found": round(float(found.features.mean())),
        "quantiles": {f"{level:g}": round(float(np.quantile(values, level)), 2) for level in LEVELS},
        "surest": [
            [round(float(values[i]), 2), _short(found.strangers[i].photo), _short(found.surest[i])]
            for i in np.argsort(values)[:8]
        ],
    }


def by_features(found: Scores) -> dict[str, Any]:
    """How many strangers with so many features come to -1, where there are still some to count."""
    group = np.searchsorted(FEATURES, found.features, side="right")
    low = found.values <= -1
    groups = [
        {"from": first, "strangers": int((group == i).sum()), "at -1": int(low[group == i].sum())}
        for i, first in enumerate(FEATURES, 1)
    ]
    return {"part": "features", "most": int(found.features.max()), "groups": groups}


def tail(found: Scores) -> dict[str, Any]:
    """How rare surer strangers are: about 10^(slope t) of them come to t (Hill's estimate below a start)."""
    starts = (0.0, -0.5, -1.0)
    means = [float(np.mean(start - found.values[found.values <= start])) for start in starts]
    slopes = {f"{start:g}": round(1 / (math.log(10) * mean), 2) for start, mean in zip(starts, means)}
    return {"part": "tail", "slope below": slopes}


def _short(photo: Path) -> str:
    return f"{photo.parent.name}/{photo.name}"


def plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Observed against stated wrong acceptances in 1000 queries, on logarithmic scales."""
    shown = [row for row in rows if row["part"] == "curve"]
    lines = {
        "stated bound": [(row["stated"], row["stated"]) for row in shown],
        "observed": [(row["stated"], max(row["observed"], _LEAST)) for row in shown],
        "its 95 % interval": [
            (row["stated"], max(row[side], _LEAST))
            for side, order in (("low", 1), ("high", -1))
            for row in shown[::order]
        ],
    }
    panel = plots.Panel(
        "Strangers that the calibration did not see",
        "stated, wrong in 1000",
        "observed, wrong in 1000",
        [row["stated"] for row in shown],
        (_LEAST, 1, 10, 100),
        lines,
        marks=True,
        log=True,
    )
    plots.write(path, [panel], title="Does the bound hold?")


if __name__ == "__main__":
    start_jax()
    run(main, Options, __doc__)
