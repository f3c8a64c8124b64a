"""What turns photos into dense features for localization: the packaged extractor, any function, or maps on disk.

All three run the same way: ``encoder.run(function, arguments, photos)`` computes the features of each photo and hands
them to a pure ``function``, so that sums, maps and unit features leave the device instead of whole feature maps.
"""

import itertools
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import delf_jax
from delf_jax import loading
from delf_jax.errors import ImageError, PredictorError
from delf_jax.extraction import pyramid
from delf_jax.extraction.head import Head
from delf_jax.extractor import Extractor
from delf_jax.files import model_file
from delf_jax.photos.load import load_photo

Key = TypeVar("Key", bound=Hashable)
# A path, an array, or for feature maps a pair (array, (height, width) of the photo).
Source = Any
# By name, or in a row: paths are then their own names.
Photos = Mapping[str, Source] | Iterable[Source]


class Dense(NamedTuple):
    """Features of a padded batch, as functions of ``Encoder.run`` receive them.

    Attributes:
        features: [B, h, w, C].
        cells_hw: int [B, 2], (height, width) of each photo's own part of the map, at its top left.
        image_hw: int [B, 2], the same of the pixels that it covers.
        canvas: static (height, width) in pixels of the padded batch.
        others: the same photos at the other scales that were asked for.
    """

    features: Array
    cells_hw: Array
    image_hw: Array
    canvas: tuple[int, int]
    others: tuple["Dense", ...] = ()


class Seen(NamedTuple):
    """A photo as the encoder saw it.

    Attributes:
        pixels: uint8 [h, w, 3] RGB, or None when only a feature map was given.
        size: (height, width) that ``Dense.image_hw`` refers to.
        original_size: (height, width) of the upright original photo.
    """

    pixels: np.ndarray | None
    size: tuple[int, int]
    original_size: tuple[int, int]


Function = Callable[[Any, Dense], Any]


@runtime_checkable
class Encoder(Protocol):
    """Runs a function of dense features over photos.

    Attributes:
        description: JSON values that identify the features; statistics of different descriptions do not mix.
    """

    description: Mapping[str, Any]

    def run(
        self, function: Function, arguments: Any, photos: Iterable[tuple[Key, Source]]
    ) -> Iterator[tuple[Key, Seen | ImageError, Any]]:
        """Yields (key, photo, row of ``function(arguments, dense)`` in NumPy), or (key, ImageError, None)."""
        ...


class ExtractorEncoder:
    """One named map of a delf-jax extractor, by default the deepest, in its own compiled and sharded program."""

    def __init__(self, extractor: Extractor, *, layer: str | None = None) -> None:
        layer = layer or extractor.map_names[-1]
        if layer not in extractor.map_names:
            known = ", ".join(extractor.map_names)
            raise PredictorError(f"{extractor.settings.model}: no map named {layer}; it has {known}")
        self.extractor = extractor
        self.layer = layer
        settings = extractor.settings
        backbone, _ = loading.model_paths(settings.model)
        self.description: Mapping[str, Any] = {
            "kind": "extractor",
            "model": settings.model,
            "backbone": model_file.fingerprint(backbone),
            "layer": layer,
            "max_side": settings.max_side,
            "precision": settings.precision,
            # Absent where the weights' own stride is kept, as in the predictors of the first version.
            **({"conv5_stride": settings.conv5_stride} if settings.conv5_stride else {}),
        }
        self._programs: dict[tuple[Function, tuple[float, ...]], Any] = {}

    @classmethod
    def from_description(cls, description: Mapping[str, Any], *, batch_size: int | None = None) -> "ExtractorEncoder":
        """Loads the extractor that ``description`` names, for batches as in ``delf_jax.load``.

        Raises:
            PredictorError: its backbone is not the one that was described.
        """
        model = description["model"]
        extractor = delf_jax.load(
            model,
            head=Head(),
            scorer="norm",
            max_side=description["max_side"],
            precision=description["precision"],
            conv5_stride=description.get("conv5_stride"),
            batch_size=batch_size,
        )
        encoder = cls(extractor, layer=description["layer"])
        if encoder.description["backbone"] != description["backbone"]:
            raise PredictorError(
                f"{model}: this backbone is not the one that the predictor was fitted on; fit it again"
            )
        return encoder

    def run(
        self,
        function: Function,
        arguments: Any,
        photos: Iterable[tuple[Key, Source]],
        *,
        scales: Sequence[float] = (1.0,),
    ) -> Iterator[tuple[Key, Seen | ImageError, Any]]:
        """See ``Encoder.run``.

        Args:
            scales: of the photo as it is seen; ``function`` gets the first, and the others in ``Dense.others``, all
                computed in the one program.
        """
        program = function, tuple(scales)
        if program not in self._programs:
            self._programs[program] = self.extractor.compiled(self._program(*program))
        params = {"extractor": self.extractor.params, "arguments": arguments}
        for key, photo, row in self.extractor.run(self._programs[program], params, photos):
            if isinstance(photo, ImageError):
                yield key, photo, None
            else:
                yield key, Seen(photo.pixels, _height_width(photo.pixels), photo.original_size), row

    def _program(self, function: Function, scales: tuple[float, ...]) -> Callable[[Any, Array, Array], Any]:
        def program(params: Any, images: Array, valid_hw: Array) -> Any:
            def dense(scale: float) -> Dense:
                resized, resized_hw = pyramid.resize(images, valid_hw, scale)
                maps = self.extractor.dense(params["extractor"], resized, resized_hw, last=self.layer)[self.layer]
                cells_hw = self.extractor.map_size(resized_hw, self.layer)
                return Dense(maps, cells_hw, valid_hw, (images.shape[1], images.shape[2]))

            first, *others = map(dense, scales)
            return function(params["arguments"], first._replace(others=tuple(others)))

        return program


