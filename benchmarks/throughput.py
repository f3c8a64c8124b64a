"""Photos per second on this machine, compared with PyTorch, and what limits the speed.

    python -m benchmarks.throughput --json benchmarks/results/throughput.json --plot docs/images/throughput.svg

Photos: the packaged photos.

Backbone and whole extraction take turns with PyTorch (extra [peers]) on the same photos. It also measures the
milliseconds of each stage, the batch job from JPEG files to a store, time to compile, memory, and several devices.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from tyro.conf import arg

import delf_jax
from benchmarks import device_probe, plots, results_file, throughput_stages
from benchmarks.command_line import run
from benchmarks.errors import Unavailable
from benchmarks.throughput_cases import PYRAMIDS, Bench, Rows, batches, best_peers, cases, with_peak
from benchmarks.timing import seconds_of
from benchmarks.torch_network import torch_module
from delf_cli.demo import PHOTOS
from delf_cli.environment import keep_memory, start_jax
from delf_jax.photos.load import load_photo
from delf_jax.settings import ExtractionSettings, Precision

Part = Literal["cases", "stages", "job", "processes"]

_LIST = Path(__file__).parent / "lists" / "throughput_photos.txt"
_BATCHES = 2
_PRODUCTS = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures throughput.

    Attributes:
        json: also write the results to this file.
        plot: also draw the results to this SVG file.
        full: measure every size, pyramid, batch size and precision, and every mode of PyTorch. This takes hours on two
            cores.
        parts: measure only these parts.
        scales: measure only the cases with this number of scales.
        model: name or folder of the model.
        budget: approximate seconds for each case; at least three rounds are measured.
        rounds: number of turns of the stages and of the batch job.
    """

    json: Annotated[Path | None, arg(metavar="FILE")] = None
    plot: Annotated[Path | None, arg(metavar="FILE")] = None
    full: bool = False
    parts: tuple[Part, ...] = ("cases", "stages", "job", "processes")
    scales: tuple[int, ...] = tuple(PYRAMIDS)
    model: str = "delf-r50"
    budget: float = 7.0
    rounds: int = 2


def main(options: Options) -> Rows:
    """Measures the chosen parts, prints the table, and returns its rows."""
    photos = [PHOTOS / name for name in _LIST.read_text().split()]
    rows: Rows = []

    def show(measured: Rows) -> None:
        print(table(measured), flush=True)
        rows.extend(measured)

    # First of all: on an accelerator these processes find its memory free.
    if "processes" in options.parts:
        show(device_probe.rows(model=options.model, full=options.full))
    start_jax()
    accelerator = jax.default_backend() != "cpu"
    peaks, peak_rows = matrix_peaks()
    show(peak_rows)
    if "cases" in options.parts:
        pixels = [load_photo(photo, max_side=None).pixels for photo in photos]
        bench = Bench(options.model)
        for case in cases(full=options.full, accelerator=accelerator):
            if case.scales not in options.scales:
                continue
            measured = with_peak(bench.measure(case, batches(pixels, case, _BATCHES), budget=options.budget), peaks)
            show([*measured, *best_peers(measured)])
    if "stages" in options.parts:
        for scales in (1, 7) if options.full or accelerator else (4,):
            extractor = Bench(options.model).extractor(
                scales=scales, batch=8 if accelerator else 1, precision="bfloat16" if accelerator else "float32"
            )
            show(throughput_stages.stages(extractor, photos, (480, 640), rounds=options.rounds))
    if "job" in options.parts:
        settings = (
            ExtractionSettings() if options.full or accelerator else ExtractionSettings(scales=(1.0,), max_side=640)
        )
        extractor = delf_jax.load(options.model, settings=settings)
        some = photos if options.full or accelerator else photos[::2]
        show(throughput_stages.batch_job(extractor, some, rounds=options.rounds))
    if options.json is not None:
        described = {"full": options.full, "photos": len(photos), "budget": options.budget, "rounds": options.rounds}
        results_file.write(options.json, "throughput", rows, described)
    if options.plot is not None:
        draw(options.plot, rows)
    return rows


