"""`delf-jax match`: two photos, the transform between them, and how sure it is."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from delf_jax.command.options import ExtractionOptions
from delf_jax.command.report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """Match two photos and verify the matches with geometry.

    Attributes:
        a: one photo.
        b: the other; the transform leads from the first to this one.
        geometry: kind of transform: fundamental suits scenes with depth, homography flat ones.
        plot: file for a picture of both photos with the matches that agree.
        json: print one JSON line.
    """

    a: Annotated[Positional[str], arg(metavar="A")]
    b: Annotated[Positional[str], arg(metavar="B")]
    geometry: Literal["similarity", "affine", "homography", "fundamental"] = "affine"
    plot: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="(default: no picture)")] = None
    extraction: ExtractionOptions = ExtractionOptions()
    json: bool = False

    example: ClassVar[str] = "delf-jax match a.jpg b.jpg --plot match.png"

    def run(self, report: Report) -> None:
        """Matches the two photos."""
