"""Batches of cached dense features: pure functions of a seed and a step."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from delf_jax.training.dense_cache import DenseCache
from delf_jax.training.settings import Order


@dataclasses.dataclass(eq=False)
class CachedBatches:
    """Endless batches of one random view of each photo. Batch ``step`` depends only on ``seed`` and ``step``.

    Attributes:
        cache: the features.
        labels: of its photos.
        batch_size: photos per batch.
        order: as in ``loader.Loader``.
        cells_per_step: usable cells drawn from every view; 0 for all cells.
        seed: of order, views and cells.
        step: batches given so far.
    """

    cache: DenseCache
    labels: np.ndarray
    batch_size: int
    order: Order = "shuffled"
    cells_per_step: int = 0
    seed: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        photos = self.cache.readable
        labels = self.labels[photos]
        self._classes = [photos[labels == label] for label in np.unique(labels)]

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold all photos once, apart from a rest smaller than a batch."""
        return max(len(self.cache.readable) // self.batch_size, 1)

    @property
    def failures(self) -> dict[str, str]:
        """Reason by name, of the photos that could not be read."""
        return dict(self.cache.failures)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        photos = self._shuffled() if self.order == "shuffled" else self._balanced()
        generator = np.random.default_rng((self.seed, 1, self.step))
        views = generator.integers(0, self.cache.views, self.batch_size)
        self.step += 1
        if not self.cells_per_step:
            return padded_batch(self.cache, photos, views, self.labels, rows=self.batch_size)
        return self._drawn(photos, views, generator)

    def get_state(self) -> dict[str, int]:
        """The position in the batches, as values that JSON can hold."""
        return {"step": self.step}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues with the batch after ``state``."""
        self.step = state["step"]

    def close(self) -> None:
        """Does nothing: there are no workers."""

    def _shuffled(self) -> np.ndarray:
        epoch, position = divmod(self.step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, 0, epoch)).permutation(self.cache.readable)
        return np.resize(order[position * self.batch_size :], self.batch_size)

    def _balanced(self) -> np.ndarray:
        draws = self.step * self.batch_size + np.arange(self.batch_size)
        rounds, positions = np.divmod(draws, len(self._classes))
        orders = {
            turn: np.random.default_rng((self.seed, 2, turn)).permutation(len(self._classes))
            for turn in np.unique(rounds).tolist()
        }
        photos = np.empty(self.batch_size, np.int64)
        for row, (turn, position) in enumerate(zip(rounds.tolist(), positions)):
            chosen = int(orders[turn][position])
            members = self._classes[chosen]
            lap, place = divmod(turn, len(members))
            photos[row] = np.random.default_rng((self.seed, 3, chosen, lap)).permutation(members)[place]
        return photos

    def _drawn(self, photos: np.ndarray, views: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
        batch = _empty(self.batch_size, self.cells_per_step, self.cache.channels)
        for row, (photo, view) in enumerate(zip(photos, views)):
            cells, usable = self.cache.cells(int(photo), int(view))
            chosen = np.sort(generator.permutation(np.flatnonzero(usable))[: self.cells_per_step])
            batch["features"][row, : len(chosen)] = cells[chosen]
            batch["where"][row, : len(chosen)] = True
            batch["labels"][row] = self.labels[photo] if len(chosen) else -1
        return batch


def padded_batch(
    cache: DenseCache, photos: np.ndarray, views: np.ndarray, labels: np.ndarray, *, rows: int
) -> dict[str, np.ndarray]:
    """A batch of ``rows`` rows and ``cache.most_cells`` cells; rows without photo have label -1."""
    batch = _empty(rows, cache.most_cells, cache.channels)
    for row, (photo, view) in enumerate(zip(photos, views)):
        cells, usable = cache.cells(int(photo), int(view))
        batch["features"][row, : len(cells)] = cells
        batch["where"][row, : len(cells)] = usable
        batch["labels"][row] = labels[photo]
    return batch


def _empty(rows: int, cells: int, channels: int) -> dict[str, np.ndarray]:
    return {
        "features": np.zeros((rows, cells, channels), np.float16),
        "where": np.zeros((rows, cells), bool),
        "labels": np.full(rows, -1, np.int32),
    }
