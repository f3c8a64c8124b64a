"""Entry point of `delf-jax`: finds the subcommand, runs it, and turns every outcome into an exit code.

0 done, 1 finished but some inputs failed, 2 nothing could be done, 130 interrupted. Errors that a user can mend are one
line on stderr; only a mistake of the program itself shows a traceback.
"""

import contextlib
import errno
import importlib
import io
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NoReturn, Protocol, Union, runtime_checkable

from delf_cli import environment, logs
from delf_cli.interrupts import interruptible
from delf_cli.report import INTERRUPTED, NOTHING_DONE, Report, one_line
from delf_jax.errors import DelfError

_DESCRIPTION = "Attentive deep local features in JAX: extract, index, search, match, and explain."

_COMMANDS: dict[str, str | dict[str, str]] = {
    "demo": "delf_cli.demo.story:Demo",
    "extract": "delf_cli.extract:Extract",
    "codebook": "delf_cli.codebook:Codebook",
    "index": "delf_cli.index:Index",
    "search": "delf_cli.search:Search",
    "match": "delf_cli.match:Match",
    "serve": "delf_cli.serve:Serve",
    "prepare": "delf_cli.prepare:Prepare",
    "pca": "delf_cli.pca:Pca",
    "train": "delf_cli.train:Train",
    "fit-localizer": "delf_cli.fit_localizer:FitLocalizer",
    "localize": "delf_cli.localize:Localize",
    "explain": "delf_cli.explain:Explain",
    "evaluate": {
        "localization": "delf_cli.evaluate_localization:EvaluateLocalization",
        "retrieval": "delf_cli.evaluate_retrieval:EvaluateRetrieval",
    },
    "export": "delf_cli.export:Export",
    "check": "delf_cli.check:Check",
    "weights": "delf_cli.weights:Weights",
}

_GROUPS = {
    "evaluate": "Measure the answers on photos whose truth is known.\n\nWith --json, one JSON line a result.\n\n"
    "Example:\n  delf-jax evaluate retrieval roxford5k/ --dataset roxford5k",
}


@runtime_checkable
class Subcommand(Protocol):
    """A dataclass whose fields are the options; its docstring and ``example`` are the help."""

    example: ClassVar[str]
    json: bool

    def run(self, report: Report) -> None:
        """Does the work; raises what stops it, reports what does not."""


def process() -> NoReturn:
    """Runs `delf-jax` with the process's own arguments and ends the process."""
    try:
        code = main()
    except KeyboardInterrupt:  # asked again while the first time was being answered
        code = INTERRUPTED
    if code == INTERRUPTED:
        # Threads still decode and devices still compute what nobody waits for any more. To wait for them takes time,
        # and to take the interpreter apart under them can crash it.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def main(args: Sequence[str] | None = None) -> int:
    """Runs `delf-jax` with these arguments (the process's own when None) and returns the exit code."""
    environment.quiet()
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
        return end.code if isinstance(end.code, int) else (0 if end.code is None else 2)
    except KeyboardInterrupt:
        return _stop(
            "interrupted; extract, train and localize go on from what is finished when they are run again", INTERRUPTED
        )
    except BrokenPipeError:
        # The reader has gone; the interpreter would complain once more when it flushes at exit.
        _detach_stdout()
        return INTERRUPTED
    except DelfError as error:
        return _stop(str(error))
    except OSError as error:
        return _stop(_explain(error))
    except MemoryError:
        return _stop("out of memory: use a smaller --max-side, --max-features or --batch-size")
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return _stop("out of device memory: use a smaller --batch-size, --max-side or fewer --scales")
        traceback.print_exc()
        return _stop(f"this is a mistake in delf-jax, please report it: {type(error).__name__}: {error}")


def _parse(args: Sequence[str]) -> Subcommand:
    """The subcommand with its options; SystemExit after help or, with one line on stderr, after wrong usage."""
    import tyro  # here, where an interruption is already seen to

    union: Any = Union[tuple(_described(name, place, args) for name, place in _COMMANDS.items())]  # noqa: UP007
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
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
            raise SystemExit(_stop(_sentence(complaint.getvalue()))) from None
        raise


def _described(name: str, place: str | dict[str, str], args: Sequence[str]) -> Any:
    """The type tyro builds a subcommand from. The list of subcommands shows summaries, a subcommand's own help all."""
    import tyro

    asked = args[:1] == [name]
    if isinstance(place, dict):
        kinds = tuple(_described(kind, own, args[1:] if asked else ()) for kind, own in place.items())
        command: Any = Union[kinds]  # noqa: UP007
        description = _GROUPS[name]
    else:
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        description = (command.__doc__ or "").split("Attributes:")[0].strip()
        paragraphs = [textwrap.fill(" ".join(text.split()), 80) for text in re.split(r"\n\s*\n", description)]
        description = "\n\n".join([*paragraphs, f"Example:\n  {command.example}", logs.HELP])
    if not asked:
        description = description.split("\n\n")[0].replace("\n", " ")
    return Annotated[command, tyro.conf.subcommand(name=name, description=description)]


def _sentence(box: str) -> str:
    """tyro's framed complaint as one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│ \t") for line in text.splitlines() if not line.startswith(("╭", "╰"))]
    sections = re.split(r"\s*─{3,}\s*", " ".join(filter(None, lines)))
    return "; ".join(section.rstrip(".; ") for section in sections if section)


def _explain(error: OSError) -> str:
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}the disk is full; make room or choose another --out, then run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where}{error.strerror}; allow access to it or choose another place"
    return f"{where}{error.strerror or error}"


def _stop(message: str, code: int = NOTHING_DONE) -> int:
    print(f"delf-jax: {one_line(message)}", file=sys.stderr, flush=True)
    return code


def _detach_stdout() -> None:
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


if __name__ == "__main__":
    process()
