"""The groups of a collection: photos that show the same thing, and what proves it."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float

from delf_jax.errors import SearchIndexError
from delf_jax.files.changer import only_changer
from retrieval.grouping import graph
from retrieval.grouping.examining import Edge, Examined, examine
from retrieval.grouping.pair_log import PairLog
from retrieval.search import SearchableIndex


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """A photo of a group.

    Attributes:
        name: of the photo.
        region: box [x0, y0, x1, y1], edges in pixels of the upright original, around what its surest partner shows too.
        copy_of: the photo of the group that it is a copy of; None if it is no copy, or the one that others are
            copies of.
    """

    name: str
    region: Float[np.ndarray, "4"]
    copy_of: str | None


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Photos that show the same thing.

    Attributes:
        representative: the photo with most inliers in all its pairs.
        members: all photos, the representative first.
        edges: the pairs that prove it, the surest first. Pairs inside of a group that is sure already are not verified.
    """

    representative: str
    members: tuple[Member, ...]
    edges: tuple[Edge, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the members."""
        return tuple(member.name for member in self.members)


@dataclasses.dataclass(frozen=True, eq=False)
class Grouping:
    """The groups of a collection.

    Attributes:
        groups: with two photos at least, the largest first.
        alone: photos in no group.
        examined: the pairs.
    """

    groups: tuple[Group, ...]
    alone: tuple[str, ...]
    examined: Examined


def group(
    index: SearchableIndex,
    *,
    neighbours: int = 10,
    log: str | os.PathLike[str] | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Grouping:
    """Groups the photos of an index by accepted matches.

    A pair counts by the number of false alarms to expect among all likely pairs of the collection, and must stay below
    the limit that the index has for one query. See ``graph`` for what more a group needs.

    Args:
        index: the collection.
        neighbours: number of photos that each photo is compared with, at most.
        log: file of the verified pairs. With it a run that was stopped goes on, and photos that were added to the index
            do not cost what was done before; the groups are the same as without it.
        advance: is told how much is done, and of how much.

    Raises:
        SearchIndexError: a shard of the index is lost, or another process is writing the log.
        OSError: the log cannot be read or written.
    """
    with contextlib.ExitStack() as stack:
        if log is not None:
            stack.enter_context(only_changer(log, SearchIndexError))
        kept = stack.enter_context(contextlib.closing(PairLog(log)))
        examined = examine(index, neighbours=neighbours, log=kept, advance=advance)
    groups = tuple(map(_group, graph.grouped(examined.edges)))
    inside = {name for each in groups for name in each.names}
    return Grouping(groups, tuple(name for name in examined.names if name not in inside), examined)


def _group(edges: Iterable[Edge]) -> Group:
    # Names decide between equals: edges come out of sets, whose order changes from run to run.
    edges = tuple(sorted(edges, key=lambda edge: (edge.log10_nfa, edge.a, edge.b)))
    best = graph.representative(edges)
    originals: dict[str, str] = {}
    for copies in graph.copies_of(edges):
        original = best if best in copies else graph.representative([e for e in edges if {e.a, e.b} & copies])
        original = original if original in copies else min(copies)
        originals |= dict.fromkeys(copies - {original}, original)
    regions: dict[str, Float[np.ndarray, "4"]] = {}
    for edge in edges:
        for name, region in zip((edge.a, edge.b), edge.regions, strict=True):
            regions.setdefault(name, region)
    others = sorted(graph.names_of(edges) - {best})
    members = tuple(Member(name, regions[name], originals.get(name)) for name in (best, *others))
    return Group(best, members, edges)
