"""Batches of augmented photos: a Grain pipeline that can be stopped, resumed and shared between processes.

Everything in batch ``step`` follows from (samples, seed, step). So a saved state is little more than the step, and it
can be used with any number of worker processes and threads.
"""

import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict

import grain
import numpy as np
from absl import flags
from jaxtyping import Float32, Int32, UInt8

from delf_jax.errors import ImageError, TrainingDataError
from delf_jax.training.augmentation import Augmentation
from delf_jax.training.samples import Samples
from delf_jax.training.settings import Order

_MOST_UNREADABLE_IN_A_ROW = 100


class Batch(TypedDict):
    """This process's part of a batch, on the host.

    Attributes:
        images: RGB, 0 to 255, B of them.
        valid_hw: (height, width) of the part of each image that holds photo.
        labels: positions in the samples' classes; -1 marks a row without photo (only in ``listed``), to be ignored.
        names: of the photos, "" for a row without photo.
        gamma: factor that the whole batch will be rescaled by, the same in all processes.
    """

    images: UInt8[np.ndarray, "b size size 3"]
    valid_hw: Int32[np.ndarray, "b 2"]
    labels: Int32[np.ndarray, " b"]
    names: list[str]
    gamma: Float32[np.ndarray, ""]


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """What decides, with the samples, the content of every batch.

    Attributes:
        batch_size: photos per batch, over all processes.
        order: ``shuffled``: all photos in a new order every epoch; ``balanced``: all classes once in a new order every
            round, each class's photos in turn; ``listed``: as listed, once.
        seed: 0 to 2^32 - 1; everything random follows from it and the step.
        gamma: bounds of the batches' rescaling factor, uniformly distributed.
    """

    batch_size: int
    order: Order | Literal["listed"] = "shuffled"
    seed: int = 0
    gamma: tuple[float, float] = (1.0, 1.0)


