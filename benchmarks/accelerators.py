"""What compilers say about our programs on TPU v5e, TPU v6e and H200, on a machine that has none of them.

    pip install ".[aot]"
    python -m benchmarks.accelerators

XLA compiles for a chip that is not there (extra [aot]). Every program is compiled in a process of its own, and its row
says how long that took, what is in the compiled program, and how fast it could be. Each figure is one of three kinds:

    measured    seconds of compiling; and of running, where this machine has the chip
    arithmetic  counted in the program, or calculated from such counts and the chip's data sheet
    model       the TPU compiler's estimate of cycles (for H200 there is none); nobody ran the program
"""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from tyro.conf import arg

from benchmarks import results_file
from benchmarks.accelerators_programs import SCALES, Case, Kind
from benchmarks.accelerators_targets import ENVIRONMENT, TARGETS, Name, require_compiler
from benchmarks.errors import Unavailable
from delf_jax.settings import Precision

Rows = list[dict[str, Any]]

FIGURES = {
    "measured": ("trace_and_lower_s", "compile_s", "compile_processor_s", "measured_per_s", "measured_of_roofline"),
    "arithmetic": (
        *("instructions", "kernels", "launches", "collectives", "loops_of_unknown_length", "kernels_without_estimate"),
        *("gflop", "touched_megabytes", "temporary_megabytes"),
        *("arithmetic_bound_per_s", "bandwidth_bound_per_s", "touched_bound_per_s"),
    ),
    "model": ("estimated_cycles", "model_per_s", "model_of_arithmetic", "model_of_bandwidth"),
}

