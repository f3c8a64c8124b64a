"""`delf-jax check`: is everything there, and is it what was written."""

import dataclasses
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from delf_jax.command.report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """Check a feature store, an index or a predictor: checksums, counts, and what is damaged.

    Attributes:
        path: the folder to check.
        repair: leave out what is damaged, so that the rest can be used and `delf-jax extract` computes it again.
        json: print one JSON line.
    """

    path: Annotated[Positional[str], arg(metavar="STORE|INDEX|PREDICTOR")]
    repair: bool = False
    json: bool = False

    example: ClassVar[str] = "delf-jax check features --repair"

    def run(self, report: Report) -> None:
        """Checks the folder."""
