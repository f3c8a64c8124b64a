"""What a reader of files from elsewhere is to the fuzzer."""

import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from delf_jax.features import LocalFeatures
from tests.fuzz.mutate import mutated

Mutate = Callable[[bytes, Sequence[bytes], random.Random], bytes]


@dataclasses.dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        seeds: good files, made in a folder that is empty.
        read: reads a file's bytes; may use the folder. Raises a DelfError for what is no such file.
        mutate: makes a hostile variant of a good file.
    """

    seeds: Callable[[Path], list[bytes]]
    read: Callable[[bytes, Path], object]
    mutate: Mutate = mutated


def features(count: int = 3, dimension: int = 4, seed: int = 0) -> LocalFeatures:
    """Random features."""
    random = np.random.default_rng(seed)
    descriptors = random.standard_normal((count, dimension)).astype(np.float32)
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-9)
    scores = np.sort(random.uniform(size=count).astype(np.float32))[::-1].copy()
    keypoints = random.uniform(0, 99, (count, 2)).astype(np.float32)
    return LocalFeatures(keypoints, np.ones(count, np.float32), scores, descriptors, image_size=(100, 120))


def of_file(suffix: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def run(data: bytes, folder: Path) -> object:
        path = folder / f"file{suffix}"
        path.write_bytes(data)
        return read(path)

    return run
