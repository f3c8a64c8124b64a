"""How sure the surest answer to each stranger is, in indexes of growing size: what ``benchmarks.calibration`` is about.

An index of n photos holds the first n of one list: the real photos of a region, then the same photos seen from other
viewpoints (``growth_photos.warped``). So indexes are nested, and a pair of
photos that several of them have in their shortlists is verified once.
"""

import dataclasses
import functools
import hashlib
import io
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

import delf_jax
from benchmarks import growth_photos
from benchmarks.feature_cache import cached_features, strongest
from benchmarks.frontier_points import ALL_SCALES, Point, at_scales
from benchmarks.methods import of_dimension
from benchmarks.raw_features import ALL_PEAKS, RawFeatures, with_head
from benchmarks.strangers import REGIONS, SEEN_AGAIN, Stranger, of_photos, seen
from delf_jax.extraction.head import Head
from delf_jax.features import LocalFeatures
from delf_jax.files import atomic
from delf_jax.settings import ExtractionSettings, Scorer
from retrieval.calibration import VERIFIED
from retrieval.indexing.index import Index
from retrieval.search import SearchSettings
from retrieval.verification.risk_control import LOOSEST
from retrieval.verification.verify import VerificationSettings, verify_candidates

# Verified at once: a number that is not padded.
_CANDIDATES = 50
# Queries between two savings.
_AT_ONCE = 50


