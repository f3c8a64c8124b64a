"""The programs that ``benchmarks.accelerators`` compiles, each as a pure function and the arrays that it takes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import delf_jax
from delf_jax.settings import DEFAULT_SCALES, Precision
from localization.encoders.base import DenseFeatures
from localization.grid import equal_patches
from localization.localizing import map_in_pixels
from retrieval.nearest import QUERIES, ROWS, top_neighbours
from retrieval.verification import ransac
from retrieval.verification.transforms import Model

Kind = Literal["extract", "dense", "ransac", "search", "maps"]

SCALES: dict[int, tuple[float, ...]] = {1: (1.0,), 5: DEFAULT_SCALES, 7: (0.25, 0.3536, *DEFAULT_SCALES)}

# A query's candidates, each verified from both sides, and the matches of each.
_CANDIDATES, _MATCHES, _TRIALS = 100, 256, 4000
_DESCRIPTORS, _DIMENSION, _NEIGHBOURS = 1_000_000, 128, 60


@dataclasses.dataclass(frozen=True)
class Case:
    """What is compiled.

    Attributes:
        program: extraction, dense maps, RANSAC, exact search, or maps of w* from dense features.
        size: (height, width) of the photos.
        scales: how many; a key of ``SCALES``.
        precision: of the network.
        batch: photos (candidates, queries) for one device at once.
        layer: the deepest map.
        model: kind of transform.
    """

    program: Kind
    size: tuple[int, int] = (480, 640)
    scales: int = 1
    precision: Precision = "bfloat16"
    batch: int = 8
    layer: str = "conv4"
    model: Model = "affine"

    def described(self) -> dict[str, Any]:
        """What of it matters for its program."""
        photos = {"size": "x".join(map(str, self.size)), "batch": self.batch}
        fields: dict[Kind, dict[str, Any]] = {
            "extract": {**photos, "scales": self.scales, "precision": self.precision},
            "dense": {**photos, "layer": self.layer, "precision": self.precision},
            "ransac": {"model": self.model, "batch": _CANDIDATES, "matches": _MATCHES, "trials": _TRIALS},
            "search": {"batch": QUERIES, "descriptors": _DESCRIPTORS, "neighbours": _NEIGHBOURS},
            "maps": {**photos, "layer": self.layer},
        }
        return {"program": self.program, **fields[self.program]}


class Array(NamedTuple):
    """An array that a program takes: uniform random numbers.

    Attributes:
        shape, dtype: of the whole array.
        low, high: of its numbers; equal if it is constant.
        shared: whether its rows are divided among the devices.
    """

    shape: tuple[int, ...]
    dtype: Any
    low: Any = 0
    high: Any = 1
    shared: bool = True


class Program(NamedTuple):
    """A jitted function, and its arguments as a pytree of ``Array`` and of arrays to copy to every device.

    Attributes:
        function: what is compiled.
        arguments: its arguments.
        devices: those that it runs on.
        unit: what ``Case.batch`` counts.
        batch: how many of them one device has at once.
    """

    function: Any
    arguments: tuple[Any, ...]
    devices: Sequence[jax.Device]
    unit: str
    batch: int

    def abstract(self) -> tuple[Any, ...]:
        """The arguments as shapes, to compile without them."""

        def shaped(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return self._placed(shaped)

    def concrete(self) -> tuple[Any, ...]:
        """The arguments on the devices."""
        generator = np.random.default_rng(0)

        def filled(leaf: Any, sharding: NamedSharding) -> jax.Array:
            if isinstance(leaf, Array):
                numbers = generator.random(leaf.shape, np.float32)
                leaf = (leaf.low + numbers * (np.asarray(leaf.high) - leaf.low)).astype(leaf.dtype)
            return jax.device_put(leaf, sharding)

        return self._placed(filled)

    def _placed(self, place: Callable[[Any, NamedSharding], Any]) -> tuple[Any, ...]:
        mesh = Mesh(np.array(self.devices), ("batch",))
        everywhere, rows = NamedSharding(mesh, P()), NamedSharding(mesh, P("batch"))
        placed: tuple[Any, ...] = jax.tree.map(
            lambda leaf: place(leaf, rows if isinstance(leaf, Array) and leaf.shared else everywhere),
            self.arguments,
            is_leaf=lambda leaf: isinstance(leaf, Array),
        )
        return placed


def program(case: Case, devices: Sequence[jax.Device]) -> Program:
    """The program of a case; photos are divided among all devices, and everything else runs on the first."""
    if case.program in ("extract", "dense"):
        return _network(case, devices)
    make = {"ransac": _ransac, "search": _search, "maps": _maps}[case.program]
    return make(case, devices[:1])


def _network(case: Case, devices: Sequence[jax.Device]) -> Program:
    extractor = delf_jax.load(scales=SCALES[case.scales], precision=case.precision, batch_size=1)
    mesh = Mesh(np.array(devices), ("batch",))

    def dense(params: Any, images: Any, valid_hw: Any) -> Any:
        return extractor.dense(params, images, valid_hw, last=case.layer)[case.layer]

    function = jax.shard_map(
        extractor.apply if case.program == "extract" else dense,
        mesh=mesh,
        in_specs=(P(), P("batch"), P("batch")),
        out_specs=P("batch"),
    )
    photos = case.batch * len(devices)
    images = Array((photos, *case.size, 3), np.uint8, high=255)
    sizes = Array((photos, 2), np.int32, low=case.size, high=case.size)
    return Program(jax.jit(function), (extractor.params, images, sizes), devices, "photos", case.batch)


def _ransac(case: Case, devices: Sequence[jax.Device]) -> Program:
    def verify(src: Any, dst: Any, mask: Any, scales: Any, seed: Any) -> Any:
        return ransac.estimate(
            src, dst, mask, key=jax.random.key(seed), model=case.model, scales=scales, trials=_TRIALS
        )

    points = Array((_CANDIDATES, _MATCHES, 2), np.float32, high=1000)
    mask = Array((_CANDIDATES, _MATCHES), np.bool_, low=1)
    scales = Array((_CANDIDATES, _MATCHES), np.float32, low=0.5, high=2)
    arguments = points, points, mask, (scales, scales), np.uint32(0)
    return Program(jax.jit(verify), arguments, devices, "candidates", _CANDIDATES)


def _search(case: Case, devices: Sequence[jax.Device]) -> Program:
    def search(queries: Any, blocks: Any, count: Any) -> Any:
        return top_neighbours(queries, blocks, count, k=_NEIGHBOURS)

    queries = Array((QUERIES, _DIMENSION), np.float32, low=-1)
    blocks = Array((-(-_DESCRIPTORS // ROWS), ROWS, _DIMENSION), np.float32, low=-1)
    return Program(jax.jit(search), (queries, blocks, np.int32(_DESCRIPTORS)), devices, "queries", QUERIES)


def _maps(case: Case, devices: Sequence[jax.Device]) -> Program:
    extractor = delf_jax.load(precision=case.precision, batch_size=1)
    sizes = np.array([case.size] * case.batch, np.int32)
    cells = np.asarray(extractor.map_size(sizes, case.layer), np.int32)
    channels = extractor.config.backbone.channels(case.layer)

    def maps(w: Any, features: Any, cells_hw: Any, image_hw: Any) -> Any:
        grid = equal_patches(cells_hw, image_hw)
        return map_in_pixels({"w": w}, DenseFeatures(features, cells_hw, grid, image_hw, case.size))

    features = Array((case.batch, *map(int, cells[0]), channels), jnp.dtype(case.precision))
    direction = Array((channels,), np.float32, shared=False)
    return Program(jax.jit(maps), (direction, features, cells, sizes), devices, "photos", case.batch)
