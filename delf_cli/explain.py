"""`delf-jax explain`: shows the training places that cause the activation at a place of a photo."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from delf_cli import result_pictures
from delf_cli.options import UsageError
from delf_cli.report import Report
from delf_jax.errors import ImageError

if TYPE_CHECKING:
    import localization.representers.values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explain:
    """Show which places of the training photos speak for or against the object at a place of a photo.

    Attributes:
        predictor: as written by `delf-jax fit-localizer`, without --no-points.
        photo: the photo to explain.
        at: the place, x and y in pixels of the upright photo.
        box: a region in place of --at, x0,y0,x1,y1 in pixels.
        top: number of training places for the object, and against it.
        per_photo: most training places of the same photo; 0 for any number.
        ranking: sort by value, by value compared with an average place (centred), or by similarity (local).
        plot: write a picture of the photo, its map and the training places to this file.
        json: print one JSON line. Places against the object have negative importance.
    """

    predictor: Annotated[Positional[str], arg(metavar="PREDICTOR")]
    photo: Annotated[Positional[str], arg(metavar="PHOTO")]
    at: Annotated[str | None, arg(metavar="X,Y", help_behavior_hint="(default: the whole photo)")] = None
    box: Annotated[str | None, arg(metavar="X0,Y0,X1,Y1", help_behavior_hint="(default: the whole photo)")] = None
    top: int = 10
    ranking: Literal["value", "centred", "local"] = "centred"
    per_photo: int = 1
    plot: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="(default: no picture)")] = None
    json: bool = False

    example: ClassVar[str] = "delf-jax explain bird-predictor photo.jpg --at 210,140"

    def run(self, report: Report) -> None:
        """Explains one place, one box, or the whole photo."""
        if self.at is not None and self.box is not None:
            raise UsageError("give either --at or --box, not both")
        if self.top < 1:
            raise UsageError(f"--top is {self.top}; it must be at least 1")
        if self.per_photo < 0:
            raise UsageError(f"--per-photo is {self.per_photo}; it must be at least 0")
        if self.plot is not None:
            result_pictures.require_format(self.plot)
        where = _numbers("--at", self.at, 2) or _numbers("--box", self.box, 4)
        from delf_cli import environment

        environment.start_jax()
        import localization

        predictor = localization.Predictor.open(self.predictor)
        try:
            explained = predictor.explain(
                self.photo,
                where,
                top=self.top,
                ranking=self.ranking,
                per_photo=self.per_photo or None,
                index="exact",
            )
            if self.plot is not None:
                from localization.draw import backdrop, draw_explanation

                (found,) = predictor.localize([self.photo])
                pixels = backdrop(found) if self.photo.endswith(".npy") else result_pictures.load_pixels(self.photo)
                result_pictures.save(self.plot, draw_explanation(pixels, found, explained, where))
        except ImageError as error:
            report.failure("image", self.photo, error.reason)
            return
        report.succeeded += 1
        points = [*explained.excitatory, *explained.inhibitory]
        place = {"at": where} if self.at is not None else {"box": where}
        record = {"image": self.photo, **place, "value": explained.value, "points": [_record(p) for p in points]}
        lines = [f"{self.photo}: value {explained.value:.4g}"]
        lines += [
            f"  {'for    ' if p.importance > 0 else 'against'}  {p.share:6.1%}  cosine {p.similarity:.2f}  "
            f"{p.image} at {p.xy[0]:.0f},{p.xy[1]:.0f}"
            for p in points
        ]
        if self.plot is not None:
            lines.append(f"picture: {self.plot}")
        report.result(record, lines)


def _numbers(option: str, text: str | None, count: int) -> Any:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise UsageError(f"{option} is {text!r}; give {count} numbers, separated by commas")
    return numbers


def _record(point: "localization.representers.values.RepresenterPoint") -> dict[str, object]:
    return {
        "image": point.image,
        "xy": point.xy,
        "importance": point.importance,
        "similarity": point.similarity,
        "value": point.value,
        "share": point.share,
        "cumulative": point.cumulative,
    }
