"""Features of a part of a photo: inside a given box, or inside the foreground found by w* (`search --crop`)."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from delf_cli.options import UsageError
from delf_jax.errors import ImageError

if TYPE_CHECKING:
    import numpy as np

    import delf_jax.extractor
    import delf_jax.features
    from delf_jax.photos.load import Source

Box = tuple[int, int, int, int]

# A small photo is enough to find the foreground. Features are computed from the full photo.
_LOCALIZE_SIDE = 448
# A smaller box holds too few features for a search.
_SMALLEST_SIDE = 64


def foreground_boxes(extractor: "delf_jax.extractor.Extractor", paths: Sequence[str]) -> list[Box | None]:
    """The box [x0, y0, x1, y1], in whole pixels, around the largest foreground region of each photo.

    None if there is no such region, if it is too small, or if the photo cannot be read (extraction reports that).

    Raises:
        UsageError: the head has no foreground vector.
    """
    from delf_jax import loading
    from delf_jax.extraction.head import Head
    from delf_jax.photos.load import load_photo
    from localization.encoders.extractor_encoder import ExtractorEncoder
    from localization.localizing import localization_of, map_in_pixels
    from localization.predictor import default_map_threshold

    head = extractor.head
    if head.foreground is None:  # the head of the index may lack it; try the model's own
        head = Head.open(loading.model_paths(extractor.settings.model)[1])
    w, layer = head.foreground, head.layer
    if w is None:
        raise UsageError(
            "--crop foreground needs a foreground vector; make a head with `delf-jax pca` and give it with --head"
        )
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
        threshold = default_map_threshold(layer)
        found = localization_of(seen, row, threshold=threshold, found_threshold=0.0, edges=False, label=None)
        if found.boxes:
            x0, y0, x1, y1, _ = found.boxes[0]
            box = int(x0), int(y0), math.ceil(x1), math.ceil(y1)
            if min(box[2] - box[0], box[3] - box[1]) >= _SMALLEST_SIDE:
                boxes[position] = box
    return boxes


def round_box(box: Sequence[float]) -> Box:
    """The box [x0, y0, x1, y1] rounded to whole pixels."""
    x0, y0, x1, y1 = map(round, box)
    return x0, y0, x1, y1


def extract_inside_boxes(
    extractor: "delf_jax.extractor.Extractor",
    photos: "Sequence[Source]",
    boxes: Sequence[Box | None],
    *,
    as_in_whole: bool = False,
) -> Iterator[tuple[int, "delf_jax.features.LocalFeatures | ImageError"]]:
    """Features of each photo inside its box (None: the whole photo), with the photo's position, in any order.

    Boxes are clipped to their photos. Keypoints are in pixels of the whole photo. With ``as_in_whole`` a part is
    reduced by the same factor as its whole photo would be, as the benchmarks do with cropped queries. Otherwise the
    part itself is reduced to the extractor's longest side.
    """
    import numpy as np

    from delf_jax.photos.load import load_photo

    placed: dict[int, tuple[tuple[int, int], np.ndarray, np.ndarray]] = {}

    def crops() -> Iterator[tuple[int, Any]]:
        for position, (source, box) in enumerate(zip(photos, boxes, strict=True)):
            if box is None:
                yield position, source
                continue
            try:
                photo = load_photo(source, max_side=None)
            except ImageError:
                yield position, source  # extraction finds the same error and reports it
                continue
            x0, y0, x1, y1 = (max(0, edge) for edge in box)
            part = np.ascontiguousarray(photo.pixels[y0:y1, x0:x1])
            size = part.shape[:2]
            if as_in_whole and part.size:
                share = max(size) / max(photo.original_size)
                part = load_photo(part, max_side=max(1, round(extractor.settings.max_side * share))).pixels
            ratio = np.array([size[1] / max(1, part.shape[1]), size[0] / max(1, part.shape[0])], np.float32)
            placed[position] = photo.original_size, ratio, np.array([x0, y0], np.float32)
            yield position, part

    for position, features, _ in extractor.stream(crops()):
        if position in placed and not isinstance(features, ImageError):
            size, ratio, corner = placed.pop(position)
            features = dataclasses.replace(
                features,
                keypoints=(features.keypoints + np.float32(0.5)) * ratio - np.float32(0.5) + corner,
                scales=features.scales / np.sqrt(ratio.prod()),
                image_size=size,
                domain=features.domain and features.domain.placed(ratio, corner.tolist()),
            )
        yield position, features
