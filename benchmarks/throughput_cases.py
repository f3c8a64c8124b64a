"""The rows of ``benchmarks.throughput`` with a PyTorch peer: backbone and whole extraction, timed in turns."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from jaxtyping import Float, UInt8

import delf_jax
from benchmarks.errors import Unavailable
from benchmarks.timing import seconds_of, spread, take_turns
from benchmarks.torch_network import BFLOAT16, CHANNELS_LAST, COMPILED, COMPILED_BFLOAT16, EAGER, TorchPeer, Variant
from delf_jax.errors import DelfError
from delf_jax.extractor import Extractor
from delf_jax.files import model_file
from delf_jax.loading import model_paths
from delf_jax.models.architectures import read_config
from delf_jax.settings import Precision

Batch = UInt8[np.ndarray, "b h w 3"]
Rows = list[dict[str, Any]]

PYRAMIDS: dict[int, tuple[float, ...]] = {
    1: (1.0,),
    4: (0.5, 0.7071, 1.0, 1.4142),
    7: (0.25, 0.3536, 0.5, 0.7071, 1.0, 1.4142, 2.0),
}
LAYER = "conv4"
MAX_FEATURES = 1000
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 15
# Two float32 implementations of the same network differ by rounding only.
_TOLERANCE = 1e-3


class Case(NamedTuple):
    """What is measured at once: everything takes turns on the same batches.

    Attributes:
        part: ``backbone`` (photos to the map conv4 at scale 1), ``extraction`` (photos to features on the host, one
            batch after the other) or ``stream`` (photos to features one at a time, as many at once as the library
            likes: ours by the extractor's own call, PyTorch's by a loop, which two threads of half the cores do not
            beat).
        size: (height, width) in pixels.
        scales: how many; a key of ``PYRAMIDS``.
        batch: photos at once; of ``stream`` photos a turn.
        precisions: of ours.
        peers: of PyTorch.
    """

    part: str
    size: tuple[int, int]
    scales: int
    batch: int
    precisions: tuple[Precision, ...]
    peers: tuple[Variant, ...]


def cases(*, full: bool, accelerator: bool) -> list[Case]:
    """What is measured; without ``full``, what a few minutes on two cores have time for."""
    small, large = (480, 640), (768, 1024)
    float32: tuple[Precision, ...] = ("float32",)
    both: tuple[Precision, ...] = ("float32", "bfloat16")
    everything = (EAGER, CHANNELS_LAST, BFLOAT16, COMPILED, COMPILED_BFLOAT16)
    if full or accelerator:
        batches = (8, 16) if accelerator else (1, 4)
        # An accelerator is fed by batches; photos one at a time say nothing of it.
        alone = [] if accelerator else [small, large]
        return [
            Case(part, size, scales, batch, both, everything)
            for size in (small, large)
            for batch in batches
            for part, scales in (("backbone", 1), *(("extraction", scales) for scales in PYRAMIDS))
        ] + [Case("stream", size, 1, 8, float32, (CHANNELS_LAST, COMPILED)) for size in alone]
    # Compiling PyTorch's network takes longer than measuring it, and a pyramid compiles it once a scale.
    return [
        Case("backbone", small, 1, 1, both, (EAGER, CHANNELS_LAST, BFLOAT16, COMPILED)),
        Case("backbone", small, 1, 4, float32, (CHANNELS_LAST,)),
        Case("extraction", small, 1, 1, float32, (EAGER, CHANNELS_LAST, COMPILED)),
        Case("stream", small, 1, 8, float32, (COMPILED,)),
        Case("extraction", small, 1, 4, float32, (COMPILED,)),
        Case("extraction", small, 4, 1, float32, (CHANNELS_LAST,)),
        Case("extraction", large, 1, 1, float32, (CHANNELS_LAST, COMPILED)),
        Case("extraction", large, 7, 1, float32, (CHANNELS_LAST,)),
    ]


class Bench:
    """Extractors and peers, made once and used for many cases."""

    def __init__(self, model: str) -> None:
        """Takes the model by name or folder, as ``delf_jax.load`` does."""
        self._model = model
        self._loaded = delf_jax.load(model, scales=(1.0,), max_features=MAX_FEATURES)
        self._description, _ = model_file.read(model_paths(model)[0])
        self._peers: dict[Variant, TorchPeer | Unavailable] = {}

    def extractor(self, *, scales: int, batch: int, precision: Precision) -> Extractor:
        """The extractor of a case, on all devices."""
        return delf_jax.load(
            self._model,
            scales=PYRAMIDS[scales],
            max_features=MAX_FEATURES,
            precision=precision,
            batch_size=batch,
        )

    def peer(self, variant: Variant) -> TorchPeer:
        """A way of PyTorch; its map was compared with ours.

        Raises:
            Unavailable: why there is none.
            DelfError: it computes something else.
        """
        if variant not in self._peers:
            try:
                peer = TorchPeer(
                    variant,
                    self._loaded.params,
                    read_config(self._description),
                    self._description["preprocess"],
                    layer=LAYER,
                    scorer=self._loaded.settings.scorer,
                )
                if variant.precision == "float32":
                    self._require_same_map(peer, variant.name)
                self._peers[variant] = peer
            except Unavailable as error:
                self._peers[variant] = error
        found = self._peers[variant]
        if isinstance(found, Unavailable):
            raise found
        return found

    def measure(self, case: Case, photos: Sequence[Batch], *, budget: float) -> Rows:
        """Rows of one case: ours in each precision, then every peer.

        Args:
            case: what to measure.
            photos: batches of the case's size.
            budget: seconds that the turns may take, roughly; there are at least three, with one batch if need be.
        """
        ways: dict[str, Callable[[Batch], object]] = {}
        rows: dict[str, dict[str, Any]] = {}
        missing: Rows = []
        common = {"part": case.part, "size": "x".join(map(str, case.size)), "scales": case.scales, "batch": case.batch}
        for precision in case.precisions:
            name = "ours" if precision == "float32" else f"ours, {precision}"
            ways[name], counted = self._ours(case, photos[0], precision)
            rows[name] = common | {"who": name, "precision": precision} | counted
        for variant in case.peers:
            named = common | {"who": variant.name, "precision": variant.precision}
            try:
                ways[variant.name] = self._theirs(case, self.peer(variant))
                rows[variant.name] = named
            except Unavailable as error:
                missing.append(named | {"skipped": str(error)})
        for way in ways.values():
            way(photos[0])  # compiles and warms up
        turn_seconds = sum(seconds_of(way, photos[0]) for way in ways.values())
        if turn_seconds * len(photos) * _FEWEST_ROUNDS > budget:
            photos = photos[:1]
        rounds = int(np.clip(budget / (turn_seconds * len(photos)), _FEWEST_ROUNDS, _MOST_ROUNDS))
        seconds = take_turns(ways, photos, rounds=rounds, warm=True)
        devices = len(self._loaded.devices)
        for name, row in rows.items():
            row |= _speed(seconds[name] / case.batch, devices)
            ours = "ours" if row["precision"] == "float32" else f"ours, {row['precision']}"
            if "gflop" in row:
                row["gflop_per_s"] = row["gflop"] * row["photos_per_s"]
            elif name != ours and ours in rows:
                row["ours_is_faster"] = spread(seconds[name] / seconds[ours]).median
        return [*rows.values(), *missing]

    def _ours(
        self, case: Case, photos: Batch, precision: Precision
    ) -> tuple[Callable[[Batch], object], dict[str, Any]]:
        """Our program as a function of a batch on the host, and what its compiler says about it."""
        if case.part == "stream":
            default = delf_jax.load(
                self._model,
                scales=PYRAMIDS[case.scales],
                max_features=MAX_FEATURES,
                max_side=max(case.size),
                precision=precision,
            )
            return default, {}
        extractor = self.extractor(scales=case.scales, batch=case.batch, precision=precision)
        function = extractor.apply if case.part == "extraction" else _map_of(extractor)
        sizes = np.array([case.size] * case.batch, np.int32)
        lowered = extractor.compiled(function).lower(extractor.params, photos, sizes)
        program = lowered.compile()
        operations = _floating_point_operations(lowered, program, len(extractor.devices))
        memory = program.memory_analysis()

        def run(batch: Batch) -> object:
            output = program(extractor.params, batch, sizes)
            return jax.device_get(output) if case.part == "extraction" else jax.block_until_ready(output)

        counted = {"gflop": operations / case.batch / 1e9}
        if memory is not None:
            megabytes = (memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes) / 1e6
            counted["program_megabytes"] = megabytes
        return run, counted

    def _theirs(self, case: Case, peer: TorchPeer) -> Callable[[Batch], object]:
        if case.part == "backbone":
            return peer.backbone
        extract = functools.partial(peer.extract, scales=PYRAMIDS[case.scales], max_features=MAX_FEATURES)
        return extract if case.part == "extraction" else lambda photos: [extract(photo[None]) for photo in photos]

    def _require_same_map(self, peer: TorchPeer, name: str) -> None:
        photo = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), dtype=np.uint8)
        ours = np.asarray(_map_of(self._loaded)(self._loaded.params, photo, np.array([[96, 128]], np.int32)))
        theirs = peer.backbone(photo).permute(0, 2, 3, 1).cpu().numpy()
        apart = float(np.abs(ours - theirs).max() / np.abs(ours).max())
        if not apart < _TOLERANCE:
            raise DelfError(f"{name}: its map {LAYER} is {apart:.1e} of the largest value away from ours")


def with_peak(rows: Rows, peaks: Mapping[str, float]) -> Rows:
    """The rows of ours with their share of the device's peak in FLOP/s of the same precision."""
    return [
        row | {"of_peak": 1e9 * row["gflop_per_s"] / peaks[row["precision"]]} if "gflop_per_s" in row else row
        for row in rows
    ]


