"""How every benchmark starts from the command line."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

from delf_jax.errors import DelfError

_Options = TypeVar("_Options")


def run(main: Callable[[_Options], Any], options: type[_Options], description: str | None) -> None:
    """Calls ``main`` with the options of the command line; what a user can mend ends the process with one line."""
    try:
        main(tyro.cli(options, description=description))
    except (DelfError, OSError) as error:
        sys.exit(str(error))
