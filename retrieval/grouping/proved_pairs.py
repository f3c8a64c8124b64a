"""Pairs of photos that are proved to show the same thing, all of them, for what learns from proofs."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from delf_jax.features import LocalFeatures
from retrieval.grouping.pair_log import PairLog
from retrieval.grouping.pair_verifier import LOOSE, PairVerifier
from retrieval.search import SearchableIndex


class ProvedPair(NamedTuple):
    """Two photos, and the transform from (x, y, 1) of ``a`` to ``b``, in pixels of the upright originals."""

    a: str
    b: str
    transform: Float[np.ndarray, "3 3"]


def proved_pairs(
    index: SearchableIndex,
    features: Callable[[str], LocalFeatures],
    *,
    max_side: int,
    neighbours: int = 10,
    log: PairLog,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[ProvedPair]:
    """Every pair of a photo and one of its nearest photos that is proved.

    A pair's number of false alarms counts all pairs that are compared, as in ``examine``; but here pairs inside of sure
    groups are verified too. With an exact index the same photos give the same pairs in the same order.

    Args:
        index: finds the nearest photos; it may have only some of the features of each.
        features: all those of a photo, by its name.
        max_side: longest side in pixels that photos were reduced to, if their features do not know it.
        neighbours: number of photos that each photo is compared with.
        log: pairs that were verified before, and keeps those of this call.
        advance: is told how much is done, and of how much.

    Raises:
        OSError: the log cannot be written.
    """
    names = index.names
    verifier = PairVerifier(features, max_side, log)
    limit = LOOSE - math.log10(max(len(names) * neighbours, 1))
    seen: set[frozenset[str]] = set()
    for done, name in enumerate(names, 1):
        nearest = index.search(index.features(name), verify=0, top=neighbours, exclude=[name]).matches
        asked = [match.image for match in nearest if frozenset((name, match.image)) not in seen]
        seen.update(frozenset((name, other)) for other in asked)
        for other, finding in zip(asked, verifier.findings(name, asked), strict=True):
            if finding is not None and finding.log10_nfa <= limit:
                yield ProvedPair(name, other, finding.transform)
        advance(done, len(names))
