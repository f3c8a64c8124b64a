"""Measures one extraction in a process of its own: time to compile, memory, and scaling over devices.

    python -m benchmarks.device_probe --devices 1 --size 480 640 --scales 7 --batch 1

Photos: none; the pixels are random.

It runs in a process of its own because the number of simulated devices is fixed when JAX starts, and because the peak
memory must be that of one program. It prints one JSON object.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import delf_jax
from benchmarks.errors import Unavailable
from benchmarks.growth_probe import peak
from benchmarks.throughput_cases import MAX_FEATURES, PYRAMIDS
from benchmarks.timing import seconds_of, spread


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Compiles and runs one extraction.

    Attributes:
        model: name or folder of the model.
        devices: number of devices.
        size: height and width in pixels.
        scales: number of scales.
        batch: photos at once; a multiple of the devices.
        precision: float32 or bfloat16.
        runs: number of runs; 0 compiles only.
    """

    model: str = "delf-r50"
    devices: int = 1
    size: tuple[int, int] = (480, 640)
    scales: int = 7
    batch: int = 1
    precision: str = "float32"
    runs: int = 3


def probe(options: Options) -> dict[str, Any]:
    """Runs the measurement in this process."""
    devices = jax.local_devices()
    if len(devices) < options.devices:
        return {"devices": options.devices, "skipped": f"this machine has {len(devices)}"}
    extractor = delf_jax.load(
        options.model,
        scales=PYRAMIDS[options.scales],
        max_features=MAX_FEATURES,
        precision=options.precision,
        batch_size=options.batch,
        devices=devices[: options.devices],
    )
    photos = np.random.default_rng(0).integers(0, 256, (options.batch, *options.size, 3), np.uint8)
    sizes = np.array([options.size] * options.batch, np.int32)
    program = extractor.compiled(extractor.apply)
    begin = time.perf_counter()
    lowered = program.lower(extractor.params, photos, sizes)
    traced = time.perf_counter()
    compiled = lowered.compile()
    result: dict[str, Any] = {
        "devices": options.devices,
        "platform": devices[0].platform,
        "trace_s": traced - begin,
        "compile_s": time.perf_counter() - traced,
    }
    if options.runs:

        def run(_: None) -> object:
            return jax.device_get(compiled(extractor.params, photos, sizes))

        run(None)
        rate = spread([options.batch / seconds_of(run, None) for _ in range(options.runs)])
        result |= {"photos_per_s": rate.median, "photos_per_s_quartiles": rate[1:]}
    result["process_megabytes"] = peak()
    if statistics := devices[0].memory_stats():
        result["device_megabytes"] = statistics["peak_bytes_in_use"] / 1e6
    return result


def rows(*, model: str, full: bool) -> list[dict[str, Any]]:
    """The rows of ``benchmarks.throughput`` that need processes of their own: compile time, memory, scaling."""
    found = []
    with tempfile.TemporaryDirectory() as cache:
        pyramids = [((480, 640), 7), ((768, 1024), 7)] if full else []
        for size, scales in [((480, 640), 1), *pyramids]:
            for state in ("cold", "cached"):
                options = Options(model=model, size=size, scales=scales, runs=int(state == "cached"))
                row = _of_process(options, cache, simulated=False)
                kept = {name: row[name] for name in row if not name.startswith("photos_per_s") and name != "devices"}
                found.append({"part": "compile", "who": state} | _described(options) | kept)
        on_cpu = found[0]["platform"] == "cpu"
        for devices in (1, 2, 4, 8):
            options = Options(model=model, devices=devices, size=(240, 320), scales=1, batch=8, runs=5)
            row = _of_process(options, cache, simulated=on_cpu)
            kept = {name: row[name] for name in row if name.startswith("photos_per_s") or name == "skipped"}
            if "photos_per_s" in kept:
                kept["per_device"] = row["photos_per_s"] / devices
            who = f"{devices} {'simulated ' if on_cpu else ''}device{'s' if devices > 1 else ''}"
            found.append({"part": "scaling", "who": who} | _described(options) | kept)
    return found


def _described(options: Options) -> dict[str, Any]:
    size = f"{options.size[0]}x{options.size[1]}"
    return {"size": size, "scales": options.scales, "batch": options.batch, "precision": options.precision}


def _of_process(options: Options, cache: str, *, simulated: bool) -> dict[str, Any]:
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        # Two processes share an accelerator only while none takes all of its memory.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    if simulated:
        flags = os.environ.get("XLA_FLAGS", "")
        environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={options.devices}".strip()
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.device_probe", *_arguments(options)],
        cwd=Path(__file__).resolve().parent.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    if finished.returncode:
        raise Unavailable(f"{options.devices} devices: {finished.stderr.strip().splitlines()[-1]}")
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def _arguments(options: Options) -> Sequence[str]:
    arguments = []
    for name, value in dataclasses.asdict(options).items():
        arguments += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return arguments


if __name__ == "__main__":
    print(json.dumps(probe(tyro.cli(Options, description=__doc__))))
