"""The photos of one index in memory: their features, their nearest neighbours, and their visual words."""

import functools
from collections.abc import Collection, Mapping, Sequence
from itertools import chain

import numpy as np
from jaxtyping import Float, Int

from delf_jax.errors import SearchIndexError
from delf_jax.features import LocalFeatures
from retrieval.asmk import Codebook, InvertedFile, Kernel
from retrieval.compatibility import require_dimension
from retrieval.indexing.backends import Backend
from retrieval.indexing.columns import PhotoColumns
from retrieval.nearest import Neighbours, telling_neighbours
from retrieval.search import FirstStage, SearchSettings
from retrieval.verification.verify import Match, VerificationSettings, verify_candidates
from retrieval.voting import RankedPhotos, rank_by_scores, rank_by_votes


class IndexedPhotos:
    """p photos whose features can be searched. A photo's number is its place among the names.

    Attributes:
        columns: the features of all photos.
        backend: finds the nearest of their descriptors.
        inverted_file: of ASMK; None if there is none.
    """

    def __init__(self, columns: PhotoColumns, backend: Backend, inverted_file: InvertedFile | None = None) -> None:
        self.columns = columns
        self.backend = backend
        self.inverted_file = inverted_file

    @functools.cached_property
    def places(self) -> dict[str, int]:
        """The number of every photo by its name."""
        return {name: place for place, name in enumerate(self.columns.names)}

    def numbers_of(self, names: Collection[str]) -> Int[np.ndarray, " n"]:
        """The numbers of those of these names that are here."""
        return np.array([self.places[name] for name in names if name in self.places], np.int64)

    def number_of(self, name: str) -> int:
        """The number of a photo.

        Raises:
            SearchIndexError: there is no such photo.
        """
        if name not in self.places:
            raise unknown_photo(name)
        return self.places[name]

    def neighbours(self, query: LocalFeatures, count: int, exclude: Collection[str] = ()) -> Neighbours:
        """The nearest descriptors of each descriptor of a query: ``count``, and more where these tell no photos apart.

        Raises:
            SearchIndexError: the descriptors do not have the dimension of the index.
        """
        require_dimension(query, self.columns.descriptors.shape[1])
        vectors, excluded = np.asarray(query.descriptors, np.float32), self.numbers_of(exclude)

        def nearest(rows: Int[np.ndarray, " r"], count: int) -> Neighbours:
            found, similarities = self.backend.search(vectors[rows], count)
            photos = np.where(found >= 0, self.columns.photo_of(found), -1)
            if len(excluded):
                photos[np.isin(photos, excluded)] = -1
            return Neighbours(photos, similarities)

        return telling_neighbours(nearest, len(vectors), count, spare=count if len(excluded) else 0)

    def kernel_scores(self, query: LocalFeatures, *, assignments: int = 1) -> Float[np.ndarray, " p"]:
        """The ASMK similarity of every photo with a query; -inf if they share no word. See ``InvertedFile.scores``.

        Raises:
            SearchIndexError: the index has no inverted file, or the descriptors have another dimension.
        """
        if self.inverted_file is None:
            raise SearchIndexError("the index has no inverted file of ASMK; add one with `delf-jax index --asmk`")
        return self.inverted_file.scores(np.asarray(query.descriptors, np.float32), assignments=assignments)

    def first_stage(
        self, query: LocalFeatures, stage: FirstStage, settings: SearchSettings, exclude: Collection[str]
    ) -> RankedPhotos:
        """Ranks the photos by votes or by ASMK; those whose names are in ``exclude`` are left out."""
        if stage == "votes":
            return rank_by_votes(self.neighbours(query, settings.neighbours, exclude))
        scores = self.kernel_scores(query, assignments=settings.assignments)
        scores[self.numbers_of(exclude)] = -np.inf
        return rank_by_scores(scores)

    def verify(
        self, query: LocalFeatures, photos: RankedPhotos, settings: VerificationSettings
    ) -> tuple[dict[int, Match], Mapping[str, str]]:
        """The matches of these photos by their numbers; no shard is lost."""
        numbers = photos.numbers.tolist()
        candidates = [
            (self.columns.names[number], score, self.columns.features(number))
            for number, score in zip(numbers, photos.scores.tolist())
        ]
        return dict(zip(numbers, verify_candidates(query, candidates, settings))), {}

    def names_of(self, photos: RankedPhotos) -> dict[int, str]:
        """Names of these photos by their numbers."""
        return {number: self.columns.names[number] for number in photos.numbers.tolist()}

    def changed(self, removed: Collection[str], added: Mapping[str, LocalFeatures]) -> "IndexedPhotos":
        """Without the photos whose names are in ``removed`` or in ``added``, and with those ``added`` after the rest.

        This object must not be used afterwards, because the backend may change in place.

        Raises:
            SearchIndexError: there is no such photo, dimensions differ, or no feature would be left.
        """
        for name in removed:
            self.number_of(name)
        gone = np.array([name in removed or name in added for name in self.columns.names], bool)
        kept = (photo for photo, is_gone in zip(self.columns, gone) if not is_gone)
        columns = PhotoColumns.gather(chain(kept, added.items()))
        backend = self.backend.update(self.columns.rows_of(gone), columns.descriptors)
        inverted_file = self.inverted_file
        if inverted_file is not None:
            inverted_file = inverted_file.update(gone, ([photo.descriptors] for photo in added.values()))
        return IndexedPhotos(columns, backend, inverted_file)

    def aggregated(
        self, codebook: Codebook, kernel: Kernel | None, regions: Mapping[str, Sequence[LocalFeatures]]
    ) -> InvertedFile:
        """The inverted file of these photos, each with its regions."""
        descriptors = (
            [photo.descriptors, *(region.descriptors for region in regions.get(name, ()))]
            for name, photo in self.columns
        )
        return InvertedFile.build(descriptors, codebook, kernel=kernel)


def unknown_photo(name: str) -> SearchIndexError:
    """The error for a photo that is not in the index."""
    return SearchIndexError(f"{name}: is not in the index; give the path under which it was extracted")
