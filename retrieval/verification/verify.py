"""Geometric verification of a query with candidate photos: matching, RANSAC, and the decision to accept."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from delf_jax.compiling import compiling_for
from delf_jax.features import Domain, LocalFeatures
from delf_jax.settings import ExtractionSettings
from retrieval.verification import overlays, ransac
from retrieval.verification.acceptance_threshold import DEFAULT_THRESHOLD, in_words, threshold_of
from retrieval.verification.chunks import map_chunks
from retrieval.verification.confidence import NfaSettings
from retrieval.verification.evidence import log10_odds
from retrieval.verification.matching import nearest_in_photos
from retrieval.verification.transforms import Model

# Enough if one match in fourteen is right. With half as many trials, aero1 and aero3 of the demo are found among 15
# photos by four of eight seeds; with these by seven.
TRIALS = 8000

# Largest error of an inlier, and side of the cells in which only one match counts (one stride of the feature map). Both
# are in pixels of the photos as they were reduced before extraction.
INLIER_RADIUS = 20.0
CELL = 16.0

# Numbers of matches and of features are padded to at least these, because each size is a program to compile.
MATCHES = 256
FEATURES = 128
# Photos that one call of the program for putative matches takes: 4 MiB of descriptors for photos of 1000 features.
PHOTOS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerificationSettings:
    """How the candidates of one query are verified.

    Attributes:
        model: kind of transform: "similarity", "affine", "homography" or "fundamental".
        threshold: a match is accepted at or below this ``log10_nfa``.
        max_side: longest side in pixels that the features of the candidates were computed at, if they do not know it.
        query_max_side: the same for the query; ``max_side`` if not given.
        seed: of the random samples.
        photos_verified: number of photos verified for the query, also by other calls; 0 if this call verifies them all.
    """

    model: Model = "affine"
    threshold: float = DEFAULT_THRESHOLD
    max_side: int = ExtractionSettings.max_side
    query_max_side: int | None = None
    seed: int = 0
    photos_verified: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Match:
    """One photo as an answer to a query.

    Attributes:
        image: name of the photo.
        score: votes of the first stage; 0 without a first stage.
        putative: number of mutual nearest neighbours, without those on an overlay; 0 if the photo was not verified.
        inliers: number of those that agree on the transform. Errors are measured in the photo and in the query, and the
            surer of the two counts.
        model: kind of transform.
        transform: float32 [3, 3], from (x, y, 1) of the query to the photo, in pixels of the upright originals (for
            ``fundamental``, F with photo^T F query = 0); None if the photo was not verified.
        log10_nfa: log10 of the expected number of false alarms, lower is surer; None if the photo was not verified.
        threshold: a match is accepted at or below this ``log10_nfa``.
        accepted: ``log10_nfa`` is at or below the threshold.
        query_points: float32 [putative, 2], the matched keypoints of the query.
        points: float32 [putative, 2], their partners in the photo.
        is_inlier: bool [putative].
        rows: int32 [putative, 2], the rows of the matched features: of the query, of the photo.
        overlay: number of matches on an overlay, such as a frame, a watermark or a caption that both photos carry. With
            them the match would have been accepted; they count nowhere else. 0 if there is none. See ``overlays``.
    """

    image: str
    score: float
    putative: int
    inliers: int
    model: Model
    transform: Float[np.ndarray, "3 3"] | None
    log10_nfa: float | None
    threshold: float
    accepted: bool
    query_points: Float[np.ndarray, "m 2"]
    points: Float[np.ndarray, "m 2"]
    is_inlier: Bool[np.ndarray, " m"]
    rows: Int[np.ndarray, "m 2"]
    overlay: int = 0

    @classmethod
    def unverified(cls, image: str, score: float, settings: VerificationSettings) -> "Match":
        """A photo ranked by the first stage alone."""
        points = np.zeros((0, 2), np.float32)
        rows = np.zeros((0, 2), np.int32)
        return cls(
            image=image,
            score=score,
            putative=0,
            inliers=0,
            model=settings.model,
            transform=None,
            log10_nfa=None,
            threshold=settings.threshold,
            accepted=False,
            query_points=points,
            points=points,
            is_inlier=np.zeros(0, bool),
            rows=rows,
        )

    @property
    def confidence(self) -> str:
        """How sure the match is, in words and numbers; see ``acceptance_threshold.in_words``."""
        sure = in_words(self.log10_nfa, self.threshold)
        return f"{sure}; {self.overlay} matches on an overlay of both photos do not count" if self.overlay else sure

    @property
    def evidence(self) -> float:
        """Votes and geometry in one number: log10 of odds, up to a constant of the query; see ``log10_odds``."""
        return float(log10_odds(self.score, np.inf if self.log10_nfa is None else self.log10_nfa))

    def rank(self) -> tuple[bool, float]:
        """What matches are sorted by: accepted ones first, then by their evidence."""
        return not self.accepted, -self.evidence


def match(
    features_a: LocalFeatures,
    features_b: LocalFeatures,
    *,
    threshold: float | None = None,
    model: Model = "affine",
    max_side: int = ExtractionSettings.max_side,
    seed: int = 0,
    name: str = "",
) -> Match:
    """Matches two photos and verifies the matches, as ``Index.search`` does with one candidate.

    Args:
        threshold: the match is accepted at or below this ``log10_nfa``; if not given, that of the features' model, or
            ``DEFAULT_THRESHOLD`` if they do not know it.
        model: "similarity", "affine", "homography" or "fundamental"; the transform leads from a to b.
        max_side: longest side in pixels that the features were computed at, if they do not know it.
        seed: of the random samples.
        name: of the second photo, for the result.
    """
    if threshold is None:
        threshold = threshold_of(features_a, features_b)
    settings = VerificationSettings(model=model, threshold=threshold, max_side=max_side, seed=seed)
    return verify_candidates(features_a, [(name, 0.0, features_b)], settings)[0]


def verify_candidates(
    query: LocalFeatures, candidates: Sequence[tuple[str, float, LocalFeatures]], settings: VerificationSettings
) -> list[Match]:
    """Verifies all candidates (name, votes, features), and returns their matches in the same order.

    Arrays are padded, so that queries and photos of all sizes share a few compiled programs; padding changes no result.
    Those that would be accepted by an overlay are verified once more without it.
    """
    if not candidates:
        return []
    if not settings.photos_verified:
        settings = dataclasses.replace(settings, photos_verified=len(candidates))
    return _verified(query, candidates, putative_matches(query, [features for _, _, features in candidates]), settings)


def _verified(
    query: LocalFeatures,
    candidates: Sequence[tuple[str, float, LocalFeatures]],
    rows: Sequence[Int[np.ndarray, "_m 2"]],
    settings: VerificationSettings,
) -> list[Match]:
    """Verifies candidates by the matches of these ``rows`` of the query and of each of them."""
    matches = _agreeing(query, candidates, rows, settings)
    rest: dict[int, Int[np.ndarray, "_m 2"]] = {}
    for place, match in enumerate(matches):
        if match.accepted:
            photo = candidates[place][2]
            domains = _domains(query, photo, settings)
            lies = overlays.on_overlay(query, photo, match.rows, match.is_inlier, domains=domains)
            if lies.any():
                rest[place] = match.rows[~lies]
    if rest:
        others = [candidates[place] for place in rest]
        # The transforms of both rounds have had their chance.
        twice = dataclasses.replace(settings, photos_verified=2 * settings.photos_verified)
        again = _verified(query, others, [*rest.values()], twice)
        for place, match in zip(rest, again, strict=True):
            matches[place] = dataclasses.replace(match, overlay=matches[place].putative - match.putative)
    return matches


def _agreeing(
    query: LocalFeatures,
    candidates: Sequence[tuple[str, float, LocalFeatures]],
    rows: Sequence[Int[np.ndarray, "_m 2"]],
    settings: VerificationSettings,
) -> list[Match]:
    """What the matches of these rows prove, those on overlays among them."""
    photos = [features for _, _, features in candidates]
    matches: dict[int, Match] = {}
    rooms = [bucket(len(each), smallest=MATCHES, factor=4) for each in rows]
    for room in set(rooms):
        places = [place for place, its in enumerate(rooms) if its == room]
        pairs = _padded_pairs(query, [photos[i] for i in places], [rows[i] for i in places], room, settings)
        results = _estimated(pairs, settings)
        for place, forth, back in zip(places, results, results[len(places) :]):
            matches[place] = _surer_match(query, candidates[place], rows[place], forth, back, settings)
    return [matches[place] for place in range(len(candidates))]


class _PaddedPairs(NamedTuple):
    """Putative matches of a query with photos: c photos and m matches after padding; side 0 is the query.

    Attributes:
        where: bool [c, m], the matches.
        points: float32 [2, c, m, 2], their keypoints.
        scales: float32 [2, c, m], their scales.
        sizes: float32 [2, c, 2], (height, width) of the box around the photos' domains.
        areas: float32 [2, c], of the domains.
        pixel: float32 [2, c], side of a pixel of the reduced photos, in pixels of the original ones.
    """

    where: Bool[np.ndarray, "c m"]
    points: Float[np.ndarray, "2 c m 2"]
    scales: Float[np.ndarray, "2 c m"]
    sizes: Float[np.ndarray, "2 c 2"]
    areas: Float[np.ndarray, "2 c"]
    pixel: Float[np.ndarray, "2 c"]


def _padded_pairs(
    query: LocalFeatures,
    photos: Sequence[LocalFeatures],
    matched: Sequence[Int[np.ndarray, "_m 2"]],
    room: int,
    settings: VerificationSettings,
) -> _PaddedPairs:
    """Gathers the features that ``matched`` pairs of rows of the query and of each photo, at most ``room``."""
    count = len(photos)
    where = np.zeros((count, room), bool)
    points, scales = np.zeros((2, count, room, 2), np.float32), np.ones((2, count, room), np.float32)
    sizes, areas, pixel = (np.ones((2, count, *shape), np.float32) for shape in ((2,), (), ()))
    for i, (photo, rows) in enumerate(zip(photos, matched, strict=True)):
        where[i, : len(rows)] = True
        for side, (features, domain) in enumerate(zip((query, photo), _domains(query, photo, settings))):
            points[side, i, : len(rows)] = features.keypoints[rows[:, side]]
            scales[side, i, : len(rows)] = features.scales[rows[:, side]]
            sizes[side, i] = domain.y1 - domain.y0, domain.x1 - domain.x0
            areas[side, i], pixel[side, i] = domain.area, domain.pixel
    return _PaddedPairs(where, points, scales, sizes, areas, pixel)


def _estimated(pairs: _PaddedPairs, settings: VerificationSettings) -> list[ransac.Verification]:
    """The results with errors in each photo, and then those with errors in the query.

    A surface seen at a slant is located well in only one of the two photos. So errors are measured in both.
    """
    count, room = pairs.where.shape
    found = ransac.estimate(
        pairs.points.reshape(2 * count, room, 2),
        pairs.points[::-1].reshape(2 * count, room, 2),
        np.concatenate([pairs.where, pairs.where]),
        key=jax.random.key(settings.seed),
        model=settings.model,
        trials=TRIALS,
        scales=(pairs.scales.reshape(2 * count, room), pairs.scales[::-1].reshape(2 * count, room)),
        threshold=INLIER_RADIUS * pairs.pixel[::-1].reshape(2 * count),
        nfa=NfaSettings(
            target_size=pairs.sizes[::-1].reshape(2 * count, 2),
            photos_verified=2 * settings.photos_verified,
            cell=CELL * np.stack([pairs.pixel.reshape(2 * count), pairs.pixel[::-1].reshape(2 * count)], axis=1),
            target_area=pairs.areas[::-1].reshape(2 * count),
        ),
    )
    return [ransac.Verification(*fields) for fields in zip(*map(np.asarray, found), strict=True)]


def _surer_match(
    query: LocalFeatures,
    candidate: tuple[str, float, LocalFeatures],
    rows: Int[np.ndarray, "m 2"],
    forth: ransac.Verification,
    back: ransac.Verification,
    settings: VerificationSettings,
) -> Match:
    """The match by the surer of two results: with errors in the photo (``forth``), or in the query (``back``)."""
    name, votes, photo = candidate
    is_back = bool(back.log10_nfa < forth.log10_nfa)
    surer = back if is_back else forth
    transform = np.asarray(surer.transform)
    return Match(
        image=name,
        score=votes,
        putative=len(rows),
        inliers=int(surer.count),
        model=settings.model,
        transform=_reversed(transform, settings.model) if is_back else transform,
        log10_nfa=float(surer.log10_nfa),
        threshold=settings.threshold,
        accepted=bool(surer.log10_nfa <= settings.threshold),
        query_points=np.asarray(query.keypoints[rows[:, 0]], np.float32),
        points=np.asarray(photo.keypoints[rows[:, 1]], np.float32),
        is_inlier=np.asarray(surer.inliers)[: len(rows)],
        rows=rows,
    )


def _reversed(transform: Float[np.ndarray, "3 3"], model: Model) -> Float[np.ndarray, "3 3"]:
    """The transform from target to source."""
    if model == "fundamental":
        return transform.T
    inverse = np.linalg.inv(transform.astype(np.float64))
    return (inverse / inverse[2, 2]).astype(np.float32)


def putative_matches(query: LocalFeatures, photos: Sequence[LocalFeatures]) -> list[Int[np.ndarray, "m 2"]]:
    """Mutual nearest neighbours of the query in every photo, nearest first: int32 rows of the query and the photo."""
    count, dimension = len(photos), query.descriptors.shape[1]
    rows, room = (bucket(n, smallest=FEATURES) for n in (len(query), max(len(photo) for photo in photos)))
    ours = np.zeros((rows, dimension), np.float32)
    ours[: len(query)] = query.descriptors
    theirs = np.zeros((count, room, dimension), photos[0].descriptors.dtype)
    for place, photo in enumerate(photos):
        theirs[place, : len(photo)] = photo.descriptors
    ours_where, theirs_where = np.zeros(rows, bool), np.zeros((count, room), bool)
    ours_where[: len(query)] = _have_places(query)
    for place, photo in enumerate(photos):
        theirs_where[place, : len(photo)] = _have_places(photo)
    nearest = partial(nearest_in_photos, query=ours, where_query=ours_where)
    with compiling_for("the matching of photos"):
        found = map_chunks(nearest, (theirs, theirs_where), rows=PHOTOS, static=rows)
    order = np.argsort(found.distance, axis=1, kind="stable")
    likeliest = [order[i, :n] for i, n in enumerate(np.sum(found.where, axis=1))]
    return [np.stack([best, index[best]], axis=1).astype(np.int32) for best, index in zip(likeliest, found.index)]


def _have_places(features: LocalFeatures) -> Bool[np.ndarray, " n"]:
    """Which features have finite places and scales; ``mutual_nearest`` looks at the descriptors."""
    return np.isfinite(np.asarray(features.keypoints)).all(axis=1) & np.isfinite(np.asarray(features.scales))


def bucket(count: int, *, smallest: int, factor: int = 2) -> int:
    """The size that arrays of ``count`` rows are padded to: ``smallest`` times a power of ``factor``."""
    while smallest < count:
        smallest *= factor
    return smallest


def _domains(query: LocalFeatures, photo: LocalFeatures, settings: VerificationSettings) -> tuple[Domain, Domain]:
    query_max_side = settings.max_side if settings.query_max_side is None else settings.query_max_side
    return domain_of(query, query_max_side), domain_of(photo, settings.max_side)


def domain_of(features: LocalFeatures, max_side: int) -> Domain:
    """Where the features can lie; for those that do not know it, the whole photo, reduced to ``max_side`` pixels."""
    return Domain.whole(features.image_size, max_side) if features.domain is None else features.domain
