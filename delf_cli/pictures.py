"""Pictures of matches, drawn by ``retrieval.draw``, and any picture as a file."""

import collections
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from delf_cli.options import UsageError
from delf_jax.errors import ImageError

if TYPE_CHECKING:
    import delf_jax.drawing
    import delf_jax.features
    import retrieval
    import retrieval.draw
    import retrieval.verification.verify
    from delf_jax.photos.load import Source

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_MAX_SIDE = 1024
_RESULTS_ON_SHEET = 5


def require_format(path: str) -> None:
    """Raises UsageError where the file's name does not say a format that pictures can be written in."""
    if os.path.splitext(path)[1].lower() not in _FORMATS:
        raise UsageError(f"{path}: pictures are written as {', '.join(_FORMATS)}; give the file such an ending")


def file_names(photos: Sequence[str]) -> list[str]:
    """A file name for a picture of each photo; photos of one name in several folders get a number.

    >>> file_names(["a/x.png", "b/x.jpg", "y"])
    ['x.jpg', 'x_2.jpg', 'y.jpg']
    >>> file_names(["a/x.png", "b/x.jpg", "x_2.jpg"])
    ['x.jpg', 'x_2.jpg', 'x_2_2.jpg']
    """
    names: dict[str, None] = {}
    repeated: collections.Counter[str] = collections.Counter()
    for photo in photos:
        stem = os.path.splitext(os.path.basename(photo))[0]
        name = f"{stem}.jpg"
        while name in names:
            repeated[stem] += 1
            name = f"{stem}_{repeated[stem] + 1}.jpg"
        names[name] = None
    return list(names)


def panel(photo: "Source", features: "delf_jax.features.LocalFeatures") -> "retrieval.draw.Panel":
    """A photo with its features, ready to be drawn; ImageError where it is gone."""
    from retrieval.draw import Panel

    return Panel(pixels_of(photo), features)


def pair(
    left: "retrieval.draw.Panel",
    right: "retrieval.draw.Panel",
    found: "retrieval.verification.verify.Match",
    *,
    title: str = "",
) -> "delf_jax.drawing.Picture":
    """Both photos, the matches that agree, and what they prove."""
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


def sheet(
    query: str,
    features: "delf_jax.features.LocalFeatures",
    index: "retrieval.Index | retrieval.ShardedIndex",
    result: "retrieval.SearchResult",
) -> "delf_jax.drawing.Picture":
    """The query beside each of its best results; results whose photo is gone are left out."""
    from delf_jax import drawing

    left = panel(query, features)
    rows = []
    for found in result.matches[:_RESULTS_ON_SHEET]:
        try:
            right = panel(found.image, index.features(found.image))
        except ImageError:
            continue
        rows.append(pair(left, right, found, title=f"{os.path.basename(found.image)}: "))
    if not rows:
        rows = [drawing.with_caption(left.pixels, "nothing found", accepted=False)]
    return drawing.stack(rows)


def pixels_of(photo: "Source") -> "delf_jax.drawing.Picture":
    """A photo as it is drawn on; ImageError where it is gone."""
    from delf_jax.photos.load import load_photo

    return load_photo(photo, max_side=_MAX_SIDE).pixels


def save(path: str, picture: "delf_jax.drawing.Picture") -> None:
    """Writes the picture, whole or not at all."""
    import io

    from PIL import Image

    from delf_jax.files import atomic

    data = io.BytesIO()
    Image.fromarray(picture).save(data, _FORMATS[os.path.splitext(path)[1].lower()], quality=90)
    atomic.write_bytes(path, data.getbuffer())
