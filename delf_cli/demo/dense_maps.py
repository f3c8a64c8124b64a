"""The maps of the demo: attention, and where an object is found without labels, with its explanation."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import jax
    import numpy as np

    from delf_cli.demo.story import LocatedPhoto, TrainingPlace
    from delf_jax.extractor import Extractor
    from localization.grid import Grid
    from localization.representers.values import RepresenterPoint

_LAYER = "conv5"
_PLACES = 5
_THUMBNAIL_SIDE = 240


class Maps(NamedTuple):
    """A reduced photo, its original (height, width), its attention map and its dense feature map.

    The grids say where the cells of both maps lie in the reduced photo.
    """

    pixels: "np.ndarray"
    original_size: tuple[int, int]
    attention: "np.ndarray"
    attention_grid: "Grid"
    dense: "np.ndarray"
    dense_grid: "Grid"


def compute(extractor: "Extractor", photos: Mapping[str, str]) -> dict[str, Maps]:
    """The maps of each photo (name to path), computed by one program per photo size.

    Raises:
        ImageError: a photo cannot be used.
    """
    import numpy as np

    from delf_jax.extraction.attention import score
    from delf_jax.photos.load import Photo
    from localization.encoders.extractor_encoder import layer_grid

    attended = extractor.head.layer

    def program(params: Any, images: "jax.Array", valid_hw: "jax.Array") -> dict[str, "jax.Array"]:
        maps = extractor.dense(params, images, valid_hw, last=_LAYER)
        attention = score(maps[attended], params["head"], extractor.settings.scorer)
        return {attended: attention, _LAYER: maps[_LAYER]}

    found = {}
    for name, photo, row in extractor.run(extractor.compiled(program), extractor.params, photos.items()):
        if not isinstance(photo, Photo):
            raise photo
        size = np.array(photo.pixels.shape[:2], np.int32)
        valid: list[Any] = []
        for layer in (attended, _LAYER):
            height, width = (int(side) for side in extractor.map_size(size, layer))
            valid += [np.asarray(row[layer][:height, :width], np.float32), layer_grid(extractor, layer, size)]
        found[name] = Maps(photo.pixels, photo.original_size, *valid)
    return found


def attention_picture(maps: Maps) -> bytes:
    """JPEG of the attention map over the photo."""
    from delf_jax import drawing

    (y, x), (step_y, step_x) = ((float(side) for side in part) for part in maps.attention_grid)
    return drawing.to_jpeg(drawing.draw_heat(maps.pixels, maps.attention, origin=(x, y), step=(step_x, step_y)))


def locate(name: str, maps: Mapping[str, Maps]) -> "LocatedPhoto":
    """Locates the object of a photo with a predictor of all other photos, and explains the strongest place."""
    import numpy as np

    import localization
    from delf_cli.demo.story import LocatedPhoto
    from delf_jax import drawing
    from localization import draw

    def source(name: str) -> tuple["np.ndarray", tuple[int, int], "Grid"]:
        photo = maps[name]
        return photo.dense, photo.original_size, photo.dense_grid.resized(photo.pixels.shape[:2], photo.original_size)

    predictor = localization.fit({other: source(other) for other in maps if other != name})
    (found,) = predictor.localize([source(name)])
    y, x = np.unravel_index(int(found.activation.argmax()), found.activation.shape)
    where = float(x), float(y)
    explained = predictor.explain(source(name), where, top=_PLACES)
    pixels = maps[name].pixels
    return LocatedPhoto(
        name=name,
        photo=drawing.to_jpeg(draw.mark_place(pixels, where, maps[name].original_size)),
        heat=drawing.to_jpeg(draw.draw_localization(pixels, found)),
        score=found.score,
        boxes=[tuple(round(edge) for edge in box[:4]) for box in found.boxes],
        excitatory=[_place(point, maps) for point in explained.excitatory],
        inhibitory=[_place(point, maps) for point in explained.inhibitory],
        photos=len(maps) - 1,
    )


def _place(point: "RepresenterPoint", maps: Mapping[str, Maps]) -> "TrainingPlace":
    import cv2

    from delf_cli.demo.story import TrainingPlace
    from delf_jax import drawing
    from localization import draw

    pixels = maps[point.image].pixels
    scale = _THUMBNAIL_SIDE / max(pixels.shape[:2])
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    thumbnail = drawing.to_jpeg(draw.mark_place(small, point.xy, point.image_size))
    return TrainingPlace(point.image, thumbnail, point.importance, point.similarity, point.share)
