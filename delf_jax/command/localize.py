"""`delf-jax localize`: where the object is in photos."""

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from delf_jax.command import photos, pictures
from delf_jax.command.options import Photos, UsageError
from delf_jax.command.report import Report
from delf_jax.errors import ImageError

if TYPE_CHECKING:
    import localization


@dataclasses.dataclass(frozen=True, kw_only=True)
class Localize:
    """Find the object in photos: boxes [x0, y0, x1, y1, score] in pixels of the upright photo, largest first.

    Attributes:
        predictor: as written by `delf-jax fit-localizer`.
        photos: photos, folders, globs or addresses.
        out: folder for a heat-map and a mask of every photo, and coco.json with all boxes.
        threshold: share of the map's maximum above which a pixel belongs to an object.
        edges: move outlines to the edges in the photo.
        json: print one JSON line per photo.
    """

    predictor: Annotated[Positional[str], arg(metavar="PREDICTOR")]
    photos: Photos
    out: Annotated[str | None, arg(metavar="DIR", help_behavior_hint="(default: no pictures)")] = None
    threshold: Annotated[float | None, arg(help_behavior_hint="(default: the predictor's own)")] = None
    edges: bool = False
    json: bool = False

    example: ClassVar[str] = "delf-jax localize bird-predictor photos/ --out found"

    def run(self, report: Report) -> None:
        """Localizes in every photo, in the order given; finding nothing is an answer too."""
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise UsageError(f"--threshold is {self.threshold}; it must be at least 0 and below 1")
        photos.require_names(self.photos)
        from delf_jax.command import environment

        environment.start_jax()
        import localization

        predictor = localization.Predictor.open(self.predictor)
        paths = photos.find(self.photos, report)
        if not paths:
            return
        if self.out is not None:
            os.makedirs(self.out, exist_ok=True)
        names = pictures.file_names(paths)
        coco: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "object"}]}
        waiting: dict[int, localization.Localization | ImageError] = {}
        following = 0
        stream = predictor.localize_stream(enumerate(paths), threshold=self.threshold, edges=self.edges)
        with report.progress("localizing") as advance:
            for position, found in stream:
                waiting[position] = found
                while following in waiting:
                    answer = waiting.pop(following)
                    if isinstance(answer, ImageError):
                        report.failure("image", paths[following], answer.reason)
                    else:
                        self._answer(paths[following], names[following], answer, coco, report)
                    following += 1
                    advance(following, len(paths))
        if self.out is not None:
            from delf_jax import atomic

            atomic.write_bytes(os.path.join(self.out, "coco.json"), json.dumps(coco).encode())

    def _answer(
        self, path: str, name: str, found: "localization.Localization", coco: dict[str, list[Any]], report: Report
    ) -> None:
        boxes = [[round(float(value), 3) for value in box] for box in found.boxes]
        if self.out is not None:
            from localization.draw import draw_localization

            pictures.save(os.path.join(self.out, name), draw_localization(pictures.pixels_of(path), found))
            mask = os.path.join(self.out, f"{os.path.splitext(name)[0]}_mask.png")
            pictures.save(mask, pictures.mask(found))
            _add_coco(coco, path, found)
        report.succeeded += 1
        record = {"image": path, "found": found.found, "score": found.score, "boxes": boxes}
        lines = [f"{path}: {'found' if found.found else 'nothing found'}, score {found.score:.3f}"]
        lines += ["  " + "  ".join(f"{value:8.1f}" for value in box[:4]) for box in boxes]
        report.result(record, "\n".join(lines))


def _add_coco(coco: dict[str, list[Any]], path: str, found: "localization.Localization") -> None:
    """Adds a photo and its boxes (x, y, width, height) to a COCO data set."""
    image_id = len(coco["images"]) + 1
    height, width = found.image_size
    coco["images"].append({"id": image_id, "file_name": path, "height": int(height), "width": int(width)})
    for x0, y0, x1, y1, score in found.boxes:
        box = [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]
        coco["annotations"].append(
            {
                "id": len(coco["annotations"]) + 1,
                "image_id": image_id,
                "category_id": 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "score": float(score),
            }
        )
