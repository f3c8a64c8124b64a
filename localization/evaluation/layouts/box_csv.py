"""A CSV file of boxes."""

from pathlib import Path

from delf_jax.errors import DelfError
from delf_jax.files.text_files import read_number, read_table
from localization.evaluation.annotated_photo import AnnotatedPhoto, Edges
from localization.evaluation.layouts.boxes import between, has_area, require_pixels, tell

_EDGES = ("xmin", "ymin", "xmax", "ymax")


def read_box_csv(file: Path) -> list[AnnotatedPhoto]:
    """A CSV file with columns file, xmin, ymin, xmax, ymax (edges in pixels of the upright photo) and maybe label.

    Files are relative to its folder. Corners may be given in any order. The log counts boxes without an area.
    """
    boxes: dict[str, list[Edges]] = {}
    labels: dict[str, str | None] = {}
    flat = 0
    for line, row in read_table(file, ("file", *_EDGES)):
        name, label = row["file"], row.get("label") or None
        if not name:
            raise DelfError(f"{file}: line {line}, column file: is empty; name the photo")
        if labels.setdefault(name, label) != label:
            raise DelfError(f"{file}: line {line}, column label: {name} has another label before; give it one")
        box = between(*(read_number(file, line, row, column) for column in _EDGES))
        flat += not has_area(box)
        boxes.setdefault(name, []).extend([box] if has_area(box) else [])
    tell(file, flat, "boxes without an area, left out")
    found = [AnnotatedPhoto(file.parent / name, own, labels[name]) for name, own in boxes.items()]
    require_pixels(found, file)
    return found