class OutOfTime(Exception):
    """The time of this call is over; what was computed is kept, and the next call goes on."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """The features that strangers and photos have.

    Attributes:
        scorer: of the head.
        dimension: of the descriptors; 1024 for those of the backbone.
        scales: of the pyramid.
        most: features of a query.
    """

    scorer: Scorer = "learned"
    dimension: int = 128
    scales: tuple[float, ...] = ExtractionSettings.scales
    most: int = ExtractionSettings.max_features


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """The strangers of one kind of features.

    Attributes:
        strangers: of which these are the scores.
        regions: str [n], of each.
        features: int [n], their numbers of features.
        sizes: of the indexes.
        values: float [n, sizes], the lowest ``log10_nfa`` of their matches; infinite if nothing was found.
        surest: str [n, sizes], the source photo of that match; empty if there is none.
    """

    strangers: tuple[Stranger, ...]
    regions: np.ndarray
    features: Int[np.ndarray, " n"]
    sizes: tuple[int, ...]
    values: Float[np.ndarray, "n s"]
    surest: np.ndarray


def scores(
    photos: Mapping[str, Sequence[Path]],
    kind: Kind,
    *,
    head: Path,
    sizes: Sequence[int],
    cache: Path,
    deadline: float = np.inf,
    every: int = 1,
    asked: Sequence[str] = REGIONS,
) -> Scores:
    """Searches for the strangers of every region among the photos of the next one.

    Args:
        photos: of each region.
        kind: of the features.
        head: the head file.
        sizes: of the indexes, ascending.
        cache: folder where features and scores are kept.
        deadline: on the clock of ``time.monotonic``.
        every: take only each so-many-th stranger.
        asked: the regions whose strangers are asked.

    Raises:
        OutOfTime: the deadline has passed.
    """
    regions = list(photos)
    parts = []
    for region, others in zip(regions, [*regions[1:], regions[0]]):
        if region not in asked:
            continue
        queries = of_photos(photos[region])[::every]
        described = {
            **dataclasses.asdict(kind),
            "head": fingerprint(head, kind.dimension),
            "sizes": [*sizes],
            "queries": [f"{stranger.photo} {stranger.part}" for stranger in queries],
            "database": [str(photo) for photo in photos[others]],
        }
        key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
        file = cache / f"scores-{key}.npz"
        if not file.exists():
            _measure(queries, photos[others], kind, head=head, sizes=sizes, cache=cache, file=file, deadline=deadline)
        with np.load(file, allow_pickle=False) as kept:
            names = np.array([*map(str, photos[others]), ""])
            parts.append((queries, [region] * len(queries), kept["features"], kept["values"], names[kept["surest"]]))
    chosen, where, features, values, surest = zip(*parts)
    return Scores(
        tuple(itertools.chain(*chosen)),
        np.array([*itertools.chain(*where)]),
        np.concatenate(features),
        tuple(sizes),
        np.concatenate(values),
        np.concatenate(surest),
    )


def _measure(
    queries: Sequence[Stranger],
    others: Sequence[Path],
    kind: Kind,
    *,
    head: Path,
    sizes: Sequence[int],
    cache: Path,
    file: Path,
    deadline: float,
) -> None:
    """Writes the scores of the queries of one region."""
    features_of = of_kind(kind, head=head, cache=cache, deadline=deadline)
    features = [strongest(seen(one, features_of(one.photo)), kind.most) for one in queries]
    sources = [strongest(features_of(photo), ExtractionSettings.max_features) for photo in others]
    indexed = [*sources[: max(sizes)]]
    again = growth_photos.warped(sources, max(0, max(sizes) - len(indexed)), most=SEEN_AGAIN)
    indexed += [photo for _, photo in again]
    partial = file.with_suffix(".partial.npz")
    shortlists = _shortlists(features, indexed, sizes, partial, deadline)
    values = np.full((len(queries), len(sizes)), np.inf)
    surest = np.full((len(queries), len(sizes)), -1)
    done = 0
    if (unfinished := file.with_suffix(".scores.npz")).exists():
        with np.load(unfinished) as kept:
            done, values, surest = int(kept["done"]), kept["values"], kept["surest"]
    for row in range(done, len(queries)):
        values[row], surest[row] = _verified(features[row], shortlists[row], indexed)
        if (row + 1) % _AT_ONCE == 0 or time.monotonic() > deadline:
            _save(unfinished, done=np.array(row + 1), values=values, surest=surest)
            if time.monotonic() > deadline:
                raise OutOfTime
    origin = np.where(surest >= 0, surest % max(len(sources), 1), -1)
    # Photo len(sources) + i is of source i % len(sources).
    _save(file, features=np.array([len(one) for one in features]), values=values, surest=origin)
    for each in (partial, unfinished):
        each.unlink(missing_ok=True)


def _shortlists(
    queries: Sequence[LocalFeatures],
    indexed: Sequence[LocalFeatures],
    sizes: Sequence[int],
    file: Path,
    deadline: float,
) -> Int[np.ndarray, "q s k"]:
    """The photos with the most votes in the indexes of each size; -1 where there are no more."""
    found = np.full((len(queries), len(sizes), VERIFIED), -1)
    done = 0
    if file.exists():
        with np.load(file) as kept:
            done, found = int(kept["done"]), kept["found"]
    for place in range(done, len(sizes)):
        index = Index.build((str(number), photo) for number, photo in enumerate(indexed[: sizes[place]]))
        for row, query in enumerate(queries):
            if len(query):
                numbers = index._snapshot().first_stage(query, "votes", SearchSettings(), ()).numbers[:VERIFIED]
                found[row, place, : len(numbers)] = numbers
        _save(file, done=np.array(place + 1), found=found)
        if time.monotonic() > deadline:
            raise OutOfTime
    return found


def _verified(
    query: LocalFeatures, shortlists: Int[np.ndarray, "s k"], indexed: Sequence[LocalFeatures]
) -> tuple[Float[np.ndarray, " s"], Int[np.ndarray, " s"]]:
    """The lowest ``log10_nfa`` among each shortlist, and the number of its photo; -1 if there is none."""
    numbers = np.setdiff1d(shortlists, [-1])
    alone = np.full(len(indexed), np.inf)
    settings = VerificationSettings(threshold=LOOSEST, photos_verified=1)
    for start in range(0, len(numbers), _CANDIDATES):
        part = numbers[start : start + _CANDIDATES]
        matches = verify_candidates(query, [("", 0.0, indexed[number]) for number in part], settings)
        alone[part] = [np.inf if match.log10_nfa is None else match.log10_nfa for match in matches]
    values, surest = np.full(len(shortlists), np.inf), np.full(len(shortlists), -1)
    for place, shortlist in enumerate(shortlists):
        chosen = shortlist[shortlist >= 0]
        if len(chosen) and np.isfinite(alone[chosen].min()):
            surest[place] = chosen[alone[chosen].argmin()]
            values[place] = alone[chosen].min() + np.log10(len(chosen))
    return values, surest


def of_kind(kind: Kind, *, head: Path, cache: Path, deadline: float = np.inf) -> Callable[[Path], LocalFeatures]:
    """A function from photos to all their features of a kind; it raises OutOfTime after the deadline."""
    arrays = of_dimension(Head.open(head), kind.dimension).arrays()
    raw = RawFeatures(scales=ALL_SCALES)
    point = Point(ExtractionSettings.max_side, kind.scales, ALL_PEAKS)
    description = {
        **raw.description,
        **dataclasses.asdict(kind),
        "most": None,
        "head": fingerprint(head, kind.dimension),
    }

    def finished(photos: Sequence[Path]) -> list[LocalFeatures]:
        if time.monotonic() > deadline:
            raise OutOfTime
        return [with_head(at_scales(one, point), arrays, kind.scorer) for one in raw.cached(photos, cache)]

    @functools.cache
    def features(photo: Path) -> LocalFeatures:
        return cached_features(finished, [photo], description=description, folder=cache)[0]

    return features


@functools.cache
def fingerprint(head: Path, dimension: int) -> str:
    """Of the packaged backbone with this head, and descriptors of this dimension."""
    return delf_jax.load(head=of_dimension(Head.open(head), dimension), scorer="norm").fingerprint


def _save(file: Path, **arrays: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.savez(content, **arrays)
    atomic.write_bytes(file, content.getvalue())
