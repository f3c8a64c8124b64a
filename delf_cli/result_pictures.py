"""Draws the matches of a search or of two photos, and saves pictures as files."""

import collections
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from delf_cli.options import UsageError
from delf_jax.errors import ImageError
from delf_jax.files.file_names import LONGEST, fitting

if TYPE_CHECKING:
    import delf_jax.drawing
    import delf_jax.features
    import retrieval
    import retrieval.draw
    import retrieval.verification.verify
    from delf_jax.photos.load import Source

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_MAX_SIDE = 1024
_LONGEST = LONGEST - len("_mask")  # of a picture, whose mask has a name made from its own
_RESULTS_ON_SHEET = 5


def require_format(path: str) -> None:
    """Raises UsageError if the ending of the file's name is not that of a picture format that can be written."""
    if os.path.splitext(path)[1].lower() not in _FORMATS:
        raise UsageError(f"{path}: unknown picture format; let the name end in {', '.join(_FORMATS)}")


class FileNames:
    """File names for the pictures of photos. Photos with the same name in different folders get a number.

    Args:
        taken: names that are used already.

    >>> [*map(FileNames().of, ["a/x.png", "b/x.jpg", "y"])]
    ['x.jpg', 'x_2.jpg', 'y.jpg']
    >>> [*map(FileNames(["x.jpg"]).of, ["b/x.jpg", "x_2.jpg", "x\\n.jpg"])]
    ['x_2.jpg', 'x_2_2.jpg', 'x_.jpg']
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._repeated: collections.Counter[str] = collections.Counter()

    def of(self, photo: str) -> str:
        """A name that no earlier photo has."""
        stem = os.path.splitext(os.path.basename(photo))[0]
        stem = "".join(c if c.isprintable() else "_" for c in stem)
        name = fitting(stem, suffix=".jpg", most=_LONGEST)
        while name in self._taken:
            self._repeated[stem] += 1
            name = fitting(stem, suffix=f"_{self._repeated[stem] + 1}.jpg", most=_LONGEST)
        self._taken.add(name)
        return name


def load_panel(photo: "Source", features: "delf_jax.features.LocalFeatures") -> "retrieval.draw.Panel":
    """Loads a photo for drawing, with its features; ImageError if it is gone."""
    from retrieval.draw import Panel

    return Panel(load_pixels(photo), features)


def draw_pair(
    left: "retrieval.draw.Panel",
    right: "retrieval.draw.Panel",
    found: "retrieval.verification.verify.Match",
    *,
    title: str = "",
) -> "delf_jax.drawing.Picture":
    """Draws both photos, the matches that agree, and a caption with the number of inliers and the NFA."""
    from retrieval import draw

    nfa = float("inf") if found.log10_nfa is None else found.log10_nfa
    return draw.draw_matches(
        left,
        right,
        found.query_points,
        found.points,
        where=found.is_inlier,
        caption=title + draw.proof(found.inliers, nfa, accepted=found.accepted),
        accepted=found.accepted,
    )


def draw_results(
    query: str,
    features: "delf_jax.features.LocalFeatures",
    index: "retrieval.SearchableIndex",
    result: "retrieval.SearchResult",
) -> "delf_jax.drawing.Picture":
    """Draws the query beside each of its best results. Results whose photo is gone are left out."""
    from delf_jax import drawing

    left = load_panel(query, features)
    rows = []
    for found in result.matches[:_RESULTS_ON_SHEET]:
        try:
            right = load_panel(found.image, index.features(found.image))
        except ImageError:
            continue
        rows.append(draw_pair(left, right, found, title=f"{os.path.basename(found.image)}: "))
    if not rows:
        rows = [drawing.with_caption(left.pixels, "no match", accepted=False)]
    return drawing.stack(rows)


def load_pixels(photo: "Source") -> "delf_jax.drawing.Picture":
    """Loads the pixels of a photo for drawing; ImageError if it is gone."""
    from delf_jax.photos.load import load_photo

    return load_photo(photo, max_side=_MAX_SIDE).pixels


def save(path: str, picture: "delf_jax.drawing.Picture") -> None:
    """Writes the picture to a file, completely or not at all."""
    import io

    from PIL import Image

    from delf_jax.files import atomic

    data = io.BytesIO()
    Image.fromarray(picture).save(data, _FORMATS[os.path.splitext(path)[1].lower()], quality=90)
    atomic.write_bytes(path, data.getbuffer())
