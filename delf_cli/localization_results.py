"""The folder that `delf-jax localize --out` writes: a heat-map and a mask of every photo, boxes as JSON and COCO."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delf_cli import result_pictures
from delf_cli.options import UsageError
from delf_jax.files import json_files
from delf_jax.photos.find import PhotoFile

if TYPE_CHECKING:
    import localization

_LINES, _COCO = "localizations.jsonl", "coco.json"


class LocalizationResults:
    """The results so far. The line of a photo is written after its pictures, so a photo with a line is complete.

    Args:
        folder: path of the folder; made if it does not exist.
        recipe: text that holds everything on which results depend besides the photo. Results of another recipe are
            computed again.
    """

    def __init__(self, folder: str, *, recipe: str) -> None:
        self._folder = Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UsageError(f"{folder}: this is a file, or lies inside a file; choose a folder for --out") from error
        self._recipe = recipe
        self._lines: dict[str, dict[str, Any]] = {}
        try:
            text = (self._folder / _LINES).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            text = ""
        for line in text.splitlines():
            entry = _entry(line)
            if entry is not None:
                self._lines[entry["image"]] = entry
        self._file_names = result_pictures.FileNames(entry["file"] for entry in self._lines.values())
        self._begin = "" if text.endswith("\n") or not text else "\n"

    def known(self, photo: PhotoFile) -> dict[str, Any] | None:
        """The record of a photo that is done and has not changed since; None otherwise."""
        entry = self._lines.get(photo.path)
        if entry is None or entry["stamp"] != self._stamp(photo) or not (self._folder / entry["file"]).is_file():
            return None
        return {name: entry[name] for name in ("image", "found", "score", "boxes", "label") if name in entry}

    def add(self, photo: PhotoFile, found: "localization.Localization", record: dict[str, Any]) -> None:
        """Draws the heat-map and the mask of a photo, then writes its line; ImageError if the photo is gone."""
        from localization.draw import backdrop, draw_localization, number_masks

        pixels = backdrop(found) if photo.path.endswith(".npy") else result_pictures.load_pixels(photo.path)
        file = self._lines[photo.path]["file"] if photo.path in self._lines else self._file_names.of(photo.path)
        result_pictures.save(os.path.join(self._folder, file), draw_localization(pixels, found))
        mask = os.path.join(self._folder, f"{os.path.splitext(file)[0]}_mask.png")
        result_pictures.save(mask, number_masks(found))
        height, width = found.image_size
        areas = [round(float(mask.mean()) * height * width, 1) for mask in found.masks]
        size = {"height": height, "width": width}
        entry = record | size | {"areas": areas, "file": file, "stamp": self._stamp(photo)}
        with open(self._folder / _LINES, "a", encoding="utf-8") as lines:
            lines.write(f"{self._begin}{json.dumps(entry)}\n")
        self._begin = ""
        self._lines[photo.path] = entry

    def finish(self) -> None:
        """Keeps one line per photo, and writes all boxes as a COCO data set, with classes as categories."""
        from delf_jax.files import atomic

        lines = "".join(f"{json.dumps(entry)}\n" for entry in self._lines.values())
        atomic.write_bytes(self._folder / _LINES, lines.encode())
        names = sorted({entry.get("label", "object") for entry in self._lines.values()})
        numbers = {name: number for number, name in enumerate(names, start=1)}
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, entry in enumerate(self._lines.values(), start=1):
            images.append(
                {"id": number, "file_name": entry["image"], "height": entry["height"], "width": entry["width"]}
            )
            for (x0, y0, x1, y1, score), area in zip(entry["boxes"], entry["areas"], strict=True):
                box = [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)]
                category = numbers[entry.get("label", "object")]
                annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": box}
                annotations.append(annotation | {"area": area, "iscrowd": 0, "score": score})
        categories = [{"id": number, "name": name} for name, number in numbers.items()]
        coco = {"images": images, "annotations": annotations, "categories": categories}
        atomic.write_bytes(self._folder / _COCO, json.dumps(coco).encode())

    def _stamp(self, photo: PhotoFile) -> str:
        text = f"{self._recipe} {photo.size} {photo.mtime_ns}"
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _entry(line: str) -> dict[str, Any] | None:
    """The content of a line; None if it was cut off when a run was killed, or is not ours. Its photo is done again."""
    try:
        entry = json_files.loads_object(line)
        file = entry["file"]
        # Pictures are written to this name, so it must not lead out of the folder.
        named = all(isinstance(entry[name], str) for name in ("image", "file", "stamp"))
        if not named or os.path.basename(file) != file or not file.endswith(".jpg") or not file.isprintable():
            return None
        numbers = [
            *entry["areas"],
            entry["height"],
            entry["width"],
            *(number for box in entry["boxes"] for number in box),
        ]
        whole = len(entry["areas"]) == len(entry["boxes"]) and all(len(box) == 5 for box in entry["boxes"])
        labelled = isinstance(entry.get("label", ""), str)
        return entry if whole and labelled and all(type(n) in (int, float) for n in numbers) else None
    except (ValueError, KeyError, TypeError):
        return None
