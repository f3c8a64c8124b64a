"""Dense features of a delf-jax extractor, at one or several scales of the photo."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Int

import delf_jax
from delf_jax import loading
from delf_jax.errors import ImageError, PredictorError
from delf_jax.extraction.head import Head
from delf_jax.extraction.program import dense_levels
from delf_jax.extraction.pyramid import scaled_size
from delf_jax.extractor import Extractor
from delf_jax.files import model_file
from delf_jax.models.receptive_field import cell_offset, receptive_field
from localization.encoders.base import DenseFeatures, DenseFunction, EncodedPhoto, Encoder, Key, Source
from localization.grid import Grid


class ExtractorEncoder:
    """One named feature map of an extractor, computed by a compiled program that runs on all of its devices.

    Args:
        extractor: from ``delf_jax.load``.
        layer: name of the map; None for the deepest.

    Raises:
        PredictorError: the extractor has no map of this name.
    """

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
            # Left out if the stride is that of the weights: predictors of version 0.1 do not have this entry.
            **({"conv5_stride": settings.conv5_stride} if settings.conv5_stride else {}),
        }
        self._programs: dict[tuple[DenseFunction, tuple[float, ...]], Any] = {}

    @classmethod
    def from_description(cls, description: Mapping[str, Any], *, batch_size: int | None = None) -> "ExtractorEncoder":
        """Loads the extractor that ``description`` names; ``batch_size`` as in ``delf_jax.load``.

        Raises:
            PredictorError: the model's backbone is not the one that was described.
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
                f"{model}: this backbone is not the one that the predictor was fitted on; fit the predictor again"
            )
        return encoder

    def run(
        self,
        function: DenseFunction,
        arguments: Any,
        photos: Iterable[tuple[Key, Source]],
        *,
        scales: Sequence[float] = (1.0,),
    ) -> Iterator[tuple[Key, EncodedPhoto | ImageError, Any]]:
        """See ``Encoder.run``.

        Args:
            scales: scales of the photo. ``function`` gets the features at the first one, and those at the others in
                ``DenseFeatures.other_scales``. One program computes all of them.
        """
        program = function, tuple(scales)
        if program not in self._programs:
            self._programs[program] = self.extractor.compiled(self._program(*program))
        params = {"extractor": self.extractor.params, "arguments": arguments}
        for key, photo, row in self.extractor.run(self._programs[program], params, photos):
            if isinstance(photo, ImageError):
                yield key, photo, None
            else:
                height, width = photo.pixels.shape[:2]
                yield key, EncodedPhoto(photo.pixels, (height, width), photo.original_size), row

    def _program(self, function: DenseFunction, scales: tuple[float, ...]) -> Callable[[Any, Array, Array], Any]:
        def program(params: Any, images: Array, valid_hw: Array) -> Any:
            levels = dense_levels(
                params["extractor"], images, valid_hw, config=self.extractor.config, name=self.layer, scales=scales
            )
            canvas = images.shape[1], images.shape[2]
            dense = []
            for level, scale in zip(levels, scales):
                seen = scaled_size(valid_hw, scale)
                grid = layer_grid(self.extractor, self.layer, seen).resized(seen, valid_hw)
                dense.append(DenseFeatures(level.features, level.size, grid, valid_hw, canvas))
            return function(params["arguments"], dense[0]._replace(other_scales=tuple(dense[1:])))

        return program


def layer_grid(extractor: Extractor, layer: str, size: Int[Any, "*b 2"]) -> Grid:
    """Where the receptive fields of a layer lie in photos that its network sees at ``size`` (height, width)."""
    network = extractor.config.backbone.network
    first = cell_offset(network, layer, size)
    return Grid(first, np.float32(receptive_field(network, layer).stride) * np.ones(2, np.float32))


def run_at_scales(
    encoder: Encoder,
    function: DenseFunction,
    arguments: Any,
    photos: Iterable[tuple[Key, Source]],
    scales: Sequence[float],
) -> Iterator[tuple[Key, EncodedPhoto | ImageError, Any]]:
    """``encoder.run`` with each photo at several scales.

    Raises:
        PredictorError: a scale is not above 0 and at most 4, or the encoder has one size of photo only.
    """
    if not scales or not all(0 < scale <= 4 for scale in scales):
        shown = ", ".join(map(str, scales)) or "empty"
        raise PredictorError(f"map scales are {shown}; give one or more, each above 0 and at most 4")
    if isinstance(encoder, ExtractorEncoder):
        return encoder.run(function, arguments, photos, scales=scales)
    if tuple(scales) != (1.0,):
        raise PredictorError("this encoder sees photos at one size only; leave the map scales at 1")
    return encoder.run(function, arguments, photos)
