"""Compiles one program for one target, or runs it on the chip of this machine; a process of its own for each.

``benchmarks.accelerators`` starts it and reads the row that it prints.
"""

import dataclasses
import json
import resource
import time
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import jax
import tyro
from tyro.conf import OmitSubcommandPrefixes

from benchmarks.accelerators_costs import operations, stages, touched_bytes
from benchmarks.accelerators_hlo import Program as Text
from benchmarks.accelerators_products import bound
from benchmarks.accelerators_programs import Case, program
from benchmarks.accelerators_targets import TARGETS, Name, absent_devices
from benchmarks.timing import seconds_of, spread

Result = TypeVar("Result")

_COSTLIEST = 10
_RUNS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Compiles or measures one program.

    Attributes:
        case: which program.
        target: for which chip.
        measure: run it on the devices that are here, instead of compiling for devices that are not.
    """

    case: Annotated[Case, OmitSubcommandPrefixes]
    target: Name
    measure: bool = False


def compiled_row(case: Case, name: Name) -> dict[str, Any]:
    """What the compiler of a target says about a program, and what follows from it."""
    target = TARGETS[name]
    made = program(case, absent_devices(name))
    traced, trace_s, _ = _timed(lambda: made.function.trace(*made.abstract()))
    limits = bound(traced.jaxpr, target)
    lowered, lower_s, _ = _timed(traced.lower)
    compiled, compile_s, processor_s = _timed(lowered.compile)
    text = Text(compiled.as_text())
    kernels = [run for run in text.runs if run.instruction.is_kernel]
    touched = touched_bytes(text)
    memory = compiled.memory_analysis()
    row = {
        "unit": made.unit,
        "devices": len(made.devices),
        "trace_and_lower_s": trace_s + lower_s,
        "compile_s": compile_s,
        "compile_processor_s": processor_s,
        "instructions": text.size,
        "kernels": len(kernels),
        "launches": sum(run.times for run in kernels),
        "collectives": sum(run.instruction.is_collective for run in text.runs),
        "loops_of_unknown_length": text.unknown_loops,
        "gflop": limits.flop / made.batch / 1e9,
        "touched_megabytes": touched / made.batch / 1e6,
        "temporary_megabytes": memory.temp_size_in_bytes / 1e6,
        "arithmetic_bound_per_s": _rate(made.batch, limits.arithmetic_s),
        "bandwidth_bound_per_s": _rate(made.batch, limits.bandwidth_s),
        "touched_bound_per_s": _rate(made.batch, touched / target.bandwidth),
    }
    found = operations(text)
    if target.clock is not None:
        seconds = text.cycles / target.clock
        row |= {
            "estimated_cycles": text.cycles,
            "kernels_without_estimate": sum(not run.instruction.cycles for run in kernels),
            "model_per_s": _rate(made.batch, seconds),
            "model_of_arithmetic": limits.arithmetic_s / seconds,
            "model_of_bandwidth": limits.bandwidth_s / seconds,
        }
    total = sum(operation.cost for operation in found) or 1.0
    row["cost"] = "cycles" if text.cycles else "bytes"
    row["costliest"] = [
        {"what": each.what, "stage": each.stage, "count": each.count, "share": each.cost / total}
        for each in found[:_COSTLIEST]
    ]
    row["stages"] = stages(found)
    return row


def measured_row(case: Case, name: Name) -> dict[str, Any]:
    """How fast the devices of this machine run the program."""
    made = program(case, jax.local_devices())
    arguments = made.concrete()

    def run(_: None) -> None:
        jax.block_until_ready(made.function(*arguments))

    run(None)
    rate = spread([made.batch / seconds_of(run, None) for _ in range(_RUNS)])
    best = _rate(made.batch, bound(made.function.trace(*arguments).jaxpr, TARGETS[name]).seconds)
    return {
        "measured_per_s": rate.median,
        "measured_per_s_quartiles": rate[1:],
        "measured_of_roofline": rate.median / best if best else None,
    }


def _timed(call: Callable[[], Result]) -> tuple[Result, float, float]:
    """A result, and the seconds that it took: by the clock, and of all processors."""
    begin, used = time.perf_counter(), _processor_seconds()
    result = call()
    return result, time.perf_counter() - begin, _processor_seconds() - used


def _processor_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def _rate(count: int, seconds: float) -> float | None:
    return count / seconds if seconds else None


def main(options: Options) -> None:
    """Prints the row."""
    row = (measured_row if options.measure else compiled_row)(options.case, options.target)
    print(json.dumps(row))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
