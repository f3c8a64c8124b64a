"""Search: an index ranks its photos for a query, the best are verified, and the surest matches come first."""

import abc
import dataclasses
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from delf_jax.errors import SearchIndexError
from delf_jax.extraction.calibration import Calibration
from delf_jax.features import LocalFeatures
from delf_jax.settings import ExtractionSettings
from delf_jax.store.reader import FeatureStore
from retrieval.compatibility import (
    finite_features,
    photos_with_names,
    require_dimension,
    require_same_extraction,
    require_same_model,
)
from retrieval.verification.acceptance_threshold import Acceptance, acceptance
from retrieval.verification.transforms import Model
from retrieval.verification.verify import Match, VerificationSettings
from retrieval.voting import RankedPhotos

FirstStage = Literal["votes", "asmk"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The parameters of a search that are rarely changed.

    Attributes:
        neighbours: nearest descriptors that vote, for each descriptor of the query; more where these are of one photo
            or equally near, as copies of one photo are.
        assignments: visual words of each descriptor of the query, for ASMK.
        model: kind of transform: "similarity", "affine", "homography" or "fundamental".
        seed: of the random samples of RANSAC.
    """

    neighbours: int = 60
    assignments: int = 1
    model: Model = "affine"
    seed: int = 0


_DEFAULT_SETTINGS = SearchSettings()


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The answer to one query.

    Attributes:
        accepted: at least one of the matches is accepted: the index knows what the query shows.
        matches: the best first: accepted ones, and both these and the others by their evidence.
        acceptance: the threshold, and what is known of it.
        lost: shards of the index that had no part in the answer, and why; empty for an index in one piece.
    """

    accepted: bool
    matches: list[Match]
    acceptance: Acceptance
    lost: Mapping[str, str] = dataclasses.field(default_factory=dict)


@runtime_checkable
class Snapshot(Protocol):
    """The photos of an index in one state: what a search asks them. A photo goes by its number."""

    def first_stage(
        self, query: LocalFeatures, stage: FirstStage, settings: SearchSettings, exclude: Collection[str]
    ) -> RankedPhotos:
        """Ranks the photos without geometry, and leaves out those whose names are in ``exclude``."""

    def verify(
        self, query: LocalFeatures, photos: RankedPhotos, settings: VerificationSettings
    ) -> tuple[dict[int, Match], Mapping[str, str]]:
        """The matches of these photos by their numbers, and the shards that did not answer, with the reasons."""

    def names_of(self, photos: RankedPhotos) -> dict[int, str]:
        """Names of these photos by their numbers."""


class SearchableIndex(abc.ABC):
    """Photos that can be searched by their local features: the one interface of ``Index`` and ``ShardedIndex``.

    An index with a ``path`` lives in that folder: a change of the index also changes the folder, as a whole or not at
    all. Such an index was opened from a folder or built into one. An index without a path is in memory alone; ``save``
    writes a copy of it.

    Attributes:
        settings: what the features were extracted with; None if the index was built without.
        fingerprint: of the model that made the features; None if the index was built without.
        threshold: matches are accepted at or below this ``log10_nfa``, if there is no calibration.
        calibration: the thresholds that were calibrated on strangers; None if there are none. `delf-jax calibrate` and
            ``calibrate`` choose them for this index.
        head_path: the head file of features that were adapted to their collection; None for the model's own head.
        path: the folder that changes with the index; None if there is none.
    """

    settings: ExtractionSettings | None
    fingerprint: str | None
    threshold: float
    calibration: Calibration | None
    head_path: Path | None
    path: Path | None

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of photos, also of those without features."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the photos in the order they were added."""

    @property
    @abc.abstractmethod
    def feature_count(self) -> int:
        """Number of features of all photos."""

    @property
    @abc.abstractmethod
    def dimension(self) -> int:
        """Dimension of the descriptors."""

    @property
    @abc.abstractmethod
    def backend(self) -> str:
        """What finds nearest neighbours: ``scann`` or ``exact``."""

    @abc.abstractmethod
    def features(self, name: str) -> LocalFeatures:
        """The features of a photo, descriptors in float16.

        Raises:
            SearchIndexError: there is no such photo.
        """

    @abc.abstractmethod
    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a copy of the index as a folder that appears whole or not at all; replaces an index that is there.

        Raises:
            SearchIndexError: ``path`` is something else than an index, or cannot be written.
        """

    def require(self, fingerprint: str) -> None:
        """Refuses features of another model, whose distances to those of this index mean nothing.

        Raises:
            SearchIndexError: ``fingerprint`` is not that of the index.
        """
        require_same_model(self, fingerprint)

    def add(self, photos: FeatureStore | Iterable[tuple[str, LocalFeatures]]) -> None:
        """Adds photos; a photo whose name is in the index already is replaced.

        Raises:
            SearchIndexError: another model or other settings made them, a name comes twice, dimensions differ, or the
                folder of the index cannot be written.
        """
        self.change(added=photos)

    def remove(self, names: Collection[str]) -> None:
        """Takes photos out.

        Raises:
            SearchIndexError: there is no such photo, no feature would be left, or the folder cannot be written.
        """
        self.change(removed=names)

    def change(
        self, *, removed: Collection[str] = (), added: FeatureStore | Iterable[tuple[str, LocalFeatures]] = ()
    ) -> None:
        """Takes photos out and adds others in one step, as ``remove`` and ``add`` do; it fails as a whole.

        Raises:
            SearchIndexError: as ``remove`` and ``add``.
        """
        if isinstance(added, FeatureStore):
            require_same_extraction(self, added)
        new: dict[str, LocalFeatures] = {}
        for name, features in photos_with_names(added):
            if name in new:
                raise SearchIndexError(f"{name}: comes twice; give every photo a name of its own")
            new[name] = dataclasses.replace(features, descriptors=np.asarray(features.descriptors, np.float16))
        self._change(removed, new)

    def search(
        self,
        features: LocalFeatures,
        *,
        first_stage: FirstStage = "votes",
        verify: int = 100,
        top: int = 10,
        exclude: Collection[str] = (),
        threshold: float | None = None,
        max_side: int | None = None,
        settings: SearchSettings = _DEFAULT_SETTINGS,
    ) -> SearchResult:
        """The photos that show what the query shows, with geometric proof.

        The first stage ranks all photos: the nearest neighbours of every descriptor vote (see ``voting.votes``), or
        photos are compared word by word (ASMK). The best are verified by RANSAC in one call. A query without features
        gets an empty answer.

        Args:
            features: of one query photo, made by the model and the settings of this index.
            first_stage: "votes"; or "asmk", after ``Index.aggregate``. An index in shards has votes alone.
            verify: number of photos to verify; 0 ranks by the first stage alone, and accepts nothing.
            top: number of matches to return.
            exclude: names of photos that must not be found; the others are ranked as if these were not there.
            threshold: accept matches at or below this ``log10_nfa``; if not given, see ``acceptance``.
            max_side: longest side in pixels that the query was reduced to, if its features do not know it; that of the
                index if not given.
            settings: parameters that are rarely changed.

        Raises:
            SearchIndexError: the descriptors do not have the dimension of the index, the index cannot answer by this
                first stage, or no shard answers.
        """
        finite = finite_features(features)
        if threshold is None:
            calibrated = ("votes", SearchSettings.model, SearchSettings.neighbours)
            like_calibrated = (first_stage, settings.model, settings.neighbours) == calibrated
            accepts = self.acceptance(len(finite), verify=verify, like_calibrated=like_calibrated)
        else:
            accepts = Acceptance(threshold=threshold, other_search=self.calibration is not None)
        if not len(finite):
            return SearchResult(False, [], accepts)
        require_dimension(finite, self.dimension)
        photos = self._snapshot()
        ranked = photos.first_stage(finite, first_stage, settings, exclude)
        best, rest = ranked.part(0, verify), ranked.part(verify, max(top, verify))
        how = VerificationSettings(
            model=settings.model,
            threshold=accepts.threshold,
            max_side=(self.settings or ExtractionSettings()).max_side,
            query_max_side=max_side,
            seed=settings.seed,
            photos_verified=min(verify, len(self)),
        )
        verified, lost = photos.verify(features, best, how)
        matches = sorted((verified[n] for n in best.numbers.tolist() if n in verified), key=Match.rank)
        names = photos.names_of(rest)
        matches += [
            Match.unverified(names[number], score, how)
            for number, score in zip(rest.numbers.tolist(), rest.scores.tolist())
            if number in names
        ]
        accepted = any(match.accepted for match in matches)
        return SearchResult(accepted, matches[:top], accepts, {**ranked.lost, **lost})

    def search_all(
        self,
        photos: FeatureStore | Iterable[tuple[str, LocalFeatures]],
        *,
        others: bool = False,
        first_stage: FirstStage = "votes",
        verify: int = 100,
        top: int = 10,
        threshold: float | None = None,
        settings: SearchSettings = _DEFAULT_SETTINGS,
    ) -> Iterator[tuple[str, SearchResult]]:
        """Searches for every photo of a store, or of a stream (name, features); no photo is read again.

        Args:
            photos: the queries, made by the model and the settings of this index.
            others: leave out the photo of the same name, and exact copies: photos of the store whose files have the
                same bytes.
            first_stage, verify, top, threshold, settings: as in ``search``.

        Yields:
            The name of each photo and its answer, in the order of ``photos``.

        Raises:
            SearchIndexError: as ``search``; or a store was made by another model, or with other settings.
            StoreError: the store cannot be read.
        """
        copies: dict[str, list[str]] = {}
        if isinstance(photos, FeatureStore):
            require_same_extraction(self, photos)
            copies = _copies(photos.content_hashes()) if others else {}
        for name, features in photos_with_names(photos):
            exclude = copies.get(name, [name]) if others else ()
            yield (
                name,
                self.search(
                    features,
                    first_stage=first_stage,
                    verify=verify,
                    top=top,
                    exclude=exclude,
                    threshold=threshold,
                    settings=settings,
                ),
            )

    def acceptance(self, features: int, *, verify: int = 100, like_calibrated: bool = True) -> Acceptance:
        """When the matches of a query of so many features are accepted, and how often wrongly.

        Args:
            features: of the query.
            verify: number of photos that are verified.
            like_calibrated: the search goes as those of the calibration: by votes of as many neighbours, with affine
                transforms. The threshold is the same if not, or if more photos are verified than the calibration
                covers, but nothing is known of its wrong acceptances.
        """
        verified = min(verify, len(self))
        found = acceptance(self.calibration, self.threshold, features=features, photos=len(self), verified=verified)
        if self.calibration is None or (like_calibrated and self.calibration.covers(verified)):
            return found
        return dataclasses.replace(found, calibration=None, other_search=True)

    def calibrate(self, calibration: Calibration) -> None:
        """Takes the thresholds of a calibration on strangers (``retrieval.calibration``), also in the folder.

        Raises:
            SearchIndexError: it was made with other features, the folder cannot be written, or others have changed it.
        """
        # A calibration on an index of unknown features has no fingerprint either.
        if not calibration.fits(self.settings or ExtractionSettings(), self.fingerprint or ""):
            raise SearchIndexError(
                "the calibration was made with another model, scorer or detection than the index; calibrate this index"
            )
        self._calibrate(calibration)

    @abc.abstractmethod
    def _snapshot(self) -> Snapshot:
        """The photos as they are now; later changes do not show in it."""

    @abc.abstractmethod
    def _calibrate(self, calibration: Calibration) -> None:
        """Takes a calibration that fits."""

    @abc.abstractmethod
    def _change(self, removed: Collection[str], added: Mapping[str, LocalFeatures]) -> None:
        """Takes photos out, then adds others, in place of those of the same names."""


def _copies(hashes: Mapping[str, str]) -> dict[str, list[str]]:
    """For every photo the names of all photos of the same content, its own among them."""
    names = defaultdict(list)
    for name, content in hashes.items():
        names[content].append(name)
    return {name: names[content] for name, content in hashes.items()}