_ROOT = Path(__file__).resolve().parent.parent
_RESULTS = _ROOT / "benchmarks" / "results" / "accelerators.json"
_LIMIT_SECONDS = 1800.0
_SIZES = ((480, 640), (768, 1024))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Compiles the public programs for accelerators.

    Attributes:
        target: for which chips.
        program: which programs: extraction, dense maps, RANSAC, exact search, maps of w*.
        quick: only the smallest case of each program.
        minutes: end then; rows that are left say so.
        out: the file of results.
    """

    target: tuple[Name, ...] = tuple(TARGETS)
    program: tuple[Kind, ...] = ("extract", "dense", "ransac", "search", "maps")
    quick: bool = False
    minutes: float | None = None
    out: Annotated[Path, arg(metavar="FILE")] = _RESULTS


def main(options: Options) -> Rows:
    """Compiles the chosen programs, prints their rows as they come, and writes them."""
    # The processes that run a program need the accelerator for themselves.
    jax.config.update("jax_platforms", "cpu")
    end = time.monotonic() + 60 * options.minutes if options.minutes is not None else float("inf")
    kind = device_kind()
    rows: Rows = []
    described = {
        "commit": _commit(),
        "accelerator": kind,
        "figures": FIGURES,
        "chips": {name: dataclasses.asdict(TARGETS[name]) for name in options.target},
    }
    for case, name in itertools.product(cases(quick=options.quick), options.target):
        if case.program in options.program:
            rows.append(row_of(case, name, kind=kind, end=end))
            print(table(rows[-1:]), flush=True)
            results_file.write(options.out, "accelerators", rows, described)
    return rows


def cases(*, quick: bool) -> list[Case]:
    """What is compiled, the most telling first."""
    first = [Case("extract"), Case("dense", layer="conv5"), Case("ransac"), Case("search"), Case("maps", layer="conv5")]
    if quick:
        return first
    verification = [Case("ransac", model=model) for model in ("similarity", "homography", "fundamental")]

    def extraction(precision: Precision, batch: int) -> list[Case]:
        return [
            Case("extract", size=size, scales=scales, precision=precision, batch=batch)
            for size, scales in itertools.product(reversed(_SIZES), reversed(SCALES))
        ]

    large = [*extraction("bfloat16", 64), *extraction("float32", 8), *extraction("float32", 64)]
    return list(dict.fromkeys([*first, *extraction("bfloat16", 8), *verification, *large]))


def row_of(case: Case, name: Name, *, kind: str, end: float = float("inf")) -> dict[str, Any]:
    """The row of one program: compiled for a target, and run if this machine has that chip.

    Args:
        case: which program.
        name: the target.
        kind: what JAX calls the device of this machine.
        end: by ``time.monotonic()``; nothing begins later.
    """
    row: dict[str, Any] = {"target": name, **case.described()}
    if time.monotonic() > end:
        return row | {"skipped": "not run: no time was left"}
    try:
        require_compiler(name)
        row |= _of_process(case, name, ["--no-measure"], ENVIRONMENT, end)
    except Unavailable as error:
        row["skipped"] = f"not compiled: {error}"
    if not any(known in kind for known in TARGETS[name].device_kinds):
        return row | {"not_measured": f"this machine has no {name}"}
    try:
        return row | _of_process(case, name, ["--measure"], {}, end)
    except Unavailable as error:
        return row | {"not_measured": str(error)}


def device_kind() -> str:
    """What JAX calls the device of this machine, asked in a process that then leaves it to others."""
    source = "import jax; print(jax.devices()[0].device_kind)"
    found = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    return found.stdout.strip() or "cpu"


def _of_process(
    case: Case, name: Name, options: Sequence[str], variables: dict[str, str], end: float
) -> dict[str, Any]:
    arguments = ["--target", name, *options]
    for field, value in dataclasses.asdict(case).items():
        arguments += [f"--case.{field}", *map(str, value if isinstance(value, tuple) else (value,))]
    # A program from the cache would not be compiled.
    full = {"JAX_ENABLE_COMPILATION_CACHE": "false", "JAX_DISABLE_MOST_OPTIMIZATIONS": "false"}
    limit = min(_LIMIT_SECONDS, max(end - time.monotonic(), 1.0))
    try:
        finished = subprocess.run(
            [sys.executable, "-m", "benchmarks.accelerators_compile", *arguments],
            cwd=_ROOT,
            env=os.environ | full | variables,
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        short = limit < _LIMIT_SECONDS
        raise Unavailable("no time was left" if short else f"it took longer than {limit:.0f} s") from None
    if finished.returncode < 0:
        raise Unavailable(f"the compiler ended by {signal.Signals(-finished.returncode).name}")
    if finished.returncode:
        raise Unavailable((finished.stderr.strip().splitlines() or ["no message"])[-1][:300])
    row: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return row


def _commit() -> str | None:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=_ROOT, capture_output=True, text=True)
    return found.stdout.strip() or None


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text, each with its costliest operations."""
    lines = []
    for row in rows:
        cells = [f"{row['target']:5}{row['program']:8}"]
        cells += [f"{row[name]}" for name in ("size", "layer", "precision", "model") if name in row]
        cells += [f"{row['scales']} scale{'s' if row['scales'] > 1 else ''}"] if "scales" in row else []
        cells += [f"batch {row['batch']}"]
        if "skipped" in row:
            cells.append(row["skipped"])
        lines.append("  ".join(cells))
        shown = [form.format(row[name]) for name, form in _CELLS.items() if row.get(name) is not None]
        shown += [row["not_measured"]] if "not_measured" in row and "skipped" not in row else []
        lines += [f"      {'; '.join(shown[i : i + 5])}" for i in range(0, len(shown), 5)]
        for operation in row.get("costliest", []):
            lines.append("      {share:6.1%} {count:5} x {what:38} {stage}".format(**operation))
    return "\n".join(lines)


_CELLS = {
    "compile_s": "{:.1f} s to compile",
    "compile_processor_s": "{:.1f} s of processors",
    "instructions": "{} instructions",
    "launches": "{} kernels a run",
    "collectives": "{} collectives",
    "gflop": "{:.2f} GFLOP each",
    "touched_megabytes": "{:.1f} MB touched each",
    "temporary_megabytes": "{:.0f} MB temporary",
    "arithmetic_bound_per_s": "arithmetic at most {:.0f} a second",
    "bandwidth_bound_per_s": "least traffic at most {:.0f}",
    "touched_bound_per_s": "traffic as compiled at most {:.0f}",
    "model_per_s": "model: {:.0f} a second",
    "model_of_arithmetic": "{:.0%} of the arithmetic",
    "model_of_bandwidth": "{:.0%} of the bandwidth",
    "kernels_without_estimate": "{} kernels without an estimate",
    "loops_of_unknown_length": "{} loops of unknown length",
    "measured_per_s": "measured: {:.0f} a second",
    "measured_of_roofline": "{:.0%} of the roofline",
}


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
