"""A codebook of visual words, by k-means over a bounded sample of the descriptors of any number of photos."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Array, Float, Int

from delf_jax.errors import ModelError, SearchIndexError
from delf_jax.features import LocalFeatures
from delf_jax.files import model_file
from retrieval.nearest import QUERIES, ROWS, blocked, top_neighbours

KIND = "codebook"


@dataclasses.dataclass(frozen=True, eq=False)
class Codebook:
    """The centroids of visual words.

    Attributes:
        centroids: float32 [k, d].
        fingerprint: of the model that made the descriptors; None if that is not known.
    """

    centroids: Float[np.ndarray, "k d"]
    fingerprint: str | None = None

    def __len__(self) -> int:
        """Number of words."""
        return len(self.centroids)

    @property
    def dimension(self) -> int:
        """Dimension of the descriptors."""
        return int(self.centroids.shape[1])

    def nearest(self, descriptors: Float[np.ndarray, "n d"], count: int = 1) -> Int[np.ndarray, "n c"]:
        """The ``count`` nearest words of every descriptor, nearest first, in bounded memory.

        Raises:
            SearchIndexError: the descriptors have another dimension.
        """
        if descriptors.shape[1] != self.dimension:
            raise SearchIndexError(
                f"the codebook is for descriptors of {self.dimension} dimensions, these have {descriptors.shape[1]}; "
                "make one from features of the same model"
            )
        return self.nearest_with_products(descriptors, count)[0]

    def nearest_with_products(
        self, descriptors: Float[np.ndarray, "n d"], count: int
    ) -> tuple[Int[np.ndarray, "n c"], Float[np.ndarray, "n c"]]:
        """The nearest words, and the products x c - |c|^2 / 2: the nearest word has the largest one."""
        count = min(count, len(self))
        ids = np.zeros((len(descriptors), count), np.int64)
        products = np.zeros((len(descriptors), count), np.float32)
        for start in range(0, len(descriptors), QUERIES):
            part = np.asarray(descriptors[start : start + QUERIES], np.float32)
            rows = slice(start, start + len(part))
            padded = np.zeros((max(64, 1 << (len(part) - 1).bit_length()), self.dimension + 1), np.float32)
            padded[: len(part), :-1], padded[:, -1] = part, 1
            found, best = top_neighbours(padded, self._blocks, np.int32(len(self)), k=count)
            ids[rows], products[rows] = np.asarray(found)[: len(part)], np.asarray(best)[: len(part)]
        return ids, products

    @functools.cached_property
    def _blocks(self) -> Float[Array, "b r d"]:
        # x c - |c|^2 / 2 is a dot product of vectors with one more dimension.
        norms = np.sum(np.square(self.centroids, dtype=np.float64), axis=1, keepdims=True) / 2
        # A small codebook is one small block, because padding costs as much as words.
        rows = min(ROWS, 1 << (len(self) - 1).bit_length())
        return blocked(np.concatenate([self.centroids, -norms], axis=1), rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file, as a whole or not at all."""
        model_file.write(path, {"centroids": self.centroids}, {"kind": KIND, "fingerprint": self.fingerprint})

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Codebook":
        """Reads what ``save`` wrote.

        Raises:
            ModelError: the file is missing, damaged, or not a codebook.
        """
        description, tensors = model_file.read(path)
        if description.get("kind") != KIND or set(tensors) != {"centroids"} or tensors["centroids"].ndim != 2:
            raise ModelError(f"{path}: is not a codebook; make one with `delf-jax codebook`")
        fingerprint = description.get("fingerprint")
        if not isinstance(fingerprint, str | None):
            raise ModelError(
                f"{path}: is damaged, its fingerprint is not a string; make it again with `delf-jax codebook`"
            )
        return cls(np.asarray(tensors["centroids"], np.float32), fingerprint)


