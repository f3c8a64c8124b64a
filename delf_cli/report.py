"""What a subcommand says, and the exit code that follows from it.

Results go to stdout: sentences for people, or with ``--json`` one JSON object a line and nothing else. Failed inputs go
to stderr, or with ``--json`` to stdout as ``{"image": ..., "error": ...}``. Progress is drawn on stderr when it is a
terminal.
"""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

DONE, SOME_FAILED, NOTHING_DONE, INTERRUPTED = 0, 1, 2, 130


@runtime_checkable
class Advance(Protocol):
    """Moves a progress bar to ``done`` of ``total`` (None: not known yet)."""

    def __call__(self, done: int, total: int | None = None) -> None: ...


def one_line(text: str) -> str:
    r"""The text with line breaks, control characters and undecodable bytes shown as escapes.

    >>> one_line("two\nlines")
    'two\\nlines'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def plain(value: Any) -> Any:
    """The value as JSON can hold it: arrays become lists, numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Report:
    """Collects what became of the inputs while it prints.

    Attributes:
        json: print JSON lines instead of sentences.
        succeeded: inputs that were dealt with, however the answer turned out.
        failed: inputs that could not be dealt with.
        watched: whether someone sees the progress.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.succeeded = 0
        self.failed = 0
        self.watched = sys.stderr.isatty()

    @property
    def exit_code(self) -> int:
        """0 done, 1 some inputs failed, 2 all of them did."""
        if not self.failed:
            return DONE
        return SOME_FAILED if self.succeeded else NOTHING_DONE

    def result(self, record: Mapping[str, Any], text: str) -> None:
        """Prints an answer: the record with ``--json``, the text otherwise. Text may have several lines."""
        if self.json:
            print(json.dumps(plain(record), allow_nan=False), file=sys.stdout, flush=True)
        else:
            print("\n".join(map(one_line, text.split("\n"))), file=sys.stdout, flush=True)

    def failure(self, kind: Literal["image", "query", "weights"], name: str, reason: str) -> None:
        """Counts and prints an input that failed; ``reason`` says what is wrong and how to mend it."""
        self.failed += 1
        if self.json:
            self.result({kind: name, "error": reason}, "")
        else:
            print(one_line(f"{name}: {reason}"), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Prints something good to know, for people only, on stderr."""
        if not self.json:
            print(one_line(text), file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def progress(self, description: str, unit: str = "photos") -> Iterator[Advance]:
        """A progress bar with rate and time left, drawn only where someone watches."""
        if not self.watched:
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
