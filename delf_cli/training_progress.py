"""The progress line of `delf-jax train`."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from delf_cli.report import Report

if TYPE_CHECKING:
    import delf_jax.training.loop

_SECONDS_BETWEEN_LINES = 30


@contextlib.contextmanager
def show_progress(report: Report) -> Iterator[Callable[["delf_jax.training.loop.Progress"], None]]:
    """Gives a function that shows progress: one updated line in a terminal, otherwise a new line every 30 seconds."""
    if report.shows_progress:
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), transient=True, refresh_per_second=4) as live:
            yield lambda progress: live.update(_line(progress))
        return
    last = time.monotonic()

    def write(progress: "delf_jax.training.loop.Progress") -> None:
        nonlocal last
        if progress.step == progress.steps or time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            report.note(_line(progress))

    yield write


def _line(progress: "delf_jax.training.loop.Progress") -> str:
    shown = ("loss", "attention_loss", "descriptor_loss", "accuracy")
    numbers = [f"{name.replace('_', ' ')} {progress.metrics[name]:.3f}" for name in shown if name in progress.metrics]
    minutes, seconds = divmod(round(progress.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    left = f"{hours}:{minutes:02}:{seconds:02}"
    rate = f"{progress.photos_per_second:.1f} photos/s"
    return f"step {progress.step} of {progress.steps}  {'  '.join(numbers)}  {rate}  {left} left"
