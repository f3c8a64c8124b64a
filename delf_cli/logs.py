"""`--log-level`: the libraries' log as JSON lines on stderr."""

import json
import logging
import time
from collections.abc import Sequence

from delf_cli import streams
from delf_cli.options import UsageError
from delf_cli.report import jsonable

LEVELS = ("debug", "info", "warning", "error")
HELP = f"--log-level {'|'.join(LEVELS)}: print the log as JSON lines on stderr. Every subcommand has this option."
_PACKAGES = ("delf_jax", "retrieval", "localization")
_OPTION = "--log-level"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def take_level(args: Sequence[str]) -> tuple[str | None, list[str]]:
    """The level given by ``--log-level LEVEL`` anywhere among the arguments (None: not given), and the other arguments.

    >>> take_level(["extract", "--log-level", "info", "photos"])
    ('info', ['extract', 'photos'])

    Raises:
        UsageError: the level does not exist.
    """
    level, others = None, []
    rest = iter(args)
    for arg in rest:
        name, equals, value = arg.partition("=")
        if name != _OPTION:
            others.append(arg)
            continue
        level = value if equals else next(rest, "")
        if level not in LEVELS:
            raise UsageError(f"{_OPTION} is {level!r}; it must be {', '.join(LEVELS[:-1])} or {LEVELS[-1]}")
    return level, others


def start(level: str | None) -> None:
    """Makes the packages log to stderr, from ``level`` on (None: from warnings on)."""
    handler = _ToStderr()
    handler.setFormatter(JsonLines())
    for package in _PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel((level or "warning").upper())


class _ToStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # sys.stderr is looked up for every line, because a progress bar replaces it for a while.
        streams.say(self.format(record))


class JsonLines(logging.Formatter):
    """Formats a record as JSON: time (UTC), level, logger, event, the fields of ``extra``, and the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(jsonable(line), allow_nan=False, default=str)
