"""Verifies pairs of photos one by one, and keeps what was found."""

import functools
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from delf_jax.features import LocalFeatures
from retrieval.grouping.copies import is_copy
from retrieval.grouping.pair_log import Finding, PairLog
from retrieval.verification.verify import Match, VerificationSettings, domain_of, verify_candidates

# Of single pairs, whatever the size of the collection; a pair above it is never accepted.
LOOSE = -2.0


def alone(max_side: int) -> VerificationSettings:
    """Each pair is judged as if there were no others, so that what is found never changes."""
    return VerificationSettings(threshold=LOOSE, max_side=max_side, photos_verified=1)


class PairVerifier:
    """Verifies pairs of photos, each as if there were no others, unless the log has them.

    Args:
        features: of a photo, by its name.
        max_side: longest side in pixels that photos were reduced to, if their features do not know it.
        log: what was found before; it gets what is found now.
    """

    def __init__(self, features: Callable[[str], LocalFeatures], max_side: int, log: PairLog) -> None:
        self._photo = functools.lru_cache(maxsize=1024)(features)
        self._known = functools.cache(self._digest_and_size)
        self._max_side = max_side
        self._log = log

    def size(self, name: str) -> int:
        """Number of features of a photo."""
        return self._known(name)[1]

    def findings(self, name: str, others: Sequence[str]) -> list[Finding | None]:
        """What the pairs of a photo with others prove, in the order of these."""
        pairs = {other: (self._known(name)[0], self._known(other)[0]) for other in others}
        new = [other for other in others if pairs[other] not in self._log]
        query = self._photo(name)
        candidates = [(other, 0.0, self._photo(other)) for other in new]
        matches = verify_candidates(query, candidates, alone(self._max_side))
        self._log.add({pairs[m.image]: self._finding(query, self._photo(m.image), m) for m in matches})
        return [self._log[pairs[other]] for other in others]

    def _finding(self, query: LocalFeatures, photo: LocalFeatures, match: Match) -> Finding | None:
        if not match.accepted or match.transform is None or match.log10_nfa is None:
            return None
        both = match.query_points[match.is_inlier], match.points[match.is_inlier]
        domains = domain_of(query, self._max_side), domain_of(photo, self._max_side)
        return Finding(
            inliers=match.inliers,
            log10_nfa=match.log10_nfa,
            transform=match.transform.astype(np.float64),
            regions=0.5 + np.array([[*points.min(axis=0), *points.max(axis=0)] for points in both], np.float64),
            copy=is_copy(query, photo, match, domains=domains),
        )

    def _digest_and_size(self, name: str) -> tuple[str, int]:
        photo = self._photo(name)
        digest = hashlib.sha256(repr((photo.image_size, photo.domain)).encode())
        for column in (photo.keypoints, photo.scales, photo.descriptors):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()[:32], len(photo)
