"""`delf-jax match`: matches two photos and estimates the transform between them."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from delf_cli import input_photos
from delf_cli.options import ExtractionOptions
from delf_cli.report import Report

if TYPE_CHECKING:
    import retrieval.verification.verify


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """Match two photos and verify the matches geometrically.

    Attributes:
        a: the first photo.
        b: the second photo. The transform maps the first photo to the second.
        geometry: kind of transform. homography suits flat scenes, fundamental suits scenes with depth.
        plot: write a picture of both photos and the matches that agree to this file.
        json: print one JSON line.
    """

    a: Annotated[Positional[str], arg(metavar="A")]
    b: Annotated[Positional[str], arg(metavar="B")]
    geometry: Literal["similarity", "affine", "homography", "fundamental"] = "affine"
    plot: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="(default: no picture)")] = None
    extraction: ExtractionOptions
    json: bool = False

    example: ClassVar[str] = "delf-jax match a.jpg b.jpg --plot match.png"

    def run(self, report: Report) -> None:
        """Matches the two photos. "They do not match" is an answer, not a failure."""
        from delf_cli import result_pictures

        if self.plot is not None:
            result_pictures.require_format(self.plot)
        self.extraction.check()
        if not input_photos.all_readable([self.a, self.b], report):
            return
        extractor = self.extraction.load()
        found = extractor([self.a, self.b])

        from retrieval.verification.verify import match

        result = match(
            found[0],
            found[1],
            model=self.geometry,
            name=self.b,
        )
        if self.plot is not None:
            panels = [
                result_pictures.load_panel(path, found[position]) for position, path in enumerate([self.a, self.b])
            ]
            result_pictures.save(self.plot, result_pictures.draw_pair(panels[0], panels[1], result))
        report.succeeded += 1
        report.result(_record(result), _sentences(self, result))


def _record(result: "retrieval.verification.verify.Match") -> dict[str, object]:
    return {
        "putative": result.putative,
        "inliers": result.inliers,
        "model": result.model,
        "transform": result.transform,
        "log10_nfa": result.log10_nfa,
        "accepted": result.accepted,
        "confidence": result.confidence,
        "overlay": result.overlay,
    }


def _sentences(command: Match, result: "retrieval.verification.verify.Match") -> list[str]:
    verdict = "show the same thing" if result.accepted else "no match"
    lines = [
        f"{command.a} and {command.b}: {verdict}",
        f"{result.inliers} of {result.putative} matches agree on one {result.model} transform, "
        f"log10 NFA {result.log10_nfa:.1f}",
        result.confidence,
    ]
    if result.accepted and result.transform is not None:
        lines += ["  ".join(f"{value:10.4g}" for value in row) for row in result.transform]
    if command.plot is not None:
        lines.append(f"picture: {command.plot}")
    return lines
