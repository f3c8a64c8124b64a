"""The entry point of `delf-jax`: finds the subcommand, runs it, and returns the exit code.

An error that the user can correct is one line on stderr. Only a mistake of the program itself shows a traceback.
"""

import contextlib
import importlib
import io
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NoReturn, Protocol, Union, runtime_checkable

from delf_cli import environment, logs, streams
from delf_cli.exit_codes import DONE, INTERRUPTED, NOTHING_DONE, failure_of
from delf_cli.interrupts import interruptible
from delf_cli.report import Report, one_line

_DESCRIPTION = "Local image features in JAX: extract them, search photos, match photos, and locate objects."

_COMMANDS: dict[str, str | dict[str, str]] = {
    "demo": "delf_cli.demo.command:Demo",
    "extract": "delf_cli.extract:Extract",
    "compile": "delf_cli.compile:Compile",
    "codebook": "delf_cli.codebook:Codebook",
    "index": "delf_cli.index:Index",
    "search": "delf_cli.search:Search",
    "group": "delf_cli.group:Group",
    "calibrate": "delf_cli.calibrate:Calibrate",
    "match": "delf_cli.match:Match",
    "serve": "delf_cli.serve:Serve",
    "prepare": "delf_cli.prepare:Prepare",
    "pca": "delf_cli.pca:Pca",
    "descriptors": "delf_cli.descriptors:Descriptors",
    "train": "delf_cli.train:Train",
    "fit-localizer": "delf_cli.fit_localizer:FitLocalizer",
    "localize": "delf_cli.localize:Localize",
    "explain": "delf_cli.explain:Explain",
    "evaluate": {
        "groups": "delf_cli.evaluate_groups:EvaluateGroups",
        "localization": "delf_cli.evaluate_localization:EvaluateLocalization",
        "retrieval": "delf_cli.evaluate_retrieval:EvaluateRetrieval",
    },
    "export": "delf_cli.export:Export",
    "check": "delf_cli.check:Check",
    "weights": "delf_cli.weights:Weights",
}

_GROUPS = {
    "evaluate": "Measure accuracy on photos whose right answers are known.\n\n"
    "With --json, each result is one JSON line.\n\n"
    "Example:\n  delf-jax evaluate retrieval roxford5k/ --dataset roxford5k",
}


@runtime_checkable
class Subcommand(Protocol):
    """A dataclass whose fields are the options. Its docstring and ``example`` are the help text."""

    example: ClassVar[str]
    json: bool

    def run(self, report: Report) -> None:
        """Does the work. Raises the errors that stop it, and reports the inputs that failed."""


def process() -> NoReturn:
    """Runs `delf-jax` with the arguments of this process and ends the process."""
    streams.open_all()
    try:
        code = main()
    except KeyboardInterrupt:  # a second Ctrl-C, while the first one was being handled
        code = INTERRUPTED
    if code == INTERRUPTED:
        # Threads may still decode photos and devices may still compute. Waiting for them takes time, and a normal exit
        # of the interpreter while they run can crash it.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)
    try:
        sys.stdout.flush()
    except OSError:
        streams.detach_stdout()
    sys.exit(code)


def main(args: Sequence[str] | None = None) -> int:
    """Runs `delf-jax` with these arguments (None: those of the process) and returns the exit code."""
    environment.quiet_libraries()
    args = sys.argv[1:] if args is None else list(args)
    try:
        with interruptible():
            level, args = logs.take_level(args)
            logs.start(level)
            command = _parse(args)
            report = Report(json=command.json)
            command.run(report)
            return report.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else (DONE if end.code is None else NOTHING_DONE)
    except BrokenPipeError:
        # The program that reads our output has ended. Python would complain again when it flushes stdout at exit.
        streams.detach_stdout()
        return INTERRUPTED
    except (KeyboardInterrupt, Exception) as error:
        failure = failure_of(error)
        if failure.is_bug:
            streams.say(traceback.format_exc().rstrip())
        return _stop(failure.message, failure.code)


def _parse(args: Sequence[str]) -> Subcommand:
    """The subcommand with its options. SystemExit after --help, and after wrong usage with one line on stderr."""
    import tyro  # only here: Ctrl-C is already handled while it loads

    union: Any = Union[tuple(_described(name, place, args) for name, place in _COMMANDS.items())]  # noqa: UP007
    message_box = io.StringIO()
    try:
        with contextlib.redirect_stderr(message_box):
            parsed: Subcommand = tyro.cli(
                union,
                prog="delf-jax",
                description=_DESCRIPTION,
                args=args,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
            )
            return parsed
    except SystemExit as end:
        if end.code:
            raise SystemExit(_stop(_sentence(message_box.getvalue()), NOTHING_DONE)) from None
        raise


def _described(name: str, place: str | dict[str, str], args: Sequence[str]) -> Any:
    """The type from which tyro builds a subcommand; if another one is called, only with the first line of its help."""
    import tyro

    is_called = args[:1] == [name]
    if isinstance(place, dict):
        kinds = tuple(_described(kind, own, args[1:] if is_called else ()) for kind, own in place.items())
        command: Any = Union[kinds]  # noqa: UP007
        description = _GROUPS[name]
    else:
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        description = (command.__doc__ or "").split("Attributes:")[0].strip()
        paragraphs = [textwrap.fill(" ".join(text.split()), 80) for text in re.split(r"\n\s*\n", description)]
        description = "\n\n".join([*paragraphs, f"Example:\n  {command.example}", logs.HELP])
    if not is_called:
        description = description.split("\n\n")[0].replace("\n", " ")
    return Annotated[command, tyro.conf.subcommand(name=name, description=description)]


def _sentence(box: str) -> str:
    """tyro's error message, which it prints in a box, as one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│ \t") for line in text.splitlines() if not line.startswith(("╭", "╰"))]
    sections = re.split(r"\s*─{3,}\s*", " ".join(filter(None, lines)))
    return "; ".join(section.rstrip(".; ") for section in sections if section)


def _stop(message: str, code: int) -> int:
    streams.say(f"delf-jax: {one_line(message)}")
    return code
