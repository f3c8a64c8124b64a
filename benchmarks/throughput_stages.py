"""The time of each stage of extraction, and the batch job compared with extraction alone."""

import collections
import functools
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np

from benchmarks.throughput_cases import fitted
from benchmarks.timing import spread, take_turns
from delf_jax.compiling import compiler_options
from delf_jax.extraction import program
from delf_jax.extractor import Extractor
from delf_jax.features import LocalFeatures
from delf_jax.job import extraction_job
from delf_jax.photos.load import load_photo
from delf_jax.store.parts import StoredPhoto
from delf_jax.store.writer import StoreWriter

_JPEG_QUALITY = 92
_WRITTEN_AT_ONCE = 64


def stages(extractor: Extractor, photos: Sequence[Path], size: tuple[int, int], *, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds per photo of each stage alone: decode, transfer, pyramid, backbone, selection and write.

    The extractor does pyramid, backbone and selection in one program; the row ``whole program`` measures it.

    Args:
        extractor: batches of its ``batch_size`` are measured.
        photos: JPEG files, cut to ``size`` for this.
        size: (height, width) in pixels.
        rounds: turns counted.
    """
    batch = extractor.batch_size
    pixels = [fitted(load_photo(photos[i % len(photos)], max_side=None).pixels, size) for i in range(batch)]
    files = [_jpeg(photo) for photo in pixels]
    host, sizes = np.stack(pixels), np.array([size] * batch, np.int32)
    device = jax.device_put((host, sizes))
    pyramid, backbone, selection = _programs(extractor)
    pixels_of_all_scales = pyramid(*device)
    to_map = functools.partial(backbone, extractor.params, pixels_of_all_scales, device[1], canvas=size)
    dense = to_map()
    whole = _jit(extractor)(extractor.apply)
    found = jax.device_get(whole(extractor.params, *device))
    with tempfile.TemporaryDirectory() as folder:
        writer = StoreWriter(
            Path(folder) / "store",
            settings=extractor.settings,
            fingerprint=extractor.fingerprint,
            dimension=extractor.dimension,
        )
        numbers = itertools.count()
        features = _first(found, size)

        def write(_: None) -> None:
            rows = []
            for number in itertools.islice(numbers, _WRITTEN_AT_ONCE):
                rows.append(StoredPhoto(f"/{number}.jpg", 1, 1, "0" * 64, features))
            writer.append(rows)

        ways: dict[str, tuple[Callable[[None], object], int]] = {
            "decode": (lambda _: [load_photo(file, max_side=max(size)) for file in files], batch),
            "transfer": (lambda _: jax.block_until_ready(jax.device_put(host)), batch),
            "pyramid": (lambda _: jax.block_until_ready(pyramid(*device)), batch),
            "backbone": (lambda _: jax.block_until_ready(to_map()), batch),
            "selection": (lambda _: jax.device_get(selection(extractor.params, dense, *device)), batch),
            "write": (write, _WRITTEN_AT_ONCE),
            "whole program": (lambda _: jax.device_get(whole(extractor.params, *device)), batch),
        }
        with writer:
            seconds = take_turns({name: way for name, (way, _) in ways.items()}, [None], rounds=rounds)
    common = {"part": "stages", "size": f"{size[0]}x{size[1]}", "scales": len(extractor.settings.scales)}
    rows = []
    for name, (_, count) in ways.items():
        milliseconds = spread(1000 * seconds[name] / count)
        rows.append(common | {"batch": batch, "who": name, "ms": milliseconds.median, "ms_quartiles": milliseconds[1:]})
    return rows


def batch_job(extractor: Extractor, photos: Sequence[Path], *, rounds: int) -> list[dict[str, Any]]:
    """Photos per second of the batch job (JPEG files to a store), and of extraction alone (decoded photos).

    Args:
        extractor: of the job; its buckets are compiled before anything counts.
        photos: JPEG files.
        rounds: turns counted.
    """
    decoded = [load_photo(photo, max_side=extractor.settings.max_side).pixels for photo in photos]

    def to_store(_: None) -> None:
        with tempfile.TemporaryDirectory() as folder:
            extraction_job.run(extractor, photos, Path(folder) / "store")

    def alone(_: None) -> None:
        collections.deque(extractor.stream(enumerate(decoded)), maxlen=0)

    ways: dict[str, Callable[[None], object]] = {"extraction alone": alone, "JPEG files to store": to_store}
    seconds = take_turns(ways, [None], rounds=rounds)
    over = spread(100 * (seconds["JPEG files to store"] / seconds["extraction alone"] - 1))
    rows = []
    for name in ways:
        rate = spread(len(photos) / seconds[name])
        row = {
            "part": "batch job",
            "size": f"up to {extractor.settings.max_side}",
            "scales": len(extractor.settings.scales),
            "batch": extractor.batch_size,
            "who": name,
            "photos_per_s": rate.median,
            "photos_per_s_quartiles": rate[1:],
        }
        if name != "extraction alone":
            row |= {"percent_over_extraction": over.median, "percent_over_extraction_quartiles": over[1:]}
        rows.append(row)
    return rows


def _programs(extractor: Extractor) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """The three stages of ``extractor.apply`` as programs of their own."""
    jit, config = _jit(extractor), extractor.config
    pyramid = jit(functools.partial(program.atlas_pixels, config=config))
    backbone = jit(functools.partial(program.atlas_map, config=config), static_argnames="canvas")
    selection = jit(functools.partial(program.select, config=config))
    return pyramid, backbone, selection


def _jit(extractor: Extractor) -> Callable[..., Any]:
    """``jax.jit`` with what the extractor's own programs are compiled with."""
    return functools.partial(jax.jit, compiler_options=compiler_options(extractor.devices[0].platform))


def _first(found: LocalFeatures, size: tuple[int, int]) -> LocalFeatures:
    """The first photo of a batch, without padding."""
    valid = np.asarray(found.valid[0])
    return LocalFeatures(
        keypoints=found.keypoints[0][valid],
        scales=found.scales[0][valid],
        scores=found.scores[0][valid],
        descriptors=found.descriptors[0][valid],
        image_size=size,
    )


def _jpeg(photo: np.ndarray) -> bytes:
    encoded, data = cv2.imencode(".jpg", photo[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert encoded
    return data.tobytes()