class Loader(Iterator[Batch]):
    """Iterates over batches: without end in the orders ``shuffled`` and ``balanced``, once in ``listed``.

    A photo that cannot be read is reported in ``failures``. In the random orders the next readable photo of the list,
    usually of the same class, takes its place. In ``listed`` its row has label -1, like the rows that fill up the last
    batch. Close the loader, or use it as a context manager, to end its workers.

    Attributes:
        failures: reason by name, of the photos so far that could not be read.
        step: batches given so far.
        steps_per_epoch: batches that hold as many photos as there are.
    """

    def __init__(
        self,
        samples: Samples,
        augment: Augmentation,
        plan: BatchPlan,
        *,
        process: tuple[int, int] = (0, 1),
        workers: int = 0,
        threads: int = 2,
    ) -> None:
        """Makes the pipeline; nothing is read yet.

        Args:
            samples: the photos.
            augment: what makes a view of a photo.
            plan: size, order and seed of the batches.
            process: (index, count) of the processes that share each batch; together they get what one would get.
            workers: processes that decode; with 0, threads of this process do it.
            threads: batches made at once in this process, or in each worker; with 0 each is made when it is asked for.

        Raises:
            TrainingDataError: no photos.
            ValueError: the processes cannot share a batch of this size equally.
        """
        index, count = process
        if not len(samples):
            raise TrainingDataError("the list of training photos is empty; name photos that exist")
        if plan.batch_size < 1 or plan.batch_size % count:
            raise ValueError(f"batch_size is {plan.batch_size}; it must be a positive multiple of {count} processes")
        self.failures: dict[str, str] = {}
        self.step = 0
        photos = len(samples)
        self.steps_per_epoch = (
            -(-photos // plan.batch_size) if plan.order == "listed" else photos // plan.batch_size or 1
        )
        self._identity = {
            "samples": samples.digest,
            "seed": plan.seed,
            "order": plan.order,
            "batch_size": plan.batch_size,
        }
        views = _positions(samples, plan).random_map(
            _Viewer(samples, augment, substitute=plan.order != "listed"), seed=plan.seed
        )
        self._batches = (
            views[index::count]
            .batch(plan.batch_size // count, drop_remainder=True, batch_fn=_collate)
            .map_with_index(functools.partial(_add_gamma, seed=plan.seed, bounds=plan.gamma))
        )
        self._read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        self._processes = grain.MultiprocessingOptions(num_workers=workers)
        self._iterator: Any = None

    def __next__(self) -> Batch:
        if self._iterator is None:
            if self._processes.num_workers and not flags.FLAGS.is_parsed():
                # Grain looks at absl's flags, which only programs built on absl parse.
                flags.FLAGS.mark_as_parsed()
            rest = self._batches[self.step :].to_iter_dataset(self._read)
            self._iterator = iter(rest.mp_prefetch(self._processes, _end_with_parent))
        try:
            batch = next(self._iterator)
        except BaseException:
            self.close()
            raise
        self.step += 1
        for name, reason in batch.pop("failed"):
            self.failures.setdefault(name, reason)
        if self._processes.num_workers:
            # The arrays are in memory that is shared with the workers, which does not outlive them.
            batch = {key: np.array(value) if isinstance(value, np.ndarray) else value for key, value in batch.items()}
        return batch

    def get_state(self) -> dict[str, Any]:
        """Where the loader stands, as values that JSON can hold; ``set_state`` continues with the next batch."""
        return self._identity | {"step": self.step, "failures": dict(self.failures)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues after the batch at which ``get_state`` was called, also with other workers or processes.

        Raises:
            TrainingDataError: the state belongs to other photos or another seed, order or batch size.
        """
        for key, value in self._identity.items():
            if state.get(key) != value:
                raise TrainingDataError(
                    f"the saved state has {key} {state.get(key, 'missing')}, this run {value}; "
                    "resume with the same photos and options, or start a new run"
                )
        self.close()
        self.step = int(state["step"])
        self.failures = dict(state["failures"])

    def close(self) -> None:
        """Ends the workers; iterating again starts new ones."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _end_with_parent(worker: int, workers: int) -> None:
    """Lets the parent end its workers: on Ctrl-C, which reaches them too, and when the parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _positions(samples: Samples, plan: BatchPlan) -> grain.MapDataset:
    """Positions in the samples in the order of training, without end unless ``listed``; -1 is no photo."""
    if plan.order == "listed":
        filled = -(-len(samples) // plan.batch_size) * plan.batch_size
        return grain.MapDataset.range(filled).map(functools.partial(_or_none, count=len(samples)))
    if plan.order == "shuffled":
        return grain.MapDataset.range(len(samples)).shuffle(seed=plan.seed).repeat()
    present, starts, counts = np.unique(samples.labels, return_index=True, return_counts=True)
    rounds = grain.MapDataset.range(len(present)).shuffle(seed=plan.seed).repeat()
    return rounds.map_with_index(functools.partial(_in_class, starts=starts, counts=counts, seed=plan.seed))


def _or_none(position: int, *, count: int) -> int:
    return position if position < count else -1


def _in_class(draw: int, chosen: int, *, starts: np.ndarray, counts: np.ndarray, seed: int) -> int:
    """Position of a class's next photo: once around all of them in a random order, then in another."""
    count = int(counts[chosen])
    lap, turn = divmod(draw // len(counts), count)
    lap_seed = int(np.random.SeedSequence((seed, chosen, lap)).generate_state(1)[0])
    return int(starts[chosen]) + grain.experimental.index_shuffle(turn, max_index=count - 1, seed=lap_seed, rounds=4)


class _Element(TypedDict):
    image: np.ndarray
    valid_hw: tuple[int, int]
    label: int
    name: str
    failed: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True, eq=False)
class _Viewer:
    """Reads and augments the photo at a position."""

    samples: Samples
    augment: Augmentation
    substitute: bool

    def __call__(self, position: int, rng: np.random.Generator) -> _Element:
        failed: list[tuple[str, str]] = []
        if position >= 0:
            tries = min(len(self.samples), _MOST_UNREADABLE_IN_A_ROW) if self.substitute else 1
            for candidate in range(position, position + tries):
                candidate %= len(self.samples)
                try:
                    name, photo = self.samples.read(candidate, max_side=self.augment.max_side)
                except ImageError as error:
                    failed.append((error.source, error.reason))
                    continue
                view = self.augment(photo.pixels, rng)
                label = int(self.samples.labels[candidate])
                return _Element(image=view.pixels, valid_hw=view.valid_hw, label=label, name=name, failed=failed)
            if self.substitute:
                raise TrainingDataError(
                    f"{failed[0][0]}: {failed[0][1]}; nor can any of the {tries} photos from there on be read"
                )
        blank = np.zeros((self.augment.size, self.augment.size, 3), np.uint8)
        return _Element(image=blank, valid_hw=(0, 0), label=-1, name="", failed=failed)


def _collate(elements: Sequence[_Element]) -> dict[str, Any]:
    return {
        "images": np.stack([element["image"] for element in elements]),
        "valid_hw": np.array([element["valid_hw"] for element in elements], np.int32),
        "labels": np.array([element["label"] for element in elements], np.int32),
        "names": [element["name"] for element in elements],
        "failed": [failure for element in elements for failure in element["failed"]],
    }


def _add_gamma(step: int, batch: dict[str, Any], *, seed: int, bounds: tuple[float, float]) -> dict[str, Any]:
    gamma = np.random.default_rng((seed, step)).uniform(*bounds)
    return batch | {"gamma": np.float32(gamma).reshape(())}
