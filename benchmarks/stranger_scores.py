"""How sure the surest answer to each stranger is: what ``benchmarks.calibration`` is about."""

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
from benchmarks.raw_features import RawFeatures, with_head
from benchmarks.strangers import PARTS, Stranger, part_of
from delf_jax.extraction.head import Head
from delf_jax.features import LocalFeatures
from delf_jax.files import atomic
from delf_jax.settings import ExtractionSettings
from retrieval.verification.risk_control import LOOSEST
from retrieval.verification.verify import VerificationSettings, verify_candidates

# Photos of each index. Up to 100, a search verifies all of them, so that votes decide nothing.
SIZE = 60
# Verified at once: a number that is not padded.
_CANDIDATES = 50
# Queries between two savings.
_AT_ONCE = 50


class OutOfTime(Exception):
    """The time of this call is over; what was computed is kept, and the next call goes on."""


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """What is known of the strangers.

    Attributes:
        strangers: of which these are the scores.
        regions: str [n], of each.
        features: int [n], their numbers of features.
        values: float [n], the lowest ``log10_nfa`` of their matches.
        surest: the photo of that match.
    """

    strangers: tuple[Stranger, ...]
    regions: np.ndarray
    features: Int[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]
    surest: tuple[Path, ...]


def scores(photos: Mapping[str, Sequence[Path]], *, head: Path, cache: Path, deadline: float = np.inf) -> Scores:
    """Searches for the strangers of every region among the first photos of the next one.

    Args:
        photos: of each region.
        head: the head file.
        cache: folder where features and scores are kept.
        deadline: on the clock of ``time.monotonic``.

    Raises:
        OutOfTime: the deadline has passed.
    """
    features_of = extracted(head, cache, deadline)
    found: list[tuple[Sequence[Stranger], list[str], np.ndarray, np.ndarray, list[Path]]] = []
    regions = list(photos)
    for part, (region, next_region) in itertools.product(PARTS, zip(regions, [*regions[1:], regions[0]])):
        queries = [Stranger(photo, part) for photo in photos[region]]
        others = photos[next_region][:SIZE]
        described = {
            "head": fingerprint(head),
            "features": ExtractionSettings().to_json(),
            "queries": [f"{stranger.photo} {stranger.part}" for stranger in queries],
            "others": [str(photo) for photo in others],
        }
        file = cache / f"scores-{hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]}.npz"
        if not file.exists():
            features = [part_of(features_of(one.photo), one.part) for one in queries]
            _measure(features, [features_of(photo) for photo in others], file, deadline)
        with np.load(file, allow_pickle=False) as kept:
            surest = [others[place] for place in kept["surest"].tolist()]
            found.append((queries, [region] * len(queries), kept["features"], kept["values"], surest))
    chosen, where, counts, values, matched = zip(*found)
    return Scores(
        tuple(itertools.chain(*chosen)),
        np.array([*itertools.chain(*where)]),
        np.concatenate(counts),
        np.concatenate(values),
        tuple(itertools.chain(*matched)),
    )


def _measure(queries: Sequence[LocalFeatures], indexed: Sequence[LocalFeatures], file: Path, deadline: float) -> None:
    """Writes the scores of queries; what is done at the deadline is kept beside ``file``."""
    values, surest, done = np.full(len(queries), np.inf), np.zeros(len(queries), int), 0
    if (unfinished := file.with_suffix(".part.npz")).exists():
        with np.load(unfinished, allow_pickle=False) as kept:
            values, surest, done = kept["values"], kept["surest"], int(kept["done"])
    for row in range(done, len(queries)):
        matched = verified(queries[row], indexed)
        values[row], surest[row] = matched.min(), matched.argmin()
        if (row + 1) % _AT_ONCE == 0 or time.monotonic() > deadline:
            _save(unfinished, values=values, surest=surest, done=np.array(row + 1))
            if time.monotonic() > deadline:
                raise OutOfTime
    _save(file, features=np.array([len(one) for one in queries]), values=values, surest=surest)
    unfinished.unlink(missing_ok=True)


def verified(query: LocalFeatures, indexed: Sequence[LocalFeatures]) -> Float[np.ndarray, " p"]:
    """The ``log10_nfa`` of a query with all photos of an index."""
    # Where a match can be accepted, those on overlays are taken out of it.
    settings = VerificationSettings(threshold=LOOSEST, photos_verified=len(indexed))
    found = [
        match.log10_nfa
        for start in range(0, len(indexed), _CANDIDATES)
        for match in verify_candidates(query, [("", 0.0, one) for one in indexed[start:][:_CANDIDATES]], settings)
    ]
    return np.array([np.inf if value is None else value for value in found])


def extracted(head: Path, cache: Path, deadline: float = np.inf) -> Callable[[Path], LocalFeatures]:
    """A function from photos to their features; it raises OutOfTime after the deadline."""
    arrays, raw = Head.open(head).arrays(), RawFeatures()
    most, scorer = ExtractionSettings.max_features, ExtractionSettings.scorer

    @functools.cache
    def features(photo: Path) -> LocalFeatures:
        if time.monotonic() > deadline:
            raise OutOfTime
        (kept,) = raw.cached([photo], cache)
        return with_head(kept, arrays, scorer, max_features=most)

    return features


@functools.cache
def fingerprint(head: Path) -> str:
    """Of the packaged backbone with this head."""
    return delf_jax.load(head=head).fingerprint


def _save(file: Path, **arrays: Any) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)
    atomic.write_bytes(file, content.getvalue())
