"""Pairs of photos and their matches, in the terms of hloc and COLMAP."""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from delf_jax.errors import FileFormatError
from delf_jax.files.text_files import read_lines


class PairMatches(NamedTuple):
    """The matches of two photos.

    Attributes:
        a, b: names of the photos.
        rows: int32 [m, 2], rows of the matched features in each photo.
        similarities: float32 [m], cosine of the descriptors.
        verified: bool [m], matches that agree on the geometry; all False if no geometry was accepted.
        fundamental: float64 [3, 3], F with b^T F a = 0 for points (x, y, 1) in this project's pixels; None if it
            was not accepted.
    """

    a: str
    b: str
    rows: Int[np.ndarray, "m 2"]
    similarities: Float[np.ndarray, " m"]
    verified: Bool[np.ndarray, " m"]
    fundamental: Float[np.ndarray, "3 3"] | None


def relative_names(paths: Iterable[str], *, root: str | None = None) -> dict[str, str]:
    """Each photo's path, and its name below ``root``: what hloc and COLMAP call it.

    Args:
        paths: absolute paths or fsspec addresses, as in a feature store.
        root: the folder of the photos; by default their deepest common folder.

    Raises:
        FileFormatError: a photo is not below the root.

    >>> relative_names(["/photos/db/a.jpg", "/photos/query/b.jpg"])
    {'/photos/db/a.jpg': 'db/a.jpg', '/photos/query/b.jpg': 'query/b.jpg'}
    """
    given = {path: PurePosixPath(path.replace(os.sep, "/")) for path in paths}
    if root is None:
        common: tuple[str, ...] = ()
        for parts in zip(*(path.parent.parts for path in given.values())):
            if len(set(parts)) > 1:
                break
            common = (*common, parts[0])
        folder = PurePosixPath(*common)
    else:
        folder = PurePosixPath(root.replace(os.sep, "/"))
    try:
        return {path: str(pure.relative_to(folder)) for path, pure in given.items()}
    except ValueError:
        outside = next(path for path, pure in given.items() if not pure.is_relative_to(folder))
        if root is None:
            first = next(iter(given))
            other = next(path for path, pure in given.items() if pure.parts[0] != given[first].parts[0])
            raise FileFormatError(
                f"{first} and {other}: no folder holds both; extract the photos of each place into a store of their own"
            ) from None
        raise FileFormatError(f"{outside}: is not in {root}; give the folder that holds all photos") from None


def all_pairs(names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Every pair of different photos once, the earlier photo first."""
    ordered = list(names)
    return ((a, b) for i, a in enumerate(ordered) for b in ordered[i + 1 :])


def read_pairs(path: str, *, names: Collection[str]) -> list[tuple[str, str]]:
    """The pairs in a text file of hloc or COLMAP: two names per line. A pair that comes twice counts once.

    Raises:
        FileFormatError: the file is missing or no text, a line is not two names, or names a photo that is not in
            ``names``.
    """
    known = dict.fromkeys(names)
    pairs: dict[tuple[str, str], None] = {}
    for number, line in read_lines(path):
        pair = line.split()
        if line.startswith("#"):
            continue
        if len(pair) != 2:
            raise FileFormatError(f"{path}: line {number} is not two names; names must not contain spaces")
        for name in pair:
            if name not in known:
                like = next(iter(known), "none")
                raise FileFormatError(
                    f"{path}: line {number} names {name}, which is not in the store; its names are like {like}"
                )
        a, b = pair
        if a != b and (b, a) not in pairs:
            pairs[a, b] = None
    return list(pairs)