class CallableEncoder:
    """Any function from images to feature maps: uint8 [B, size, size, 3] RGB -> float [B, h, w, C].

    Photos are squashed to size x size, as in the paper's protocol. The function may be JAX, PyTorch or anything else
    that NumPy can read; it does its own normalisation.
    """

    def __init__(
        self, function: Callable[[np.ndarray], Any], *, name: str, size: int = 224, batch_size: int = 8
    ) -> None:
        self.function = function
        self.size = size
        self.batch_size = batch_size
        self.description: Mapping[str, Any] = {"kind": "callable", "name": name, "size": size}

    def run(
        self, function: Function, arguments: Any, photos: Iterable[tuple[Key, Source]]
    ) -> Iterator[tuple[Key, Seen | ImageError, Any]]:
        """See ``Encoder.run``."""
        iterator = iter(photos)
        while group := list(itertools.islice(iterator, self.batch_size)):
            batch: list[tuple[Key, Seen]] = []
            squashed: list[np.ndarray] = []
            for key, source in group:
                try:
                    photo = load_photo(source, max_side=None)
                except ImageError as error:
                    yield key, error, None
                    continue
                squashed.append(squash(photo.pixels, self.size))
                batch.append((key, Seen(squashed[-1], (self.size, self.size), photo.original_size)))
            if not batch:
                continue
            images = np.stack(squashed)
            missing = self.batch_size - len(batch)
            features = np.asarray(self.function(np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))))
            if features.ndim != 4 or len(features) != self.batch_size:
                raise PredictorError(
                    f"the encoder gave an array of shape {features.shape} for {self.batch_size} images; "
                    "it must be [B, h, w, C]"
                )
            cells = np.tile(np.array(features.shape[1:3], np.int32), (self.batch_size, 1))
            sizes = np.full((self.batch_size, 2), self.size, np.int32)
            output = _jitted(function, arguments, features, cells, sizes, canvas=(self.size, self.size))
            for row, (key, seen) in enumerate(batch):
                yield key, seen, jax.tree.map(lambda array, row=row: np.asarray(array[row]), output)


class MapEncoder:
    """Feature maps that were computed elsewhere: float arrays [h, w, C], paths of .npy files, or (array, (H, W)) pairs.

    Without (H, W), the size of the original photo, boxes are in cells of the map.
    """

    def __init__(self, *, name: str = "maps") -> None:
        self.description: Mapping[str, Any] = {"kind": "maps", "name": name}

    def run(
        self, function: Function, arguments: Any, photos: Iterable[tuple[Key, Source]]
    ) -> Iterator[tuple[Key, Seen | ImageError, Any]]:
        """See ``Encoder.run``."""
        for key, source in photos:
            try:
                dense, size = read_map(source)
            except ImageError as error:
                yield key, error, None
                continue
            h, w, _ = dense.shape
            size = size or (h, w)
            # Padded to multiples of eight cells and 32 pixels, so that maps of many sizes share a few programs.
            padded = np.pad(dense, ((0, -h % 8), (0, -w % 8), (0, 0)))
            canvas = (size[0] + -size[0] % 32, size[1] + -size[1] % 32)
            cells, sizes = np.array([[h, w]], np.int32), np.array([size], np.int32)
            output = _jitted(function, arguments, padded[None], cells, sizes, canvas=canvas)
            yield key, Seen(None, size, size), jax.tree.map(lambda array: np.asarray(array[0]), output)


