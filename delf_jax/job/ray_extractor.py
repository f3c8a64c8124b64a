"""An extractor for the batch job that computes on a Ray cluster."""

from collections.abc import Callable, Iterable, Iterator

from delf_jax.errors import ClusterError, ImageError
from delf_jax.features import LocalFeatures
from delf_jax.job import ray_pool
from delf_jax.job.extraction_job import PhotoExtractor
from delf_jax.job.ray_pool import Result
from delf_jax.job.ray_session import Workers
from delf_jax.settings import ExtractionSettings
from delf_jax.store import parts
from delf_jax.store.parts import StoredPhoto

_TASK_PHOTOS = 8
_TASK_PHOTOS_ACCELERATOR = 256
"""A batch does not reach over two tasks: short ones would give an accelerator many batches that are nearly empty."""


class RayExtractor:
    """Gives the same features as the extractor that each worker loads.

    Attributes:
        settings: the settings of the extraction.
        fingerprint: of the model.
        dimension: length of a descriptor.
    """

    def __init__(
        self,
        load: Callable[[], PhotoExtractor],
        workers: Workers,
        *,
        settings: ExtractionSettings,
        fingerprint: str,
        dimension: int,
    ) -> None:
        """Starts nothing; ``stream`` does.

        Args:
            load: loads the extractor; called once in each worker.
            workers: from ``ray_session.connected``.
            settings, fingerprint, dimension: of that extractor.
        """
        self._load = load
        self._workers = workers
        self.settings = settings
        self.fingerprint = fingerprint
        self.dimension = dimension

    def stream(
        self, items: Iterable[tuple[str, str]], *, workers: int | None = None
    ) -> Iterator[tuple[str, LocalFeatures | ImageError, str | None]]:
        """Features of a stream of photos, out of order.

        Args:
            items: (key, path) pairs; each path is its own key.
            workers: decoding threads of each worker; None for as many as it has cores.

        Yields:
            The same as ``Extractor.stream``; descriptors are rounded to float16, as the store keeps them.

        Raises:
            ClusterError: the workers cannot start, or cannot continue.
        """
        make = _Extraction(self._load, self.fingerprint, workers)
        size = _TASK_PHOTOS if self._workers.accelerator is None else _TASK_PHOTOS_ACCELERATOR
        for result in ray_pool.map_photos(make, (path for _, path in items), self._workers, task_photos=size):
            for path, error in result.failed.items():
                yield path, error, None
            if result.data:
                for photo in parts.decode(result.data, dimension=self.dimension, as_kept=True):
                    yield photo.path, photo.features, photo.content_hash


class _Extraction:
    """Makes the function that extracts features in a worker."""

    def __init__(self, load: Callable[[], PhotoExtractor], fingerprint: str, threads: int | None) -> None:
        self._load = load
        self._fingerprint = fingerprint
        self._threads = threads

    def __call__(self, workers: Workers) -> ray_pool.Work:
        extractor = self._load()
        if extractor.fingerprint != self._fingerprint:
            raise ClusterError("a worker has other weights than this machine; put the same model on all nodes")
        threads = self._threads or workers.cpus

        def extract(paths: list[str]) -> Result:
            photos: list[StoredPhoto] = []
            failed: dict[str, ImageError] = {}
            for path, features, content_hash in extractor.stream(((path, path) for path in paths), workers=threads):
                if isinstance(features, ImageError):
                    failed[path] = features
                else:
                    photos.append(StoredPhoto(path, 0, 0, content_hash or "", features))
            if not photos:
                return Result(b"", failed)
            data = parts.encode(photos, dimension=extractor.dimension, fingerprint=extractor.fingerprint)
            return Result(data, failed)

        return extract
