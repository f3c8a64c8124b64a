"""The extractor: runs the extraction program over photos, on all devices, and returns features in original pixels.

The program itself, pure functions of arrays, is ``delf_jax.extraction.program``.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Num

from delf_jax.compiling import compiler_options, compiling_for
from delf_jax.errors import ImageError
from delf_jax.extraction import program
from delf_jax.extraction.head import Head
from delf_jax.extraction.program import Params, ProgramConfig
from delf_jax.features import LocalFeatures
from delf_jax.models import receptive_field
from delf_jax.models.backbone import BackboneConfig
from delf_jax.photos import batching
from delf_jax.photos.buckets import default_buckets
from delf_jax.photos.load import Photo, Source
from delf_jax.photos.meter import Meter
from delf_jax.settings import ExtractionSettings

Key = TypeVar("Key", bound=Hashable)


class Extractor:
    """Turns photos into local features, with a fixed batch size and few compiled programs.

    ``extractor(photos)`` is the simple call, ``stream`` is the one for any number of photos in bounded memory.
    ``apply`` and ``dense`` are pure functions for callers that bring their own ``jit``, ``vmap``, ``grad`` or sharding.

    Attributes:
        params: the arrays, a pytree; a copy on every device.
        config: what the program computes; see ``delf_jax.extraction.program``.
        settings: the part of ``config`` that users choose.
        head: what is trained on top of the backbone.
        fingerprint: a digest of all weights.
        devices: the devices that share each batch.
        batch_size: photos that a compiled program takes at once.
        buckets: canvas sizes (height, width); one program is compiled for each that is used.
        meter: seconds of decoding and computing, over everything that this extractor ran.
    """

    def __init__(
        self,
        backbone: BackboneConfig,
        backbone_params: Params,
        head: Head,
        settings: ExtractionSettings,
        *,
        fingerprint: str,
        batch_size: int | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        head.require(settings.scorer, name=settings.model)
        self.config = ProgramConfig(backbone, settings, head.layer)
        self.settings = settings
        self.head = head
        self.fingerprint = fingerprint
        self.meter = Meter()
        self.devices = tuple(devices or jax.local_devices())
        self.batch_size = _batch_size(batch_size, self.devices)
        self.buckets = default_buckets(settings.max_side)
        self._mesh = Mesh(np.array(self.devices), ("batch",))
        arrays = {"backbone": backbone_params, "head": head.arrays()}
        self.params: Params = jax.device_put(arrays, NamedSharding(self._mesh, P()))
        self._program = self.compiled(self.apply)

    @property
    def map_names(self) -> tuple[str, ...]:
        """The named maps of the backbone, the deepest one last."""
        return self.config.backbone.map_names

    @property
    def dimension(self) -> int:
        """Length of a descriptor."""
        return self.head.dimension or self.config.backbone.channels(self.head.layer)

    def __call__(self, images: Iterable[Source]) -> list[LocalFeatures]:
        """Local features of each photo, in input order.

        Args:
            images: paths, fsspec addresses, bytes of photo files, or uint8 arrays [h, w, 3] (RGB).

        Raises:
            ImageError: names the first photo that cannot be used.
        """
        results: dict[int, LocalFeatures] = {}
        for position, features, _ in self.stream(enumerate(images)):
            if isinstance(features, ImageError):
                raise features
            results[position] = features
        return [results[position] for position in range(len(results))]

    def stream(
        self, items: Iterable[tuple[Key, Source]], *, workers: int | None = None
    ) -> Iterator[tuple[Key, LocalFeatures | ImageError, str | None]]:
        """Local features of a stream of photos, out of order, in bounded memory.

        Threads decode photos ahead of the device, and up to two programs run at once. Contexts of JAX such as
        ``jax.default_matmul_precision`` do not reach these threads; ``jax.config.update`` does.

        Args:
            items: (key, photo) pairs; the keys come back with the results.
            workers: number of decoding threads; None for one per core, at most 16.

        Yields:
            (key, features, sha256 of the file or None for an array), or (key, ImageError, None) for a photo that
            cannot be used.
        """
        for key, photo, row in self.run(self._program, self.params, items, workers=workers):
            if isinstance(photo, ImageError):
                yield key, photo, None
            else:
                features = _to_original(row, photo.original_size, photo.pixels.shape[:2])
                calibration = self.head.calibration(self.settings, self.fingerprint)
                threshold = self.head.log10_nfa_threshold
                if calibration is not None:
                    threshold = calibration.threshold(features=len(features))
                yield key, dataclasses.replace(features, log10_nfa_threshold=threshold), photo.content_hash

    def dense_stream(
        self,
        items: Iterable[tuple[Key, Source]],
        *,
        name: str = "conv4",
        scales: Sequence[float] = (1.0,),
        workers: int | None = None,
    ) -> Iterator[tuple[Key, list[tuple[Float[np.ndarray, "h w c"], Bool[np.ndarray, "h w"]]] | ImageError]]:
        """One named map of every photo at every scale, without padding, for fitting on the host.

        Args:
            items, workers: as in ``stream``.
            name: which map.
            scales: relative to the reduced photo.

        Yields:
            (key, [(map float32 [h, w, C], usable bool [h, w]) for each scale]), or (key, ImageError). A cell is usable
            where the photo varies and is not a constant frame.
        """
        levels = functools.partial(program.dense_levels, config=self.config, name=name, scales=tuple(scales))
        for key, photo, row in self.run(self.compiled(levels), self.params, items, workers=workers):
            if isinstance(photo, ImageError):
                yield key, photo
            else:
                sizes = [(int(height), int(width)) for height, width in (level.size for level in row)]
                yield key, [(level.features[:h, :w], level.usable[:h, :w]) for level, (h, w) in zip(row, sizes)]

    def compiled(self, function: Callable[[Any, Array, Array], Any]) -> Any:
        """A pure ``function(params, images, valid_hw)``, jitted and sharded: each device computes its rows of a batch.

        Every output needs the batch as its leading axis; no device waits for another. A program is compiled for each
        size of canvas.
        """
        return jax.jit(
            jax.shard_map(function, mesh=self._mesh, in_specs=(P(), P("batch"), P("batch")), out_specs=P("batch")),
            compiler_options=compiler_options(self.devices[0].platform),
        )

    def run(
        self,
        program: Callable[[Any, Any, Any], Any],
        params: Any,
        items: Iterable[tuple[Key, Source]],
        *,
        workers: int | None = None,
    ) -> Iterator[tuple[Key, Photo | ImageError, Any]]:
        """Runs a program from ``compiled`` over a stream of photos, out of order, in bounded memory.

        Yields:
            (key, the reduced photo, its row of the output in NumPy), or (key, ImageError, None).
        """
        plan = batching.Plan(
            self.buckets, self.batch_size, self.settings.max_side, NamedSharding(self._mesh, P("batch"))
        )
        return batching.run(program, params, items, plan, workers=workers, meter=self.meter)

    def apply(
        self, params: Params, images: Num[Array | np.ndarray, "b H W 3"], valid_hw: Int[Array | np.ndarray, "b 2"]
    ) -> LocalFeatures:
        """Local features of a padded batch; pure: ``jit``, ``vmap`` and shard it as you like.

        Args:
            params: ``extractor.params`` or a pytree of the same structure.
            images: RGB, uint8 or float32 in 0-255, [B, H, W, 3]; photos in the top-left corners.
            valid_hw: int32 [B, 2], (height, width) of each photo; (0, 0) marks an empty row.

        Returns:
            LocalFeatures with leading axes [B, K], K = ``settings.max_features``; keypoints and scales relative to the
            given images; ``valid`` [B, K] is False on rows without a feature, which are zero.
        """
        return program.extract(params, images, valid_hw, config=self.config)

    def dense(
        self,
        params: Params,
        images: Num[Array | np.ndarray, "b H W 3"],
        valid_hw: Int[Array | np.ndarray, "b 2"],
        *,
        last: str | None = None,
    ) -> dict[str, Float[Array, "b _h _w _c"]]:
        """The named feature maps of a padded batch at its own size; pure and differentiable.

        Args:
            params, images, valid_hw: as in ``apply``.
            last: the deepest map wanted; layers behind it are not computed. None for all maps.

        Returns:
            The maps up to ``last`` in the order of ``map_names``, float32 or bfloat16 as ``settings.precision`` says,
            [B, h, w, C], zero outside each photo.
        """
        return program.dense_maps(params, images, valid_hw, config=self.config, last=last)

    @property
    def compiled_programs(self) -> int:
        """How many programs ``__call__`` and ``stream`` have compiled so far: one for each bucket used."""
        return self._program._cache_size()

    def compile(self, canvas: tuple[int, int]) -> None:
        """Compiles the program for a canvas (height, width), or loads it from JAX's cache on disk."""
        with compiling_for(f"{canvas[0]}x{canvas[1]}"):
            self.lower((self.batch_size, *canvas, 3)).compile()

    def lower(self, shape: tuple[int, int, int, int]) -> jax.stages.Lowered:
        """The sharded program for batches of ``shape`` [B, H, W, 3], lowered but not compiled: for inspection."""
        sharding = NamedSharding(self._mesh, P("batch"))
        images = jax.ShapeDtypeStruct(shape, np.uint8, sharding=sharding)
        valid_hw = jax.ShapeDtypeStruct((shape[0], 2), np.int32, sharding=sharding)
        return self._program.lower(self.params, images, valid_hw)

    def map_size(self, valid_hw: Any, name: str) -> Any:
        """Cells (height, width) of a named map that photos of size ``valid_hw`` [..., 2] fill; NumPy or traced."""
        return self.config.backbone.map_size(valid_hw, name)

    def cell_centres(
        self, valid_hw: Int[Array | np.ndarray, "b 2"], name: str, height: int, width: int
    ) -> Float[Array, "b h w 2"]:
        """(x, y) of the centres of all cells of a [height, width] map, in pixels of photos of size ``valid_hw``."""
        return receptive_field.cell_centres(self.config.backbone.network, name, valid_hw, (height, width))


def _batch_size(requested: int | None, devices: Sequence[jax.Device]) -> int:
    """A multiple of the number of devices; by default one photo for each CPU device and eight for each accelerator."""
    if requested is None:
        requested = len(devices) * (1 if devices[0].platform == "cpu" else 8)
    if requested < 1:
        raise ValueError(f"batch_size is {requested}; it must be at least 1")
    return -(-requested // len(devices)) * len(devices)


def _to_original(row: LocalFeatures, original_size: tuple[int, int], size: tuple[int, ...]) -> LocalFeatures:
    """The valid rows of one photo, in pixels of the original photo instead of the reduced one."""
    valid = row.valid
    ratio = np.array([original_size[1] / size[1], original_size[0] / size[0]], np.float32)
    keypoints = (row.keypoints[valid] + np.float32(0.5)) * ratio - np.float32(0.5)
    return LocalFeatures(
        keypoints=keypoints.astype(np.float32),
        scales=(row.scales[valid] / np.sqrt(ratio.prod())).astype(np.float32),
        scores=row.scores[valid],
        descriptors=row.descriptors[valid],
        image_size=(int(original_size[0]), int(original_size[1])),
        domain=row.domain and row.domain.placed(ratio),
    )