def read_map(source: Source) -> tuple[Float[np.ndarray, "h w c"], tuple[int, int] | None]:
    """A feature map in float32 and the size of its photo, if that was given.

    Raises:
        ImageError: not a float array [h, w, C], empty, or with NaN or infinity in it.
    """
    size = None
    if isinstance(source, tuple):
        source, size = source
    name = "feature map" if isinstance(source, np.ndarray) else os.fspath(source)
    if not isinstance(source, np.ndarray):
        try:
            source = np.load(source, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ImageError(name, f"not a readable .npy file ({error})") from error
    if not isinstance(source, np.ndarray) or source.ndim != 3 or not np.issubdtype(source.dtype, np.floating):
        raise ImageError(name, "not a feature map; save a float array [h, w, C]")
    if not source.size or not np.isfinite(source).all():
        raise ImageError(name, "its features are none, or hold NaN or infinity; compute them again")
    return source.astype(np.float32), size


def squash(pixels: np.ndarray, size: int) -> np.ndarray:
    """The photo in size x size pixels, aspect ignored, as the official protocol's Resize((size, size))."""
    shrinks = pixels.shape[0] * pixels.shape[1] > size * size
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def as_encoder(encoder: Any, photos_are_maps: bool = False) -> Encoder:
    """An ``Encoder`` out of what callers may give: one, an Extractor, or None for the packaged conv5 (or for maps)."""
    if encoder is None:
        return MapEncoder() if photos_are_maps else default_encoder()
    if isinstance(encoder, Extractor):
        return ExtractorEncoder(encoder)
    if not hasattr(encoder, "run"):
        raise PredictorError(
            f"{type(encoder).__name__} is not an encoder; "
            "wrap a function in localization.CallableEncoder(function, name=...)"
        )
    return encoder


def as_named_photos(photos: Photos, encoder: Any) -> tuple[Iterator[tuple[str, Source]], Encoder]:
    """(name, photo) pairs, read as they are needed, and the encoder that suits them."""
    named = _named(photos)
    start = list(itertools.islice(named, 1))
    return itertools.chain(start, named), as_encoder(encoder, photos_are_maps=bool(start) and _is_map(start[0][1]))


def _named(photos: Photos) -> Iterator[tuple[str, Source]]:
    if isinstance(photos, Mapping):
        yield from photos.items()
        return
    for number, source in enumerate(photos):
        yield (os.fspath(source) if isinstance(source, str | os.PathLike) else f"photo {number}"), source


def _is_map(source: Source) -> bool:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source).endswith(".npy")
    return isinstance(source, tuple) or (isinstance(source, np.ndarray) and np.issubdtype(source.dtype, np.floating))


def _height_width(pixels: np.ndarray) -> tuple[int, int]:
    return pixels.shape[0], pixels.shape[1]


def default_encoder(layer: str = "conv5", *, max_side: int = 448) -> ExtractorEncoder:
    """The packaged ResNet-50: ``layer`` at stride 16 (conv4) or 32 (conv5), photos reduced to ``max_side`` pixels."""
    return backbone_encoder("delf-r50", layer=layer, max_side=max_side)


def backbone_encoder(
    model: str | os.PathLike[str],
    *,
    layer: str | None = None,
    max_side: int = 448,
    conv5_stride: Literal[1, 2] | None = None,
) -> ExtractorEncoder:
    """A network from a model file: ResNet, VGG or a vision transformer, as ``pack_backbone`` wrote it.

    Args:
        model: the file, or the name of a packaged model.
        layer: a named map; None for the deepest: conv5 of a ResNet, pool5 of a VGG, the positive part of a vision
            transformer's patch tokens.
        max_side: photos are reduced to this longest side in pixels.
        conv5_stride: 1 keeps conv5 as fine as conv4: stride 16 of a ResNet, 8 of a VGG, as the official code has it
            (a ResNet on fine-grained sets keeps 2). None is what the weights were trained with.

    Raises:
        ModelError: the file is missing, damaged or no backbone.
        PredictorError: it has no such map.
    """
    extractor = delf_jax.load(model, head=Head(), scorer="norm", max_side=max_side, conv5_stride=conv5_stride)
    return ExtractorEncoder(extractor, layer=layer)


def run_at_scales(
    encoder: Encoder,
    function: Function,
    arguments: Any,
    photos: Iterable[tuple[Key, Source]],
    scales: Sequence[float],
) -> Iterator[tuple[Key, Seen | ImageError, Any]]:
    """``encoder.run`` with photos seen at several scales.

    Raises:
        PredictorError: scales that are not positive, or an encoder that sees photos at one size only.
    """
    if not scales or not all(0 < scale <= 4 for scale in scales):
        raise PredictorError(f"map scales are {tuple(scales)}; give one or more, each above 0 and at most 4")
    if isinstance(encoder, ExtractorEncoder):
        return encoder.run(function, arguments, photos, scales=scales)
    if tuple(scales) != (1.0,):
        raise PredictorError("this encoder sees photos at one size only; leave the map scales at 1")
    return encoder.run(function, arguments, photos)


def open_encoder(description: Mapping[str, Any], *, batch_size: int | None = None) -> Encoder:
    """The encoder that a saved description names, for batches as in ``delf_jax.load``.

    Raises:
        PredictorError: it was a function, which only its owner can give again.
    """
    if description.get("kind") == "extractor":
        return ExtractorEncoder.from_description(description, batch_size=batch_size)
    if description.get("kind") == "maps":
        return MapEncoder(name=description["name"])
    raise PredictorError(
        f"this predictor was fitted on the function {description.get('name')!r}; give it again with encoder="
    )


def _jit(function: Function, arguments: Any, features: Any, cells: Any, sizes: Any, canvas: tuple[int, int]) -> Any:
    return function(arguments, Dense(jnp.asarray(features), cells, sizes, canvas))


_jitted = jax.jit(_jit, static_argnums=0, static_argnames="canvas")
