"""Verified matches of many pairs of photos, for structure from motion."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from delf_jax.features import LocalFeatures
from delf_jax.interchange.colmap import import_pycolmap
from delf_jax.interchange.pairs import PairMatches
from retrieval.search import SearchableIndex
from retrieval.verification.confidence import NfaSettings, log10_nfa
from retrieval.verification.overlays import on_overlay
from retrieval.verification.residuals import squared_epipolar_distance
from retrieval.verification.transforms import entries
from retrieval.verification.verify import CELL, MATCHES, bucket, domain_of, putative_matches

# Largest error of an inlier in pixels, at the size that features are computed at: half a cell of the feature map.
MAX_ERROR = 8.0
# Photos whose matches with the first of their pairs are found in one call.
AT_ONCE = 25
# COLMAP stops earlier if it is sure enough.
TRIALS = 10_000


def match_pairs(
    photos: Mapping[str, LocalFeatures],
    pairs: Iterable[tuple[str, str]],
    *,
    max_side: int,
    max_error: float = MAX_ERROR,
) -> Iterator[PairMatches]:
    """Mutual nearest neighbours of every pair of photos, and which of them agree on one fundamental matrix.

    COLMAP estimates the matrix (LO-RANSAC with a fixed seed). It finds one for almost every pair, even of unrelated
    photos. So a pair keeps it only if its number of false alarms is at most 1, with all ``photos`` counted as verified.

    Args:
        photos: features by name.
        pairs: names of two photos each. Neighbouring pairs with the same first photo are matched in one call.
        max_side: longest side in pixels that the features were computed at, if they do not know it.
        max_error: largest distance of an inlier from its epipolar lines, in pixels at that size.

    Yields:
        The matches of every pair that has any, in the order of ``pairs``. ``verified`` marks the inliers of
        ``fundamental``.

    Raises:
        FileFormatError: pycolmap is not installed.
    """
    verify = partial(_verify, max_side=max_side, max_error=max_error, photos_verified=len(photos))
    for first, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        query = photos[first]
        for batch in _batches((b for _, b in group), AT_ONCE):
            names = [name for name in batch if len(photos[name])]
            if not len(query) or not names:
                continue
            found = putative_matches(query, [photos[name] for name in names])
            for name, rows in zip(names, found, strict=True):
                if len(rows):
                    photo, (a, b) = photos[name], rows.T
                    cosines = np.sum(np.asarray(query.descriptors[a], np.float32) * photo.descriptors[b], axis=1)
                    yield PairMatches(first, name, rows, cosines, *verify(query, photo, rows))


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


def _verify(
    a: LocalFeatures,
    b: LocalFeatures,
    rows: Int[np.ndarray, "m 2"],
    *,
    max_side: int,
    max_error: float,
    photos_verified: int,
) -> tuple[Bool[np.ndarray, " m"], Float[np.ndarray, "3 3"] | None]:
    """The inliers of the fundamental matrix, and the matrix; no inliers and None if it is not accepted."""
    pycolmap = import_pycolmap()
    # Both photos at the size that features were computed at, because COLMAP takes one limit of error for both.
    domains = [domain_of(photo, max_side) for photo in (a, b)]
    scales = [1 / domain.pixel for domain in domains]
    src, dst = (scale * photo.keypoints[row].astype(np.float64) for scale, photo, row in zip(scales, (a, b), rows.T))
    options = pycolmap.RANSACOptions(max_error=max_error, max_num_trials=TRIALS, random_seed=0)
    found = pycolmap.estimate_fundamental_matrix(src, dst, options)
    if found is not None:
        padding = [(0, bucket(len(rows), smallest=MATCHES) - len(rows)), (0, 0)]
        x0, y0, x1, y1, area, _ = domains[1]
        size = scales[1] * np.array([y1 - y0, x1 - x0])
        nfa = NfaSettings(size, photos_verified, (CELL, CELL), scales[1] ** 2 * area)
        # COLMAP counts inliers by Sampson errors, which are smaller. This stricter count gives more accurate poses.
        log10, distances = _evidence(found["F"], np.pad(src, padding), np.pad(dst, padding), len(rows), max_error, nfa)
        if log10 <= 0:
            inliers = np.asarray(distances)[: len(rows)] < max_error
            lies = on_overlay(a, b, rows, inliers, domains=(domains[0], domains[1]))
            if lies.any():
                inliers, tries = np.zeros(len(rows), bool), 2 * photos_verified
                inliers[~lies], fundamental = _verify(
                    a, b, rows[~lies], max_side=max_side, max_error=max_error, photos_verified=tries
                )
                return inliers, fundamental
            into_a, into_b = (np.diag([scale, scale, 1]) for scale in scales)
            return inliers, into_b @ found["F"] @ into_a
    return np.zeros(len(rows), bool), None


@jax.jit
def _evidence(
    fundamental: Float[Array, "3 3"],
    src: Float[Array, "n 2"],
    dst: Float[Array, "n 2"],
    count: Int[Array, ""],
    max_error: Float[Array, ""],
    nfa: NfaSettings,
) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """``log10_nfa`` of the first ``count`` matches, and how far each match lies from its two epipolar lines at most."""
    lines = entries((fundamental / jnp.linalg.norm(fundamental))[None])
    distances = jnp.sqrt(squared_epipolar_distance(lines, (*src.T,), (*dst.T,), src_to_dst_scale=jnp.ones(())))
    where = jnp.arange(len(src)) < count
    return log10_nfa(src, dst, where, distances, model="fundamental", threshold=max_error, nfa=nfa), distances


def _batches(names: Iterable[str], size: int) -> Iterator[Collection[str]]:
    iterator = iter(names)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