def matrix_peaks() -> tuple[dict[str, float], Rows]:
    """FLOP/s of a large matrix product by precision, the best of JAX and PyTorch, and the rows that say so."""
    side = 1536 if jax.default_backend() == "cpu" else 8192
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal((side, side), np.float32) for _ in range(2))
    peaks: dict[str, float] = {}
    rows: Rows = []
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision, library in itertools.product(precisions, ("JAX", "PyTorch")):
        row: dict[str, Any] = {
            "part": "matrix product",
            "size": f"{side}x{side}",
            "who": library,
            "precision": precision,
        }
        try:
            product = _jax_product(a, b, precision) if library == "JAX" else _torch_product(a, b, precision)
        except Unavailable as error:
            rows.append(row | {"skipped": str(error)})
            continue
        seconds = min(seconds_of(product, None) for _ in range(_PRODUCTS))
        row["gflop_per_s"] = 2e-9 * side**3 / seconds
        peaks[precision] = max(peaks.get(precision, 0.0), 1e9 * row["gflop_per_s"])
        rows.append(row)
    return peaks, rows


def _jax_product(a: np.ndarray, b: np.ndarray, precision: Precision) -> Any:
    x, y = (jnp.asarray(value, precision) for value in (a, b))
    multiply = jax.jit(lambda x, y: jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST))
    return lambda _: multiply(x, y).block_until_ready()


def _torch_product(a: np.ndarray, b: np.ndarray, precision: Precision) -> Any:
    torch = torch_module()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, y = (torch.from_numpy(value).to(device, getattr(torch, precision)) for value in (a, b))

    def multiply(_: None) -> None:
        x @ y
        if device == "cuda":
            torch.cuda.synchronize()

    return multiply


def draw(path: Path, rows: Rows) -> None:
    """Plots photos per second of whole extraction against the number of scales, with one panel per photo size."""
    panels = []
    measured = [row for row in rows if row["part"] == "extraction" and "photos_per_s" in row]
    for size in dict.fromkeys(row["size"] for row in measured):
        batch = min(row["batch"] for row in measured if row["size"] == size)
        shown = [row for row in measured if (row["size"], row["batch"]) == (size, batch)]
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in shown:
            lines.setdefault(row["who"], []).append((row["scales"], row["photos_per_s"]))
        top = max(row["photos_per_s"] for row in shown)
        ticks = [round(top * 1.05 * i / 4, 1) for i in range(5)]
        title = f"{size} pixels, batch {batch}"
        panels.append(plots.Panel(title, "scales", "photos a second", (1, 4, 7), ticks, lines, marks=True))
    if panels:
        plots.write(path, panels, title="Photos to local features")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text."""
    lines = []
    for row in rows:
        where = f"{row.get('size', ''):>9}"
        if "scales" in row:
            where += f" {row['scales']} scale{'s' if row['scales'] > 1 else ' '} batch {row['batch']:<2}"
        cells = [f"{row['part']:31}{where:29}{row['who']:30}"]
        if "skipped" in row:
            cells.append(f"skipped: {row['skipped']}")
        if "photos_per_s" in row:
            low, high = row["photos_per_s_quartiles"]
            cells.append(f"{row['photos_per_s']:8.2f} photos/s ({low:.2f} to {high:.2f})")
        if "ms" in row:
            cells.append(f"{row['ms']:9.2f} ms ({row['ms_quartiles'][0]:.2f} to {row['ms_quartiles'][1]:.2f})")
        for name, form in _CELLS.items():
            if name in row:
                cells.append(form.format(row[name]))
        lines.append("  ".join(cells))
    return "\n".join(lines)


_CELLS = {
    "gflop_per_s": "{:.1f} GFLOP/s",
    "of_peak": "{:.0%} of the matrix product",
    "gflop": "{:.1f} GFLOP a photo",
    "ours_is_faster": "ours {:.2f} times as fast",
    "percent_over_extraction": "{:.1f} % over extraction alone",
    "trace_s": "{:.1f} s to trace",
    "compile_s": "{:.1f} s to compile",
    "per_device": "{:.2f} a device",
    "program_megabytes": "{:.0f} MB",
    "process_megabytes": "{:.0f} MB process",
    "device_megabytes": "{:.0f} MB device",
}


if __name__ == "__main__":
    keep_memory()  # as the command does
    run(main, Options, __doc__)