def train(
    photos: Iterable[LocalFeatures],
    *,
    words: int,
    sample: int = 1_000_000,
    iterations: int = 50,
    seed: int = 0,
    fingerprint: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Codebook:
    """k-means (Lloyd's) over a sample of the photos' descriptors.

    The photos are read once, one at a time. Every descriptor has the same chance to be in the sample, which is kept in
    float16, so memory does not depend on the number of photos. A word that lost all its descriptors starts again at the
    descriptor that is furthest from its word. Training ends early when every word has descriptors and less than one
    descriptor in a thousand changes its word.

    Args:
        photos: their features.
        words: number of words; the papers take 65 536 from 20 million descriptors.
        sample: number of descriptors kept for training.
        iterations: the largest number of iterations.
        seed: of the sample and the first centroids.
        fingerprint: of the model that made the features, for the codebook.
        progress: called with (iterations done, iterations at most).

    Raises:
        SearchIndexError: there are fewer descriptors than words.
    """
    generator = np.random.default_rng(seed)
    points = reservoir((np.asarray(one.descriptors) for one in photos), sample, generator)
    if len(points) < words:
        raise SearchIndexError(
            f"{words} words need more than {len(points)} descriptors; ask for fewer words, or give more photos"
        )
    centroids = points[np.sort(generator.choice(len(points), words, replace=False))].astype(np.float32)
    assigned = np.full(len(points), -1)
    for done in range(iterations):
        codebook = Codebook(centroids, fingerprint)
        nearest, products = codebook.nearest_with_products(points, 1)
        changed = int(np.sum(nearest[:, 0] != assigned))
        assigned = nearest[:, 0]
        if progress is not None:
            progress(done + 1, iterations)
        if changed * 1000 <= len(points) and len(np.unique(assigned)) == words:
            break
        # Of unit vectors, those with the smallest product are the furthest.
        centroids = _means(points, assigned, words, furthest=np.argsort(products[:, 0], kind="stable"))
    return Codebook(centroids, fingerprint)


def reservoir(
    arrays: Iterable[Float[np.ndarray, "_n d"]], size: int, generator: np.random.Generator
) -> Float[np.ndarray, "m d"]:
    """A uniform sample of at most ``size`` rows of a stream of arrays, float16, in bounded memory.

    Every row draws a random number, and the rows with the smallest numbers stay. Never more than twice the sample and
    one array are held.
    """
    kept: list[np.ndarray] = []
    drawn: list[np.ndarray] = []
    held, limit = 0, 1.0

    def cut() -> None:
        rows, numbers = np.concatenate(kept), np.concatenate(drawn)
        best = np.sort(np.argpartition(numbers, size - 1)[:size]) if len(numbers) > size else np.arange(len(numbers))
        kept[:], drawn[:] = [rows[best]], [numbers[best]]

    for array in arrays:
        numbers = generator.random(len(array))
        chosen = numbers < limit
        if not chosen.any():
            continue
        kept.append(np.asarray(array[chosen], np.float16))
        drawn.append(numbers[chosen])
        held += int(chosen.sum())
        if held >= 2 * size:
            cut()
            held, limit = len(kept[0]), float(drawn[0].max())
    if not kept:
        return np.zeros((0, 0), np.float16)
    cut()
    return kept[0]


def _means(
    points: Float[np.ndarray, "n d"], assigned: Int[np.ndarray, " n"], words: int, *, furthest: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "k d"]:
    """The mean of every word's points; each word without points gets one of the furthest points."""
    order = np.argsort(assigned, kind="stable")
    counts = np.bincount(assigned, minlength=words)
    starts = np.cumsum(counts) - counts
    filled = np.flatnonzero(counts)
    sums = np.zeros((words, points.shape[1]), np.float32)
    # The points of a few words at a time: a float32 copy of all needs twice the memory of the sample.
    for group in np.array_split(filled, max(1, len(points) // 65536)):
        if len(group):
            rows = order[starts[group[0]] : starts[group[-1]] + counts[group[-1]]]
            sums[group] = np.add.reduceat(points[rows].astype(np.float32), starts[group] - starts[group[0]], axis=0)
    centroids = sums / np.maximum(counts, 1)[:, None]
    empty = np.flatnonzero(counts == 0)
    centroids[empty] = points[furthest[: len(empty)]]
    return centroids
