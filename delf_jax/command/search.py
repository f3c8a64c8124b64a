"""`delf-jax search`: which photos of an index show the same thing."""

import dataclasses
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from delf_jax.command.options import ExtractionOptions, Photos, UsageError
from delf_jax.command.report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """Find the photos of an index that show the same thing as a query photo, with geometric proof.

    The settings and the model are those that the index was made with, unless told otherwise.

    Attributes:
        index: the index, as written by `delf-jax index`.
        photos: query photos, folders, globs or addresses.
        top: results shown per query.
        verify: photos whose geometry is checked per query.
        out: folder for a picture of every query with its best results and the matches that prove them.
        json: print one JSON line per query.
    """

    index: Annotated[Positional[str], arg(metavar="INDEX")]
    photos: Photos
    top: int = 10
    verify: int = 100
    out: Annotated[str | None, arg(help_behavior_hint="(default: no pictures)")] = None
    extraction: ExtractionOptions = ExtractionOptions()
    json: bool = False

    example: ClassVar[str] = "delf-jax search index query.jpg --top 5 --out found"

    def run(self, report: Report) -> None:
        """Searches every query; a query that matches nothing is an answer too."""
        if not self.photos:
            raise UsageError("search needs query photos: name files, folders or globs")
