"""`delf-jax index`: a feature store to a search index."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from delf_jax.command.options import UsageError
from delf_jax.command.report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """Build a search index from a feature store, add a store to an index, or take photos out of it.

    Attributes:
        store: feature store, as written by `delf-jax extract`.
        out: the index, a folder.
        backend: scann is the fast one, where it has a wheel; exact runs everywhere; auto takes the best at hand.
        add: add the store's photos to the index at --out instead of building it anew.
        remove: names of photos to take out of the index at --out.
        json: print one JSON line with the counts.
    """

    store: Annotated[Positional[str | None], arg(metavar="STORE", help_behavior_hint="(required unless --remove)")] = None
    out: Annotated[str, arg(metavar="INDEX")]
    backend: Literal["auto", "scann", "exact"] = "auto"
    add: bool = False
    remove: Annotated[tuple[str, ...], arg(metavar="PHOTO...", help_behavior_hint="(default: none)")] = ()
    json: bool = False

    example: ClassVar[str] = "delf-jax index features --out index"

    def run(self, report: Report) -> None:
        """Builds or changes the index, and saves it whole or not at all."""
