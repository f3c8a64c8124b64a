"""Queries cut to their foreground, for `search --crop foreground`: found by w*, extracted alone, put back in place."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from delf_jax.command.options import UsageError
from delf_jax.errors import ImageError

if TYPE_CHECKING:
    import numpy as np

    import delf_jax.extractor
    import delf_jax.features

Box = tuple[int, int, int, int]

# Where the foreground is, is seen well enough in a small photo; features are computed from the full one.
_LOCALIZE_SIDE = 448
# A smaller box holds too few features to be searched for.
_SMALLEST_SIDE = 64


def foreground_boxes(extractor: "delf_jax.extractor.Extractor", paths: Sequence[str]) -> list[Box | None]:
    """[x0, y0, x1, y1] in whole pixels around the largest foreground region of each photo.

    None where nothing was found, where it is tiny, or where the photo cannot be read, which extraction will tell.

    Raises:
        UsageError: the head has no foreground vector.
    """
    from delf_jax import loading
    from delf_jax.head import Head
    from delf_jax.images import load_photo
    from localization.encoders import ExtractorEncoder
    from localization.localizing import localization_of, map_in_pixels
    from localization.predictor import DEFAULT_MAP_THRESHOLD, MAP_THRESHOLD

    head = extractor.head
    if head.foreground is None:  # the model's own head may have what the index's lacks
        head = Head.open(loading.model_paths(extractor.settings.model)[1])
    w, layer = head.foreground, head.layer
    if w is None:
        raise UsageError("--crop foreground needs a head with a foreground vector; make one with `delf-jax pca`")
    sizes: dict[int, tuple[int, int]] = {}

    def reduced() -> "Iterator[tuple[int, np.ndarray]]":
        for position, path in enumerate(paths):
            try:
                photo = load_photo(path, max_side=_LOCALIZE_SIDE)
            except ImageError:
                continue
            sizes[position] = photo.original_size
            yield position, photo.pixels

    boxes: list[Box | None] = [None] * len(paths)
    for position, seen, row in ExtractorEncoder(extractor, layer=layer).run(map_in_pixels, {"w": w}, reduced()):
        if isinstance(seen, ImageError):
            continue
        seen = seen._replace(original_size=sizes[position])
        threshold = MAP_THRESHOLD.get(layer, DEFAULT_MAP_THRESHOLD)
        found = localization_of(seen, row, threshold=threshold, found_threshold=0.0, edges=False, label=None)
        if found.boxes:
            x0, y0, x1, y1, _ = found.boxes[0]
            box = int(x0), int(y0), math.ceil(x1), math.ceil(y1)
            if min(box[2] - box[0], box[3] - box[1]) >= _SMALLEST_SIDE:
                boxes[position] = box
    return boxes


def stream(
    extractor: "delf_jax.extractor.Extractor", paths: Sequence[str], boxes: Sequence[Box | None]
) -> Iterator[tuple[int, "delf_jax.features.LocalFeatures | ImageError"]]:
    """Features of each photo inside its box (None: all of it), out of order, keypoints in pixels of the whole photo."""
    import numpy as np

    from delf_jax.images import load_photo

    sizes: dict[int, tuple[int, int]] = {}

    def crops() -> Iterator[tuple[int, Any]]:
        for position, (path, box) in enumerate(zip(paths, boxes, strict=True)):
            if box is None:
                yield position, path
                continue
            try:
                photo = load_photo(path, max_side=None)
            except ImageError:
                yield position, path  # extraction meets the same error, and reports it
                continue
            sizes[position] = photo.original_size
            x0, y0, x1, y1 = box
            yield position, np.ascontiguousarray(photo.pixels[y0:y1, x0:x1])

    for position, features, _ in extractor.stream(crops()):
        box = boxes[position]
        if box is not None and position in sizes and not isinstance(features, ImageError):
            corner = np.array(box[:2], np.float32)
            features = dataclasses.replace(features, keypoints=features.keypoints + corner, image_size=sizes[position])
        yield position, features
