"""Dense features of a frozen backbone, computed once and read at every epoch.

A folder: ``features.npy`` float16 [cells of all views, C] and ``usable.npy`` bool [cells], both memory-mapped;
``spans.npy`` int64 [photos, views, 2], each view's first cell and number of cells; ``cache.json``, what it was computed
from. The folder appears when it is complete, and is computed again if anything that it depends on changed.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from delf_jax.errors import ImageError
from delf_jax.extractor import Extractor
from delf_jax.files import atomic
from delf_jax.files.growing_array import GrowingArray
from delf_jax.training.samples import LabelledPhotos, Samples
from delf_jax.training.settings import TrainingError, TrainingSettings
from delf_jax.training.views import cached_view

FORMAT_VERSION = 1
_LARGEST = float(np.finfo(np.float16).max)


class DenseCache:
    """Cells of every view of every photo; photos that could not be read have no cells.

    Attributes:
        failures: (name, reason) of those photos.
        views: number of views of every photo.
        most_cells: largest number of cells of a view.
    """

    def __init__(self, folder: Path, description: dict[str, Any]) -> None:
        self.failures: list[tuple[str, str]] = [(name, reason) for name, reason in description["failures"]]
        self._features = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
        self._usable = np.load(folder / "usable.npy", mmap_mode="r", allow_pickle=False)
        self._spans = np.load(folder / "spans.npy", allow_pickle=False)
        self.views = int(self._spans.shape[1])
        self.most_cells = int(self._spans[..., 1].max())

    @property
    def channels(self) -> int:
        """Channels of a cell."""
        return int(self._features.shape[1])

    @property
    def readable(self) -> np.ndarray:
        """Positions of the photos that have cells."""
        return np.flatnonzero(self._spans[..., 1].any(axis=1))

    def cells(self, photo: int, view: int) -> tuple[np.ndarray, np.ndarray]:
        """Features float16 [n, C] and usable cells bool [n] of one view."""
        first, count = self._spans[photo, view]
        rows = slice(first, first + count)
        return self._features[rows], self._usable[rows]


def open_or_make(
    folder: Path,
    extractor: Extractor,
    samples: Samples,
    settings: TrainingSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> DenseCache:
    """The cache in ``folder``; it is computed if it is missing or was computed from something else.

    Args:
        folder: of the cache.
        extractor: its backbone computes ``settings.layer``; photos are reduced to its ``max_side``.
        samples: the photos.
        settings: decide views, their sides, crops and the seed of the crops.
        progress: called with views done and views in all.

    Raises:
        TrainingError: no photo could be read.
    """
    made_from = _made_from(extractor, samples, settings)
    try:
        description = json.loads((folder / "cache.json").read_text())
    except (OSError, ValueError):
        description = {}
    if description.get("made_from") != made_from:
        for left_over in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a process that was killed
            shutil.rmtree(left_over, ignore_errors=True)
        with atomic.replacing_folder(folder) as aside:
            _make(aside, extractor, samples, settings, made_from, progress)
        description = json.loads((folder / "cache.json").read_text())
    cache = DenseCache(folder, description)
    if not len(cache.readable):
        name, reason = cache.failures[0]
        raise TrainingError(f"none of the {len(samples)} photos could be read; the first: {name}: {reason}")
    return cache


def _make(
    folder: Path,
    extractor: Extractor,
    samples: Samples,
    settings: TrainingSettings,
    made_from: dict[str, Any],
    progress: Callable[[int, int], None] | None,
) -> None:
    spans = np.zeros((len(samples), settings.views, 2), np.int64)
    failures: dict[int, list[str]] = {}
    usable, written = [], 0
    views = _views(samples, settings, failures)
    stream = cast(Generator[Any, None, None], extractor.dense_stream(views, name=settings.layer))
    # On an interruption the decoding threads end here, not while the interpreter shuts down.
    with contextlib.closing(GrowingArray(folder / "features.npy", np.float16)) as features, contextlib.closing(stream):
        for done, ((photo, view), maps) in enumerate(stream, 1):
            if progress is not None:
                progress(done, spans.shape[0] * spans.shape[1])
            if isinstance(maps, ImageError):
                failures.setdefault(photo, [maps.source, maps.reason])
                continue
            dense, where = maps[0]
            features.append(np.minimum(dense, _LARGEST).reshape(where.size, -1))
            usable.append(where.reshape(-1))
            spans[photo, view] = written, where.size
            written += where.size
        features.finish()
    spans[list(failures)] = 0
    np.save(folder / "usable.npy", np.concatenate(usable) if usable else np.zeros(0, bool))
    np.save(folder / "spans.npy", spans)
    description = {"made_from": made_from, "failures": [failures[photo] for photo in sorted(failures)]}
    (folder / "cache.json").write_text(json.dumps(description, sort_keys=True))


def _views(
    samples: Samples, settings: TrainingSettings, failures: dict[int, list[str]]
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Every view of every photo with its key (photo, view): the whole photo at each side, then crops or warps."""
    largest = 3 * max(settings.view_sides)
    for position in range(len(samples)):
        try:
            _, photo = samples.read(position, max_side=largest)
        except ImageError as error:
            failures[position] = [error.source, error.reason]
            continue
        for view in range(settings.views):
            rng = np.random.default_rng((settings.seed, position, view))
            pixels, (height, width) = cached_view(settings, view)(photo.pixels, rng)
            yield (position, view), pixels[:height, :width]


def _made_from(extractor: Extractor, samples: Samples, settings: TrainingSettings) -> dict[str, Any]:
    names = ("layer", "views", "view_sides", "area", "augmentation", "precision", "seed")
    chosen = {name: getattr(settings, name) for name in names} | {"view_sides": list(settings.view_sides)}
    return chosen | {
        "format_version": FORMAT_VERSION,
        "backbone": extractor.fingerprint,
        "samples": samples.digest,
        "files": _file_times(samples),
    }


def _file_times(samples: Samples) -> str:
    """Digest of sizes and times of local photo files; records and addresses are taken as unchanged."""
    digest = hashlib.sha256()
    if isinstance(samples, LabelledPhotos):
        for position in range(len(samples)):
            with contextlib.suppress(OSError):
                status = os.stat(samples.path(position))
                digest.update(f"{position} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
