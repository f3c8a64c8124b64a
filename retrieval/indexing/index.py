"""The search index: photos in, ranked and verified matches out; a folder on disk that is whole or refused."""

import contextlib
import dataclasses
import itertools
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from delf_jax.errors import SearchIndexError
from delf_jax.features import LocalFeatures
from delf_jax.files import atomic
from delf_jax.settings import ExtractionSettings
from delf_jax.store.reader import FeatureStore
from retrieval.asmk import Codebook, InvertedFile, Kernel
from retrieval.indexing import manifest
from retrieval.indexing.backends import Backend, BackendName, backend_class
from retrieval.indexing.columns import ColumnWriter, PhotoColumns
from retrieval.indexing.compatibility import (
    calibrated_threshold,
    named,
    require_dimension,
    require_same_extraction,
    require_same_model,
)
from retrieval.verification.transforms import Model
from retrieval.verification.verify import Match, SearchResult, VerificationSettings, verify_candidates
from retrieval.voting import ranking, votes

HEAD = "head.safetensors"
BACKEND = "backend"
ASMK = "asmk"

FirstStage = Literal["votes", "asmk"]


class Index:
    """Photos that can be searched by their local features.

    Costs a feature, with d dimensions: on disk 2 d bytes and 16 of geometry, both mapped, not read; in memory the
    backend's own, 4 d exact and about 2.5 d ScaNN. Building with ScaNN holds 15 d for a while; without ``out``, as in
    ``add`` and ``remove``, the columns too, twice.

    Attributes:
        settings: what the features were extracted with; None if the index was built without.
        fingerprint: of the model that made the features; None if the index was built without.
        threshold: matches are accepted at or below this ``log10_nfa``.
        head_path: the head file of features that were adapted to their collection; None for the model's own head.
    """

    def __init__(
        self,
        columns: PhotoColumns,
        backend: Backend,
        *,
        settings: ExtractionSettings | None,
        fingerprint: str | None,
        threshold: float,
        head_path: Path | None,
        inverted: InvertedFile | None = None,
    ) -> None:
        self._columns = columns
        self._backend = backend
        self._inverted = inverted
        self._places = {name: place for place, name in enumerate(columns.names)}
        self.settings = settings
        self.fingerprint = fingerprint
        self.threshold = threshold
        self.head_path = head_path

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
        """Index a feature store, or any stream of (name, features).

        Args:
            backend: ``auto`` is ``scann`` where it is installed and ``exact`` elsewhere.
            settings: of the extraction; a store brings its own, as it does ``fingerprint`` and ``head_path``.
            fingerprint: ``Extractor.fingerprint`` of the model that made the features.
            threshold: accept matches at or below this ``log10_nfa``; if not given, that of the head file, or of the
                model's own head, or ``DEFAULT_THRESHOLD`` where none is calibrated.
            head_path: head file to keep in the index.
            out: write the index there, as ``save`` does, on the way: the features of the photos go to the disk one
                photo at a time, and memory holds the backend alone.

        Raises:
            SearchIndexError: no photo has a feature, a name comes twice, dimensions differ, no such backend, or
                ``out`` cannot be written.
        """
        if isinstance(photos, FeatureStore):
            settings, fingerprint, head_path = photos.settings, photos.fingerprint, photos.head_path
        searcher = backend_class(backend)
        described: Any = {
            "settings": settings,
            "fingerprint": fingerprint,
            "threshold": calibrated_threshold(head_path, settings) if threshold is None else threshold,
            "head_path": None if head_path is None else Path(head_path),
        }
        if out is None:
            columns = PhotoColumns.gather(named(photos))
            return cls(columns, searcher.build(columns.descriptors), **described)
        with replacing_index(out) as folder:
            with ColumnWriter(folder) as writer:
                for name, features in named(photos):
                    writer.add(name, features)
                columns = writer.finish()
            index = cls(columns, searcher.build(columns.descriptors), **described)
            index.write_beside_columns(folder)
        head = Path(out) / HEAD if head_path is not None else None
        return cls(PhotoColumns.open(Path(out)), index._backend, **described | {"head_path": head})

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Index":
        """Open what ``save`` wrote, after comparing every file with its checksum.

        An index of ScaNN opens with the exact backend where ScaNN is not installed.

        Raises:
            SearchIndexError: missing, damaged, or made by a newer version.
        """
        folder = Path(path)
        damaged = manifest.damage(folder, manifest.read(folder))
        if damaged:
            raise SearchIndexError(f"{folder}: damaged, {damaged[0]}; build the index again")
        return cls.open_checked(folder)

    @classmethod
    def open_checked(cls, folder: Path) -> "Index":
        """``open`` for a folder whose files have been compared with their checksums a moment ago."""
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
            settings = described["settings"]
            return cls(
                columns,
                backend,
                settings=None if settings is None else ExtractionSettings.from_json(settings),
                fingerprint=described["fingerprint"],
                threshold=float(described["threshold"]),
                head_path=folder / HEAD if HEAD in described["files"] else None,
                inverted=InvertedFile.open(folder / ASMK) if (folder / ASMK).is_dir() else None,
            )
        except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise SearchIndexError(f"{folder}: damaged ({reason}); build the index again") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index as a folder that appears whole or not at all; an older index there is replaced.

        Raises:
            SearchIndexError: ``path`` is something else than an index, or cannot be written.
        """
        with replacing_index(path) as folder:
            self._columns.save(folder)
            self.write_beside_columns(folder)

    def write_beside_columns(self, folder: Path) -> None:
        """Completes a folder that holds the columns of this index: backend, head, and last the manifest."""
        (folder / BACKEND).mkdir()
        try:
            self._backend.save(folder / BACKEND)
        except RuntimeError as error:  # what ScaNN says of a full disk
            raise OSError(str(error)) from error
        if self._inverted is not None:
            (folder / ASMK).mkdir()
            self._inverted.save(folder / ASMK)
        if self.head_path is not None:
            shutil.copyfile(self.head_path, folder / HEAD)
        manifest.write(folder, self._description())

    def __len__(self) -> int:
        """Number of photos, those without features included."""
        return len(self._columns.names)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the photos."""
        return self._columns.names

    @property
    def feature_count(self) -> int:
        """Number of features of all photos."""
        return len(self._columns.descriptors)

    @property
    def dimension(self) -> int:
        """Dimension of the descriptors."""
        return int(self._columns.descriptors.shape[1])

    @property
    def backend(self) -> str:
        """Which backend searches: ``scann`` or ``exact``."""
        return self._backend.name

    def features(self, name: str) -> LocalFeatures:
        """The features of a photo, descriptors in float16.

        Raises:
            SearchIndexError: there is no such photo.
        """
        return self._columns.features(self._place(name))

    def require(self, fingerprint: str) -> None:
        """Refuse features of another model: their distances to those of this index mean nothing.

        Raises:
            SearchIndexError: ``fingerprint`` is not that of the index.
        """
        require_same_model(self, fingerprint)

    def add(self, photos: FeatureStore | Iterable[tuple[str, LocalFeatures]]) -> None:
        """Add photos; one whose name is there already takes the place of the old one.

        Raises:
            SearchIndexError: another model or other settings made them, a name comes twice, or dimensions differ.
        """
        if isinstance(photos, FeatureStore):
            require_same_extraction(self, photos)
        new = [
            (name, dataclasses.replace(features, descriptors=np.asarray(features.descriptors, np.float16)))
            for name, features in named(photos)
        ]
        replaced = {name for name, _ in new} & self._places.keys()
        self.change(replaced, new)

    def remove(self, names: Collection[str]) -> None:
        """Take photos out.

        Raises:
            SearchIndexError: there is no such photo, or no feature would be left.
        """
        self.change({self._columns.names[self._place(name)] for name in names}, [])

    @property
    def inverted_file(self) -> InvertedFile | None:
        """What ``aggregate`` made; None without it."""
        return self._inverted

    def aggregate(
        self,
        codebook: Codebook,
        *,
        kernel: Kernel | None = None,
        regions: Mapping[str, Sequence[LocalFeatures]] | None = None,
    ) -> None:
        """Make the inverted file of ASMK, for ``search(first_stage="asmk")``; it is saved with the index.

        Args:
            codebook: words of descriptors of the same model, best trained on other photos.
            kernel: how photos are compared; ASMK* of 1 bit a dimension if not given.
            regions: features of parts of photos, by the photos' names: a photo is then represented by itself and its
                regions alike (Detect-to-Retrieve's R-ASMK). Photos that are added later have none.

        Raises:
            SearchIndexError: the codebook is of another model or dimension.
        """
        if None not in (codebook.fingerprint, self.fingerprint) and codebook.fingerprint != self.fingerprint:
            raise SearchIndexError(
                "the codebook is of another model than the index; make one from features of the same model"
            )
        parts = regions or {}
        self._inverted = InvertedFile.build(
            (
                [photo.descriptors, *(region.descriptors for region in parts.get(name, ()))]
                for name, photo in self._columns
            ),
            codebook,
            kernel,
        )

    def neighbours(
        self, features: LocalFeatures, count: int
    ) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
        """The places of the photos that own each descriptor's nearest descriptors (-1: none), and the similarities.

        Raises:
            SearchIndexError: the descriptors do not have the dimension of the index.
        """
        require_dimension(features, self.dimension)
        rows, similarities = self._backend.search(np.asarray(features.descriptors, np.float32), count)
        return np.where(rows >= 0, self._columns.photo_of(rows), -1), similarities

    def kernel_scores(self, features: LocalFeatures, *, assignments: int = 1) -> Float[np.ndarray, " p"]:
        """ASMK similarity of every photo with a query, -inf where they share no word; see ``InvertedFile.scores``.

        Raises:
            SearchIndexError: the index has no inverted file, or other descriptors.
        """
        if self._inverted is None:
            raise SearchIndexError("the index has no inverted file of ASMK; add one with `delf-jax index --asmk`")
        return self._inverted.scores(np.asarray(features.descriptors, np.float32), assignments=assignments)

    def search(
        self,
        features: LocalFeatures,
        *,
        first_stage: FirstStage = "votes",
        assignments: int = 1,
        neighbours: int = 60,
        verify: int = 100,
        top: int = 10,
        model: Model = "affine",
        threshold: float | None = None,
        max_side: int | None = None,
        exclude: Collection[str] = (),
        seed: int = 0,
    ) -> SearchResult:
        """The photos that show what the query shows, with geometric proof.

        Every descriptor's neighbours vote for their photos (see ``voting.votes``), or photos are compared word by word
        (``asmk``, after ``aggregate``); the best are verified in one RANSAC call. A query without features has an
        answer too: nothing.

        Args:
            features: of one query photo, made by the model and the settings of this index.
            first_stage: "votes" or "asmk".
            assignments: words that each descriptor of the query belongs to, for asmk.
            neighbours: per descriptor, for votes.
            verify: photos verified; 0 ranks by the first stage alone, and accepts nothing.
            top: matches returned.
            model: of the geometry: "similarity", "affine", "homography" or "fundamental".
            threshold: accept at or below this ``log10_nfa``; the index's own if not given.
            max_side: longest side in pixels that the query was looked at; that of the index if not given.
            exclude: names of photos that must not be found.
            seed: of the random samples.

        Raises:
            SearchIndexError: the descriptors do not have the dimension of the index.
        """
        if not len(features):
            return SearchResult(False, [])
        if first_stage == "votes":
            scores = votes(*self.neighbours(features, neighbours), photo_count=len(self))
        else:
            scores = self.kernel_scores(features, assignments=assignments)
        scores[self.places(exclude)] = -np.inf
        ranked = ranking(scores)
        candidates = [
            (self.names[place], float(scores[place]), self._columns.features(int(place))) for place in ranked[:verify]
        ]
        settings = VerificationSettings(
            model=model,
            threshold=self.threshold if threshold is None else threshold,
            max_side=(self.settings or ExtractionSettings()).max_side,
            query_max_side=max_side,
            seed=seed,
        )
        matches = verify_candidates(features, candidates, settings)
        unverified = ranked[verify : max(top, verify)]
        matches.sort(key=Match.rank)
        matches += [Match.unverified(self.names[place], float(scores[place]), model=model) for place in unverified]
        return SearchResult(any(match.accepted for match in matches), matches[:top])

    def places(self, names: Collection[str]) -> Int[np.ndarray, " n"]:
        """Where these photos are among ``names``; names of other photos are passed over."""
        return np.array([self._places[name] for name in names if name in self._places], np.int64)

    def _place(self, name: str) -> int:
        if name not in self._places:
            raise SearchIndexError(f"{name}: is not in the index; names are as they were extracted")
        return self._places[name]

    def change(self, removed: Collection[str], added: Collection[tuple[str, LocalFeatures]]) -> None:
        """Take out the photos whose names are in ``removed`` and put others behind the rest: both at one cost.

        Raises:
            SearchIndexError: a name comes twice, dimensions differ, or no feature would be left.
        """
        gone = np.array([name in removed for name in self.names], bool)
        kept = (photo for photo, is_gone in zip(self._columns, gone) if not is_gone)
        columns = PhotoColumns.gather(itertools.chain(kept, added))
        self._backend = self._backend.update(self._columns.rows_of(gone), columns.descriptors)
        if self._inverted is not None:
            self._inverted = self._inverted.update(gone, ([photo.descriptors] for _, photo in added))
        self._columns = columns
        self._places = {name: place for place, name in enumerate(columns.names)}

    def _description(self) -> dict[str, Any]:
        return {
            "backend": self.backend,
            "photos": len(self),
            "features": self.feature_count,
            "dimension": self.dimension,
            "fingerprint": self.fingerprint,
            "threshold": self.threshold,
            "settings": None if self.settings is None else self.settings.to_json(),
        }


@contextlib.contextmanager
def replacing_index(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder that takes the place of the index at ``path`` when the block ends well.

    Raises:
        SearchIndexError: ``path`` is something else than an index, or cannot be written.
    """
    target = Path(path)
    if target.exists() and not (target.is_dir() and (manifest.is_index(target) or not any(target.iterdir()))):
        raise SearchIndexError(f"{target}: there is something else than an index; choose another name")
    try:
        with atomic.replacing_folder(target) as folder:
            yield folder
    except OSError as error:
        reason = " ".join(str(error).split())
        raise SearchIndexError(
            f"{target}: cannot be written ({reason}); free space or choose another folder"
        ) from error
