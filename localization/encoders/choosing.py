"""Which encoder to use: for what the caller gave, for a model file, or for what a saved predictor describes."""

import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import delf_jax
from delf_jax.errors import PredictorError
from delf_jax.extraction.head import Head
from delf_jax.extractor import Extractor
from localization.encoders.base import Encoder, Photos, Source
from localization.encoders.extractor_encoder import ExtractorEncoder
from localization.encoders.map_encoder import MapEncoder, is_map


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
    """A network from a model file that ``pack_backbone`` wrote: ResNet, VGG or a vision transformer.

    Args:
        model: the file, or the name of a packaged model.
        layer: name of a map; None for the deepest: conv5 of a ResNet, pool5 of a VGG, the patch tokens of a vision
            transformer after a ReLU.
        max_side: photos are reduced to this longest side in pixels.
        conv5_stride: 1 computes conv5 at the stride of conv4: 16 pixels of a ResNet, 8 of a VGG, as in the official
            code (which keeps 2 for ResNets on fine-grained data sets). None is what the weights were trained with.

    Raises:
        ModelError: the file is missing or damaged, or is not a backbone.
        PredictorError: the network has no such map.
    """
    extractor = delf_jax.load(model, head=Head(), scorer="norm", max_side=max_side, conv5_stride=conv5_stride)
    return ExtractorEncoder(extractor, layer=layer)


def as_encoder(encoder: Any, *, photos_are_maps: bool = False) -> Encoder:
    """The ``Encoder`` for what a caller gave.

    Args:
        encoder: an encoder; an Extractor, for its deepest map; or None for the packaged conv5.
        photos_are_maps: None then means a ``MapEncoder``.

    Raises:
        PredictorError: neither an encoder nor an extractor.
    """
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
    """(name, photo) pairs, which are read one by one, and the encoder for them; ``encoder`` as in ``as_encoder``."""
    named = _named(photos)
    start = list(itertools.islice(named, 1))
    are_maps = bool(start) and is_map(start[0][1])
    return itertools.chain(start, named), as_encoder(encoder, photos_are_maps=are_maps)


def _named(photos: Photos) -> Iterator[tuple[str, Source]]:
    if isinstance(photos, Mapping):
        yield from photos.items()
        return
    for number, source in enumerate(photos):
        yield (os.fspath(source) if isinstance(source, str | os.PathLike) else f"photo {number}"), source


def open_encoder(description: Mapping[str, Any], *, batch_size: int | None = None) -> Encoder:
    """The encoder that a saved description names; ``batch_size`` as in ``delf_jax.load``.

    Raises:
        PredictorError: it was a function of the caller, which cannot be saved.
    """
    if description.get("kind") == "extractor":
        return ExtractorEncoder.from_description(description, batch_size=batch_size)
    if description.get("kind") == "maps":
        return MapEncoder(name=description["name"])
    name = description.get("name", "of its caller")
    raise PredictorError(f"this predictor was fitted on the function {name}; give it again with encoder=")
