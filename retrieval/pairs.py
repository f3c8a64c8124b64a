"""Verified matches of many pairs of photos, for structure from motion."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np

from delf_jax.features import LocalFeatures
from delf_jax.interchange.pairs import PairMatches
from retrieval.search import SearchableIndex
from retrieval.verification.verify import CANDIDATES, VerificationSettings, verify_candidates

# Largest distance from the epipolar line in pixels, at the size that features are computed at: half a cell of the
# feature map.
EPIPOLAR_RADIUS = 8.0


def match_pairs(
    photos: Mapping[str, LocalFeatures],
    pairs: Iterable[tuple[str, str]],
    *,
    max_side: int,
    radius: float = EPIPOLAR_RADIUS,
    threshold: float = 0.0,
    seed: int = 0,
) -> Iterator[PairMatches]:
    """Mutual nearest neighbours of every pair of photos, and which of them agree on one fundamental matrix.

    Neighbouring pairs with the same first photo are verified in one call.

    Args:
        photos: features by name.
        pairs: names of two photos each.
        max_side: longest side in pixels that the features were computed at.
        radius: largest distance of an inlier from its epipolar line, in pixels at that size.
        threshold: a pair gets a fundamental matrix if its ``log10_nfa``, with all ``photos`` counted as verified, is at
            or below it.
        seed: of the random samples.

    Yields:
        The matches of every pair that has any, in the order of ``pairs``. ``verified`` marks the inliers of
        ``fundamental``.
    """
    settings = VerificationSettings(
        model="fundamental",
        threshold=threshold,
        max_side=max_side,
        seed=seed,
        radius=radius,
        photos_verified=len(photos),
    )
    for first, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        for batch in _batches((b for _, b in group), CANDIDATES[-2]):
            query = photos[first]
            candidates = [(name, 0.0, photos[name]) for name in batch if len(photos[name])]
            if not len(query):
                continue
            for match in verify_candidates(query, candidates, settings):
                if not match.putative:
                    continue
                a, b = match.rows.T
                theirs = photos[match.image].descriptors[b]
                cosines = np.sum(np.asarray(query.descriptors[a], np.float32) * theirs, axis=1)
                verified = match.is_inlier & match.accepted
                fundamental = None
                if match.accepted and match.transform is not None:
                    fundamental = np.asarray(match.transform, np.float64)
                yield PairMatches(first, match.image, match.rows, cosines, verified, fundamental)


def retrieved_pairs(
    index: SearchableIndex, photos: Mapping[str, LocalFeatures], *, top: int
) -> Iterator[tuple[str, str]]:
    """Pairs of each photo with the ``top`` others that have most votes in the index; every pair comes once.

    ``photos`` are features by the names in the index, made with its model and settings.
    """
    seen: set[frozenset[str]] = set()
    for name, features in photos.items():
        found = index.search(features, verify=0, top=top, exclude=[name])
        for match in found.matches:
            pair = frozenset((name, match.image))
            if match.image in photos and pair not in seen:
                seen.add(pair)
                yield name, match.image


def _batches(names: Iterable[str], size: int) -> Iterator[Collection[str]]:
    iterator = iter(names)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
