"""The index of one process: photos and their descriptors, in memory and in a folder."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from delf_jax.errors import SearchIndexError, one_line
from delf_jax.extraction.calibration import Calibration
from delf_jax.features import LocalFeatures
from delf_jax.files import atomic
from delf_jax.files.changer import Version, only_changer, undisturbed
from delf_jax.settings import ExtractionSettings
from delf_jax.store.reader import FeatureStore
from retrieval.asmk import Codebook, InvertedFile, Kernel
from retrieval.compatibility import photos_with_names
from retrieval.indexing import manifest
from retrieval.indexing.backends import BackendName, backend_class
from retrieval.indexing.columns import ColumnWriter, PhotoColumns
from retrieval.indexing.description import IndexDescription
from retrieval.indexing.indexed_photos import IndexedPhotos
from retrieval.nearest import Neighbours
from retrieval.search import SearchableIndex

HEAD = "head.safetensors"
BACKEND = "backend"
ASMK = "asmk"


class Index(SearchableIndex):
    """An index in one piece, which one process holds.

    ``build`` makes it in memory or, with ``out``, in a folder; ``open`` takes it from its folder. Of several processes
    that change an index in a folder, one at a time does, and one that has opened it before another changed it is told
    to open it again. Who only searches is not disturbed.

    Costs of a feature with d dimensions: on disk 2 d bytes and 16 of geometry, both mapped, not read; in memory those
    of the backend, 4 d for exact and about 2.5 d for ScaNN. Building with ScaNN holds 15 d for a while. Building
    without ``out``, ``add`` and ``remove`` hold the columns too, twice.
    """

    def __init__(
        self,
        photos: IndexedPhotos,
        description: IndexDescription,
        *,
        path: Path | None = None,
    ) -> None:
        self._photos = photos
        self.settings = description.settings
        self.fingerprint = description.fingerprint
        self.threshold = description.threshold
        self.calibration = description.calibration
        self.head_path = description.head_path
        self.path = path
        self._version: Version | None = None

    @classmethod
    def build(
        cls,
        photos: FeatureStore | Iterable[tuple[str, LocalFeatures]],
        *,
        backend: BackendName = "auto",
        settings: ExtractionSettings | None = None,
        fingerprint: str | None = None,
        threshold: float | None = None,
        head_path: str | os.PathLike[str] | None = None,
        out: str | os.PathLike[str] | None = None,
    ) -> "Index":
        """Indexes a feature store, or any stream of (name, features).

        Args:
            photos: what to index; a name may come once.
            backend: ``auto`` is ``scann`` if it is installed, else ``exact``.
            settings: of the extraction; a store brings its own, as it does ``fingerprint`` and ``head_path``.
            fingerprint: ``Extractor.fingerprint`` of the model that made the features.
            threshold: accept matches at or below this ``log10_nfa``; if not given, the calibration of the head file, or
                of the model's own head, or ``DEFAULT_THRESHOLD`` if no head is calibrated.
            head_path: head file to keep in the index.
            out: folder of the index; an older index there is replaced. The features of the photos are written one photo
                at a time, and memory holds the backend alone.

        Raises:
            SearchIndexError: no photo has a feature, a name comes twice, dimensions differ, no such backend, or
                ``out`` cannot be written.
        """
        searcher = backend_class(backend)
        description = IndexDescription.of(
            photos, settings=settings, fingerprint=fingerprint, threshold=threshold, head_path=head_path
        )
        if out is None:
            columns = PhotoColumns.gather(photos_with_names(photos))
            return cls(IndexedPhotos(columns, searcher.build(columns.descriptors)), description)
        path = Path(out)
        with only_changer(path, SearchIndexError):
            with replacing_index(path) as folder:
                with ColumnWriter(folder) as writer:
                    for name, features in photos_with_names(photos):
                        writer.add(name, features)
                    columns = writer.finish()
                built = searcher.build(columns.descriptors)
                cls(IndexedPhotos(columns, built), description).complete_folder(folder)
            if description.head_path is not None:
                description = dataclasses.replace(description, head_path=path / HEAD)
            index = cls(IndexedPhotos(PhotoColumns.open(path), built), description, path=path)
            index._version = Version.of(path, manifest.NAME)
        return index

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, read_only: bool = False) -> "Index":
        """Opens an index in its folder, after comparing every file with its checksum.

        An index of ScaNN opens with the exact backend if ScaNN is not installed.

        Args:
            path: the folder.
            read_only: never write into the folder; changes stay in memory.

        Raises:
            SearchIndexError: the index is missing, damaged, or made by a newer version.
        """
        folder = Path(path)

        def read() -> "Index":
            damaged = manifest.damage(folder, manifest.read(folder))
            if damaged:
                raise SearchIndexError(f"{folder}: damaged, {damaged[0]}; build the index again")
            index = cls.open_checked(folder)
            index._version = Version.of(folder, manifest.NAME)
            return index

        index = undisturbed(folder / manifest.NAME, read)
        index.path = None if read_only else folder
        return index

    @classmethod
    def open_checked(cls, folder: Path) -> "Index":
        """Opens, read-only, a folder whose files have just been compared with their checksums."""
        described = manifest.read(folder)
        try:
            columns = PhotoColumns.open(folder)
            name = described["backend"]
            searcher = backend_class("auto" if name == "scann" else name)
            backend = (
                searcher.open(folder / BACKEND, columns.descriptors)
                if searcher.name == name
                else searcher.build(columns.descriptors)
            )
            inverted_file = InvertedFile.open(folder / ASMK) if (folder / ASMK).is_dir() else None
            head_path = folder / HEAD if HEAD in described["files"] else None
            description = IndexDescription.from_json(described, head_path=head_path)
            return cls(IndexedPhotos(columns, backend, inverted_file), description)
        except (KeyError, TypeError, ValueError, OverflowError, OSError, RuntimeError) as error:
            reason = one_line(error)
            raise SearchIndexError(f"{folder}: damaged ({reason}); build the index again") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a copy of the index as a folder that appears whole or not at all; replaces an index that is there.

        Raises:
            SearchIndexError: ``path`` is something else than an index, cannot be written, or is the folder that this
                index was opened from or saved to before, and others have changed it since.
        """
        with only_changer(path, SearchIndexError):
            self._require_last(path)
            with replacing_index(path) as folder:
                self._photos.columns.save(folder)
                self.complete_folder(folder)
            if self._version is None or self._version.path == Path(path).resolve():
                self._version = Version.of(path, manifest.NAME)

    def _require_last(self, path: str | os.PathLike[str]) -> None:
        if self._version is not None:
            self._version.require_last(path, manifest.NAME, SearchIndexError)

    def complete_folder(self, folder: Path) -> None:
        """Completes a folder that holds the columns of this index: backend, head, and last the manifest."""
        (folder / BACKEND).mkdir()
        try:
            self._photos.backend.save(folder / BACKEND)
        except RuntimeError as error:  # ScaNN raises it if the disk is full
            raise OSError(str(error)) from error
        if self.inverted_file is not None:
            (folder / ASMK).mkdir()
            self.inverted_file.save(folder / ASMK)
        if self.head_path is not None:
            shutil.copyfile(self.head_path, folder / HEAD)
        description = IndexDescription(
            settings=self.settings,
            fingerprint=self.fingerprint,
            threshold=self.threshold,
            calibration=self.calibration,
        )
        manifest.write(
            folder,
            {
                "backend": self.backend,
                "photos": len(self),
                "features": self.feature_count,
                "dimension": self.dimension,
                **description.to_json(),
            },
        )

    def __len__(self) -> int:
        """Number of photos, also of those without features."""
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the photos in the order they were added."""
        return self._photos.columns.names

    @property
    def feature_count(self) -> int:
        """Number of features of all photos."""
        return len(self._photos.columns.descriptors)

    @property
    def dimension(self) -> int:
        """Dimension of the descriptors."""
        return int(self._photos.columns.descriptors.shape[1])

    @property
    def backend(self) -> str:
        """What finds nearest neighbours: ``scann`` or ``exact``."""
        return self._photos.backend.name

    @property
    def inverted_file(self) -> InvertedFile | None:
        """The inverted file that ``aggregate`` made; None if there is none."""
        return self._photos.inverted_file

    def features(self, name: str) -> LocalFeatures:
        """The features of a photo, descriptors in float16.

        Raises:
            SearchIndexError: there is no such photo.
        """
        return self._photos.columns.features(self._photos.number_of(name))

    def aggregate(
        self,
        codebook: Codebook,
        *,
        kernel: Kernel | None = None,
        regions: Mapping[str, Sequence[LocalFeatures]] | None = None,
    ) -> None:
        """Makes the inverted file of ASMK, for ``search(first_stage="asmk")``; it is a part of the index from then on.

        Args:
            codebook: words of descriptors of the same model, best trained on other photos.
            kernel: how photos are compared; ASMK* with 1 bit a dimension if not given.
            regions: features of parts of photos, by the photos' names: such a photo is represented by itself and its
                regions alike (Detect-to-Retrieve's R-ASMK). Photos that are added later have none.

        Raises:
            SearchIndexError: the codebook is of another model or dimension, or the folder cannot be written.
        """
        if None not in (codebook.fingerprint, self.fingerprint) and codebook.fingerprint != self.fingerprint:
            raise SearchIndexError(
                "the codebook is of another model than the index; make one from features of the same model"
            )
        with self._changing():
            inverted_file = self._photos.aggregated(codebook, kernel, regions or {})
            self._replace(IndexedPhotos(self._photos.columns, self._photos.backend, inverted_file))

    def neighbours(self, features: LocalFeatures, count: int, *, exclude: Collection[str] = ()) -> Neighbours:
        """The nearest descriptors of each descriptor of a query; a photo's number is its place in ``names``.

        They are ``count``, and more where these tell no photos apart; see ``nearest.telling_neighbours``.

        Raises:
            SearchIndexError: the descriptors do not have the dimension of the index.
        """
        return self._photos.neighbours(features, count, exclude)

    def kernel_scores(self, features: LocalFeatures, *, assignments: int = 1) -> Float[np.ndarray, " p"]:
        """The ASMK similarity of every photo with a query; -inf if they share no word. See ``InvertedFile.scores``.

        Raises:
            SearchIndexError: the index has no inverted file, or the descriptors have another dimension.
        """
        return self._photos.kernel_scores(features, assignments=assignments)

    def numbers_of(self, names: Collection[str]) -> Int[np.ndarray, " n"]:
        """The places among ``names`` of those of these photos that are in the index."""
        return self._photos.numbers_of(names)

    def _snapshot(self) -> IndexedPhotos:
        return self._photos

    def _calibrate(self, calibration: Calibration) -> None:
        with self._changing():
            if self.path is not None:
                try:
                    manifest.change(self.path, calibration=calibration.to_json())
                except OSError as error:
                    reason = one_line(error)
                    raise SearchIndexError(f"{self.path}: cannot be written ({reason}); free space") from error
                self._version = Version.of(self.path, manifest.NAME)
            self.calibration = calibration

    def _change(self, removed: Collection[str], added: Mapping[str, LocalFeatures]) -> None:
        with self._changing():
            self._replace(self._photos.changed(removed, added))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Keeps others from changing the folder; SearchIndexError if they have changed it since it was opened."""
        if self.path is None:
            yield
            return
        with only_changer(self.path, SearchIndexError):
            self._require_last(self.path)
            yield

    def _replace(self, photos: IndexedPhotos) -> None:
        """Takes other photos, in memory and in the folder."""
        self._photos = photos
        if self.path is None:
            return
        try:
            self.save(self.path)
        except SearchIndexError:
            # The folder is as it was before the change, so memory must be too.
            self._photos = self.open_checked(self.path)._photos
            raise
        # Mapped from the new files, the columns need no memory.
        photos.columns = PhotoColumns.open(self.path)


@contextlib.contextmanager
def replacing_index(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder that replaces the index at ``path`` if the block ends without an error.

    Raises:
        SearchIndexError: ``path`` is something else than an index, cannot be written, or others are changing it.
    """
    target = Path(path)
    try:
        with only_changer(target, SearchIndexError):
            if target.exists() and not (target.is_dir() and (manifest.is_index(target) or not any(target.iterdir()))):
                raise SearchIndexError(f"{target}: there is something else than an index; choose another name")
            with atomic.replacing_folder(target) as folder:
                yield folder
    except OSError as error:
        reason = one_line(error)
        raise SearchIndexError(
            f"{target}: cannot be written ({reason}); free space or choose another folder"
        ) from error
