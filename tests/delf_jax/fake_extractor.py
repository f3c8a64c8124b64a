"""An extractor that needs no network: a photo's features are simple functions of its pixels."""

import time
from collections.abc import Iterable, Iterator

import numpy as np

from delf_jax.errors import ImageError
from delf_jax.features import LocalFeatures
from delf_jax.photos.load import load_photo
from delf_jax.settings import ExtractionSettings


class FakeExtractor:
    """One feature for each of the first ``count`` pixels, of as many as the photo has; counts what it was asked."""

    fingerprint = "fake"
    dimension = 4

    def __init__(self, settings: ExtractionSettings | None = None, *, seconds: float = 0, count: int = 5) -> None:
        self.settings = settings or ExtractionSettings()
        self.seconds = seconds
        self.count = count
        self.asked: list[str] = []

    def stream(
        self, items: Iterable[tuple[str, str]], *, workers: int | None = None
    ) -> Iterator[tuple[str, LocalFeatures | ImageError, str | None]]:
        """Features of each photo, one at a time."""
        for key, source in items:
            self.asked.append(key)
            time.sleep(self.seconds)
            try:
                photo = load_photo(source, max_side=None)
            except ImageError as error:
                yield key, error, None
            else:
                yield key, features_of(photo.pixels, self.count), photo.content_hash


def features_of(pixels: np.ndarray, count: int) -> LocalFeatures:
    """Descriptors follow the colours of the first pixels."""
    colours = pixels.reshape(-1, 3)[:count].astype(np.float32)
    n = len(colours)
    descriptors = np.concatenate([colours, np.ones((n, 1), np.float32)], axis=1)
    return LocalFeatures(
        keypoints=np.stack([np.arange(n), np.zeros(n)], axis=1).astype(np.float32),
        scales=np.ones(n, np.float32),
        scores=np.linspace(1, 0.5, n, dtype=np.float32),
        descriptors=descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
        image_size=(pixels.shape[0], pixels.shape[1]),
    )
