"""Photo -> local features: pyramid, backbone, attention, top-k over scales, PCA and normalisation in one program."""

import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Num

from delf_jax.compiling import compiler_options
from delf_jax.errors import ImageError
from delf_jax.extraction import attention
from delf_jax.extraction import keypoints as selection
from delf_jax.extraction.descriptors import describe
from delf_jax.extraction.head import Head
from delf_jax.extraction.pyramid import content_box, resize, scaled_size
from delf_jax.features import LocalFeatures
from delf_jax.models import receptive_field
from delf_jax.models.architectures import Config, network_of
from delf_jax.models.layers import valid_cells
from delf_jax.photos import batching
from delf_jax.photos.buckets import default_buckets
from delf_jax.photos.load import Photo, Source
from delf_jax.photos.meter import Meter
from delf_jax.settings import ExtractionSettings

Params = Mapping[str, Any]
Key = TypeVar("Key", bound=Hashable)

_SMALLEST_SIDE = 10


class Extractor:
    """Turns photos into local features, a fixed batch and a few compiled programs at a time.

    ``extractor(photos)`` is the simple call, ``stream`` the bounded-memory one; ``apply`` and ``dense`` are the pure
    functions underneath, for callers that bring their own ``jit``, ``vmap``, ``grad`` or sharding.

    Attributes:
        meter: takes the seconds of decoding and computing of everything that runs over photos.
    """

    def __init__(
        self,
        config: Config,
        backbone: Params,
        preprocess: Mapping[str, Sequence[float]],
        head: Head,
        settings: ExtractionSettings,
        *,
        fingerprint: str,
        batch_size: int | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        head.require(settings.scorer, name=settings.model)
        self.settings = settings
        self.head = head
        self.fingerprint = fingerprint
        self.meter = Meter()
        self.devices = tuple(devices or jax.local_devices())
        self.batch_size = _batch_size(batch_size, self.devices)
        self.buckets = default_buckets(settings.max_side)
        self._config = config
        self._network = network_of(config)
        self._mean = np.asarray(preprocess["mean"], np.float32)
        self._std = np.asarray(preprocess["std"], np.float32)
        self._mesh = Mesh(np.array(self.devices), ("batch",))
        self.params: Params = jax.device_put(
            {"backbone": backbone, "head": head.arrays()}, NamedSharding(self._mesh, P())
        )
        self._program = self.compiled(self.apply)

    @property
    def map_names(self) -> tuple[str, ...]:
        """The named maps of the backbone, the deepest one last."""
        names: tuple[str, ...] = self._network.map_names(self._config)
        return names

    @property
    def dimension(self) -> int:
        """Length of a descriptor."""
        return self.head.dimension or self._network.channels(self.head.layer, self._config)

    def __call__(self, images: Iterable[Source]) -> list[LocalFeatures]:
        """Local features of each photo, in input order.

        Args:
            images: paths, fsspec addresses or uint8 arrays [h, w, 3] (RGB).

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
        """Features of a stream of photos, out of order, in bounded memory.

        Photos are decoded by ``workers`` threads ahead of the device, and a batch is read back while the next two run:
        memory holds the temporary arrays of two programs. Contexts of JAX such as ``jax.default_matmul_precision`` do
        not reach the threads that call them; ``jax.config.update`` does.

        Args:
            items: (key, photo) pairs; keys come back with the results.
            workers: decoding threads; None for one a core, at most 16.

        Yields:
            (key, features or the ImageError that explains why there are none, content hash of the file or None).
        """
        for key, photo, row in self.run(self._program, self.params, items, workers=workers):
            if isinstance(photo, ImageError):
                yield key, photo, None
            else:
                yield key, _to_original(row, photo.original_size, photo.pixels.shape[:2]), photo.content_hash

    def dense_stream(
        self,
        items: Iterable[tuple[Key, Source]],
        *,
        name: str = "conv4",
        scales: Sequence[float] = (1.0,),
        workers: int | None = None,
    ) -> Iterator[tuple[Key, list[tuple[Float[np.ndarray, "h w c"], Bool[np.ndarray, "h w"]]] | ImageError]]:
        """One named map of every photo at every scale, cut to the photo's own size, for fitting on the host.

        Yields:
            (key, [(map float32 [h, w, C], usable bool [h, w]) for each scale] or ImageError). A cell is usable where
            the photo varies and is not a constant frame.
        """
        program = self.compiled(functools.partial(self._dense_scales, name=name, scales=tuple(scales)))
        for key, photo, row in self.run(program, self.params, items, workers=workers):
            if isinstance(photo, ImageError):
                yield key, photo
            else:
                yield key, [(m[: int(h), : int(w)], u[: int(h), : int(w)]) for m, u, (h, w) in row]

    def compiled(self, function: Callable[[Any, Array, Array], Any]) -> Any:
        """A pure ``function(params, images, valid_hw)``, jitted and sharded: each device runs its rows of the batch.

        Every output needs the batch as its leading axis; no device waits for another. One program a canvas.
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
        """Runs what ``compiled`` gave over a stream of photos, out of order, in bounded memory.

        Yields:
            (key, the reduced photo, its row of the output in NumPy), or (key, ImageError, None).
        """
        return batching.run(program, params, items, self._plan(), workers=workers, meter=self.meter)

    def apply(
        self, params: Params, images: Num[Array | np.ndarray, "b H W 3"], valid_hw: Int[Array | np.ndarray, "b 2"]
    ) -> LocalFeatures:
        """Local features of a padded batch; pure, so ``jit``, ``vmap`` and shard it as you like.

        Args:
            params: ``extractor.params`` or a pytree of the same structure.
            images: RGB, uint8 or float32 in 0-255, [B, H, W, 3]; photos in the top-left corners.
            valid_hw: int32 [B, 2], each photo's own (height, width); (0, 0) marks an empty row.

        Returns:
            LocalFeatures with leading axes [B, K], K = ``settings.max_features``; keypoints and scales relative to the
            given images; ``valid`` [B, K] False on padding rows, which are zero.
        """
        settings = self.settings
        images, valid_hw = jnp.asarray(images), jnp.asarray(valid_hw, jnp.int32)
        pixels = images.astype(jnp.float32)
        box = content_box(pixels, valid_hw)
        texture = selection.texture_map(pixels, valid_hw)
        levels = [self._level(params, images, valid_hw, box, texture, scale) for scale in self._usable_scales(images)]
        joined = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *levels)
        best = selection.top_candidates(joined, settings.max_features)
        valid = selection.above(
            best.scores,
            where=jnp.isfinite(best.scores),
            threshold=settings.threshold,
            quantile=settings.quantile,
        )
        descriptors = describe(best.features, params["head"])
        missing = settings.max_features - valid.shape[1]
        features = LocalFeatures(
            keypoints=jnp.where(valid[..., None], best.keypoints, 0),
            scales=jnp.where(valid, best.scales, 0),
            scores=jnp.where(valid, best.scores, 0),
            descriptors=jnp.where(valid[..., None], descriptors, 0),
            image_size=valid_hw,
            valid=valid,
        )
        if missing <= 0:
            return features
        pad = jax.tree.map(lambda a: jnp.pad(a, ((0, 0), (0, missing)) + ((0, 0),) * (a.ndim - 2)), features)
        return LocalFeatures(
            pad.keypoints, pad.scales, pad.scores, pad.descriptors, image_size=valid_hw, valid=pad.valid
        )

    def dense(
        self,
        params: Params,
        images: Num[Array | np.ndarray, "b H W 3"],
        valid_hw: Int[Array | np.ndarray, "b 2"],
        *,
        last: str | None = None,
    ) -> dict[str, Float[Array, "b _h _w _c"]]:
        """The named feature maps of a padded batch at scale 1; pure and differentiable.

        Args:
            params, images, valid_hw: as in ``apply``.
            last: the deepest map wanted; later layers are not computed. None for all maps.

        Returns:
            The maps up to ``last`` in the order of ``map_names``, float32 (or bfloat16) [B, h, w, C], zero outside
            each photo's valid size.
        """
        maps, _ = self._maps(
            params, jnp.asarray(images), jnp.asarray(valid_hw, jnp.int32), 1.0, last or self.map_names[-1]
        )
        return maps

    @property
    def compiled_programs(self) -> int:
        """How many programs ``__call__`` and ``stream`` have compiled so far: one a bucket used."""
        return self._program._cache_size()

    def lower(self, shape: tuple[int, int, int, int]) -> jax.stages.Lowered:
        """The sharded program for batches of ``shape`` [B, H, W, 3], lowered but not compiled: for inspection."""
        sharding = NamedSharding(self._mesh, P("batch"))
        images = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=sharding)
        valid_hw = jax.ShapeDtypeStruct((shape[0], 2), jnp.int32, sharding=sharding)
        return self._program.lower(self.params, images, valid_hw)

    def map_size(self, valid_hw: Any, name: str) -> Any:
        """Valid (height, width) of a named map for photos of size ``valid_hw`` [..., 2]; NumPy or traced."""
        return self._network.map_size(valid_hw, name, self._config)

    def cell_centres(
        self, valid_hw: Int[Array | np.ndarray, "b 2"], name: str, height: int, width: int
    ) -> Float[Array, "b h w 2"]:
        """(x, y) of the receptive field's centre of every cell of a [height, width] map, in pixels of the input."""
        stride = receptive_field.receptive_field(self._config, name).stride
        offset = jnp.asarray(receptive_field.cell_offset(self._config, name, valid_hw), jnp.float32)
        offset = jnp.broadcast_to(offset, (valid_hw.shape[0], 2))
        rows, columns = jnp.arange(height) * stride, jnp.arange(width) * stride
        shape = (valid_hw.shape[0], height, width)
        y = jnp.broadcast_to((offset[:, :1] + rows)[:, :, None], shape)
        x = jnp.broadcast_to((offset[:, 1:] + columns)[:, None, :], shape)
        return jnp.stack([x, y], axis=-1)

    def _maps(
        self, params: Params, images: Array, valid_hw: Array, scale: float, last: str
    ) -> tuple[dict[str, Array], Array]:
        resized, scaled_hw = resize(images, valid_hw, scale)
        normalised = (resized - self._mean) / self._std
        normalised = jnp.where(valid_cells(scaled_hw, *resized.shape[1:3])[..., None], normalised, 0)
        dtype = jnp.bfloat16 if self.settings.precision == "bfloat16" else jnp.float32
        maps = self._network.forward(
            params["backbone"], normalised, scaled_hw, config=self._config, last=last, dtype=dtype
        )
        return maps, scaled_hw

    def _cells(
        self,
        params: Params,
        images: Array,
        valid_hw: Array,
        box: Array,
        texture: Array,
        scale: float,
        name: str,
    ) -> "_Cells":
        """Dense features of one scale, where their cells lie in the given images, and which of them may be used."""
        maps, scaled_hw = self._maps(params, images, valid_hw, scale, name)
        dense = maps[name].astype(jnp.float32)
        batch, height, width, _ = dense.shape
        ratio = (valid_hw / jnp.maximum(scaled_hw, 1))[:, ::-1]
        centres = (self.cell_centres(scaled_hw, name, height, width) + 0.5) * ratio[:, None, None] - 0.5
        usable = valid_cells(self._network.map_size(scaled_hw, name, self._config), height, width)
        usable &= (scaled_hw.min(axis=-1) >= _SMALLEST_SIDE)[:, None, None]
        usable &= ((centres > box[:, None, None, 0]) & (centres < box[:, None, None, 1])).all(axis=-1)
        usable &= selection.is_textured(texture, centres.reshape(batch, -1, 2)).reshape(batch, height, width)
        return _Cells(dense, centres, usable, receptive_field.receptive_field(self._config, name).stride * ratio)

    def _level(
        self, params: Params, images: Array, valid_hw: Array, box: Array, texture: Array, scale: float
    ) -> selection.Candidates:
        """The best places of one scale."""
        dense, centres, usable, pitch = self._cells(params, images, valid_hw, box, texture, scale, self.head.layer)
        batch, height, width, _ = dense.shape
        scores = attention.score(dense, params["head"], self.settings.scorer)
        usable &= scores > 0
        offsets = jnp.zeros((batch, height, width, 2))
        if self.settings.detection == "peaks":
            usable, offsets = selection.peaks(jnp.linalg.norm(dense, axis=-1), where=usable)
        keypoints = centres + offsets[..., ::-1] * pitch[:, None, None]
        if self.settings.detection == "peaks":
            usable &= selection.clear_of_border(keypoints, valid_hw, pitch)
        scores, cells = lax.top_k(
            jnp.where(usable, scores, -jnp.inf).reshape(batch, -1), min(self.settings.max_features, height * width)
        )
        take = jax.vmap(lambda array, rows: array.reshape(-1, 2)[rows])
        positions = jnp.stack([cells // width, cells % width], axis=-1) + take(offsets, cells)
        return selection.Candidates(
            scores=scores,
            keypoints=jnp.clip(take(keypoints, cells), box[:, None, 0], box[:, None, 1]),
            scales=jnp.full(scores.shape, scale, jnp.float32),
            features=selection.sample(dense, positions),
        )

    def _dense_scales(
        self, params: Params, images: Array, valid_hw: Array, *, name: str, scales: tuple[float, ...]
    ) -> list[tuple[Array, Array, Array]]:
        pixels = images.astype(jnp.float32)
        box, texture = content_box(pixels, valid_hw), selection.texture_map(pixels, valid_hw)
        levels = []
        for scale in scales:
            cells = self._cells(params, images, valid_hw, box, texture, scale, name)
            size = self._network.map_size(scaled_size(valid_hw, scale), name, self._config)
            levels.append((cells.dense, cells.usable, size))
        return levels

    def _usable_scales(self, images: Array) -> list[float]:
        """Scales at which the canvas is large enough to hold a feature at all."""
        longest = max(images.shape[1:3])
        usable = [s for s in self.settings.scales if longest * s >= _SMALLEST_SIDE]
        return usable or [max(self.settings.scales)]

    def _plan(self) -> batching.Plan:
        return batching.Plan(
            self.buckets, self.batch_size, self.settings.max_side, NamedSharding(self._mesh, P("batch"))
        )


class _Cells(NamedTuple):
    """One map of one scale: its features, cell centres (x, y), usable cells, and the pixels (x, y) between cells."""

    dense: Float[Array, "b h w c"]
    centres: Float[Array, "b h w 2"]
    usable: Bool[Array, "b h w"]
    pitch: Float[Array, "b 2"]


def _batch_size(asked: int | None, devices: Sequence[jax.Device]) -> int:
    """A multiple of the devices; by default one photo a CPU device and eight an accelerator."""
    if asked is None:
        asked = len(devices) * (1 if devices[0].platform == "cpu" else 8)
    if asked < 1:
        raise ValueError(f"batch_size is {asked}; it must be at least 1")
    return -(-asked // len(devices)) * len(devices)


def _to_original(row: LocalFeatures, original_size: tuple[int, int], size: tuple[int, ...]) -> LocalFeatures:
    """Valid rows of one photo, in pixels of the original instead of the reduced photo."""
    valid = row.valid
    ratio = np.array([original_size[1] / size[1], original_size[0] / size[0]], np.float32)
    keypoints = (row.keypoints[valid] + np.float32(0.5)) * ratio - np.float32(0.5)
    return LocalFeatures(
        keypoints=keypoints.astype(np.float32),
        scales=(row.scales[valid] / np.sqrt(ratio.prod())).astype(np.float32),
        scores=row.scores[valid],
        descriptors=row.descriptors[valid],
        image_size=(int(original_size[0]), int(original_size[1])),
    )
