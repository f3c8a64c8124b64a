"""The standard streams of the command, which may be closed, full, or of a program that has ended."""

import contextlib
import os
import sys


def open_all() -> None:
    """Opens /dev/null for each standard stream that is closed, and shows characters that stdout cannot as escapes.

    Otherwise the next file that is opened gets the number of the closed stream, and what a library prints goes into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 (until the end)
    with contextlib.suppress(AttributeError, ValueError):  # a host has put another object in its place
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def say(line: str) -> None:
    """Prints a line on stderr. If that is impossible, the work goes on: its results do not depend on it."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def detach_stdout() -> None:
    """Lets Python flush stdout at exit without an error, also if its reader has ended or its disk is full."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