def best_peers(rows: Rows) -> Rows:
    """One row a case: our float32 speed over that of the fastest float32 way of PyTorch, on the same batches."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        if row.get("precision") == "float32" and "ours_is_faster" in row:
            key = tuple(row[name] for name in ("part", "size", "scales", "batch"))
            if key not in found or row["ours_is_faster"] < found[key]["ours_is_faster"]:
                found[key] = row
    kept = ("size", "scales", "batch", "ours_is_faster")
    return [
        {"part": f"{row['part']} over the best peer", "who": row["who"]} | {name: row[name] for name in kept}
        for row in found.values()
    ]


def batches(photos: Sequence[UInt8[np.ndarray, "_h _w 3"]], case: Case, count: int) -> list[Batch]:
    """``count`` batches of the case's size, cut from the middle of photos that are enlarged or reduced to cover it."""
    made = [fitted(photos[i % len(photos)], case.size) for i in range(count * case.batch)]
    return [np.stack(made[i : i + case.batch]) for i in range(0, len(made), case.batch)]


def fitted(photo: UInt8[np.ndarray, "_h _w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """The photo scaled to cover ``size`` and cut to it around its centre."""
    factor = max(side / own for side, own in zip(size, photo.shape[:2]))
    height, width = (max(round(own * factor), side) for side, own in zip(size, photo.shape[:2]))
    scaled = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return np.ascontiguousarray(scaled[top : top + size[0], left : left + size[1]])


def _map_of(extractor: Extractor) -> Callable[[Any, Any, Any], Any]:
    return lambda params, images, valid_hw: extractor.dense(params, images, valid_hw, last=LAYER)[LAYER]


def _speed(seconds: Float[np.ndarray, " n"], devices: int) -> dict[str, Any]:
    rate = spread(1 / seconds)
    return {"photos_per_s": rate.median, "photos_per_s_quartiles": rate[1:], "per_device": rate.median / devices}


def _floating_point_operations(lowered: Any, program: Any, devices: int) -> float:
    if jax.devices()[0].platform == "cpu":
        return float(program.cost_analysis()["flops"]) * devices
    # A compiled program of an accelerator counts its library calls as nothing.
    return float(lowered.cost_analysis()["flops"]) * devices
