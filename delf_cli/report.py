"""What a subcommand prints.

Results go to stdout: sentences for people, or with ``--json`` one JSON object per line and nothing else. Failed inputs
go to stderr, or with ``--json`` to stdout as ``{"image": ..., "error": ...}``. Progress bars are drawn on stderr if it
is a terminal.
"""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from delf_cli import streams
from delf_cli.exit_codes import DONE, NOTHING_DONE, SOME_FAILED
from delf_jax.errors import reason_of
from delf_jax.files.file_names import is_refused


@runtime_checkable
class Advance(Protocol):
    """Moves a progress bar to ``done`` of ``total`` (None: not yet known)."""

    def __call__(self, done: int, total: int | None = None) -> None: ...


def one_line(text: str) -> str:
    r"""The text with line breaks, control characters and undecodable bytes shown as escapes.

    >>> one_line("two\nlines")
    'two\\nlines'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def jsonable(value: Any) -> Any:
    """The value in a form that JSON can hold: arrays become lists, infinite numbers and NaN become None."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(entry) for entry in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Report:
    """Prints results and counts the inputs that succeeded and failed.

    Attributes:
        json: print JSON lines instead of sentences.
        succeeded: number of inputs that got an answer. "No match" is an answer too.
        failed: number of inputs that could not be used.
        shows_progress: stderr is a terminal, so progress bars are drawn.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.succeeded = 0
        self.failed = 0
        self.shows_progress = sys.stderr.isatty()

    @property
    def exit_code(self) -> int:
        """0 if no input failed, 1 if some failed, 2 if all failed (see ``exit_codes``)."""
        if not self.failed:
            return DONE
        return SOME_FAILED if self.succeeded else NOTHING_DONE

    def result(self, record: Mapping[str, Any], lines: str | Sequence[str]) -> None:
        """Prints an answer: the record with ``--json``, otherwise one line or several."""
        if self.json:
            text = json.dumps(jsonable(record), allow_nan=False)
        else:
            # A line break in a name must not begin a line that looks like an answer.
            text = "\n".join(map(one_line, [lines] if isinstance(lines, str) else lines))
        print(text, file=sys.stdout, flush=True)

    def failure(self, kind: Literal["image", "query", "weights"], name: str, reason: str) -> None:
        """Counts and prints an input that failed. ``reason`` says what is wrong and what to do."""
        self.failed += 1
        if self.json:
            self.result({kind: name, "error": reason}, "")
        else:
            streams.say(one_line(f"{name}: {reason}"))

    @contextlib.contextmanager
    def fails_alone(self, kind: Literal["image", "query"], name: str) -> Iterator[None]:
        """If the block cannot write a file because of its name, this input fails, and the others do not."""
        try:
            yield
        except OSError as error:
            if not is_refused(error):
                raise
            self.failure(kind, name, f"no file here can have its name ({reason_of(error)}); rename it")

    def note(self, text: str) -> None:
        """Prints a message for people on stderr; nothing with ``--json``."""
        if not self.json:
            streams.say(one_line(text))

    @contextlib.contextmanager
    def progress(self, description: str, unit: str = "photos") -> Iterator[Advance]:
        """A progress bar with rate and time left, drawn only if stderr is a terminal."""
        if not self.shows_progress:
            yield lambda done, total=None: None
            return
        from rich import progress
        from rich.console import Console

        class Rate(progress.ProgressColumn):
            def render(self, task: progress.Task) -> str:
                return f"{task.speed:.1f} {unit}/s" if task.speed else ""

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            Rate(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(description, total=None)
            yield lambda done, total=None: bars.update(task, completed=done, total=total)
