"""Timing for benchmarks: medians with interquartile ranges, and alternatives that are timed in turns."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

Case = TypeVar("Case")


class Spread(NamedTuple):
    """The middle of some measurements: median and the quartiles around it."""

    median: float
    lower: float
    upper: float


def spread(values: Sequence[float] | Float[np.ndarray, " n"]) -> Spread:
    """Median and quartiles.

    >>> spread([1.0, 2.0, 3.0, 4.0, 100.0])
    Spread(median=3.0, lower=2.0, upper=4.0)
    """
    lower, median, upper = (float(value) for value in np.quantile(np.asarray(values, np.float64), (0.25, 0.5, 0.75)))
    return Spread(median, lower, upper)


def seconds_of(call: Callable[[Case], object], case: Case) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    call(case)
    return time.perf_counter() - begin


def take_turns(
    alternatives: Mapping[str, Callable[[Case], object]], cases: Sequence[Case], *, rounds: int, warm: bool = False
) -> dict[str, Float[np.ndarray, " n"]]:
    """Seconds of every alternative for every case in every round, in the same order for all, so that they pair up.

    The alternatives follow each other on each case, and another one begins each time: what else the machine does meets
    all of them alike. One round before the first is not counted, unless all are ``warm``. Each call has to wait for
    its own results.
    """
    names = list(alternatives)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    turn = 0
    for number in range(rounds if warm else rounds + 1):
        for case in cases:
            for name in names[turn:] + names[:turn]:
                begin = time.perf_counter()
                alternatives[name](case)
                passed = time.perf_counter() - begin
                if warm or number:
                    seconds[name].append(passed)
            turn = (turn + 1) % len(names)
    return {name: np.array(values) for name, values in seconds.items()}
