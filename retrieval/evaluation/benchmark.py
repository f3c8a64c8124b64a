"""What a benchmark of instance search is: queries, photos, and which answers are right; and how its files are found."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from delf_jax.errors import DelfError
from delf_jax.photos.find import PhotoFile, find_photos

Edges = tuple[float, float, float, float]


class BenchmarkError(DelfError):
    """The folder of a benchmark has no photos or no ground truth, or has them in another form."""


@dataclasses.dataclass(frozen=True)
class Query:
    """A query photo.

    Attributes:
        photo: its file.
        box: [x0, y0, x1, y1] in pixels of the upright photo, the part to search for; None for the whole photo.
    """

    photo: Path
    box: Edges | None = None


@dataclasses.dataclass(frozen=True)
class Task:
    """One way to judge answers. Photos are numbered by their places in the database.

    Attributes:
        name: what tables call it.
        relevant: for every query the right answers; a query without right answers is skipped.
        ignored: for every query the photos that are removed before anything is counted.
    """

    name: str
    relevant: tuple[frozenset[int], ...]
    ignored: tuple[frozenset[int], ...]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Queries, the photos that are searched, and which answers are right.

    Attributes:
        name: of the benchmark.
        queries: the query photos.
        database: the photos that are searched, by absolute path.
        tasks: the ways to judge; a query without a right answer in any of them is a stranger, which only GAP counts.
        trapezoidal: average precision is the area under straight lines between the points of the curve.
        groups_of: number of photos of one object, if the measure is how many of them come first (UKBench); else 0.
    """

    name: str
    queries: tuple[Query, ...]
    database: tuple[Path, ...]
    tasks: tuple[Task, ...]
    trapezoidal: bool = True
    groups_of: int = 0

    @property
    def strangers(self) -> frozenset[int]:
        """Queries that have no right answer."""
        return frozenset(q for q in range(len(self.queries)) if not any(task.relevant[q] for task in self.tasks))


def judged_task(
    name: str, judged: Sequence[Mapping[str, set[int]]], *, right: Sequence[str], junk: Sequence[str]
) -> Task:
    """A task of graded photos: those of the grades ``right`` are right answers, those of ``junk`` are removed."""

    def union(grades: Sequence[str]) -> tuple[frozenset[int], ...]:
        return tuple(frozenset().union(*(row[grade] for grade in grades)) for row in judged)

    return Task(name, union(right), union(junk))


def photos_by_stem(root: Path, published: Sequence[str] = ()) -> dict[str, list[Path]]:
    """The photos in a folder by their names without suffix, sorted.

    Args:
        root: the folder.
        published: names of folders in which the authors publish the photos; if one is there, only it is searched.
    """
    folder = next((root / name for name in published if (root / name).is_dir()), root)
    paths = [Path(photo.path) for photo in find_photos([folder]) if isinstance(photo, PhotoFile)]
    if not paths:
        raise BenchmarkError(f"{folder}: no photo in it; unpack the photos there")
    files: dict[str, list[Path]] = {}
    for path in sorted(paths, key=lambda path: path.stem):
        files.setdefault(path.stem, []).append(path)
    return files


def photo_files(root: Path, files: Mapping[str, Sequence[Path]], stems: Iterable[str]) -> tuple[Path, ...]:
    """The photos with these names without suffix; BenchmarkError if one is missing, or is there twice."""
    wanted = list(stems)
    absent = [stem for stem in wanted if stem not in files]
    if absent:
        raise BenchmarkError(
            f"{root}: {len(absent)} of {len(wanted)} photos are not there, such as {absent[0]}; unpack all of them"
        )
    return tuple(only_file(files[stem]) for stem in wanted)


def only_file(files: Sequence[Path]) -> Path:
    """The one file; BenchmarkError, which names two, if there are several that may be meant."""
    if len(files) > 1:
        raise BenchmarkError(f"{files[0]}: is also at {files[1]}; keep only the one that the authors published")
    return files[0]


def find_file(root: Path, pattern: str, what: str) -> Path:
    """The file of this pattern anywhere in a folder; the last one by name. One in the folder itself comes first.

    Raises:
        BenchmarkError: there is none, or its name is there twice.
    """
    found = list(root.rglob(pattern))
    if not found:
        raise BenchmarkError(f"{root}: no {pattern} in it; put {what} there")
    last = max(path.name for path in found)
    return root / last if root / last in found else only_file([path for path in sorted(found) if path.name == last])


def place_set(values: Any) -> set[int]:
    """Numbers of photos; ValueError if one is negative."""
    places = {int(value) for value in values}
    if any(place < 0 for place in places):
        raise ValueError("photos with numbers of at least 0")
    return places


def box_edges(values: Any, file: Path) -> Edges:
    """The box [x0, y0, x1, y1] of a query; BenchmarkError, which names the file, if it is none."""
    try:
        x0, y0, x1, y1 = (float(value) for value in values)
    except (TypeError, ValueError):
        x0 = y0 = x1 = y1 = math.nan
    if not (math.isfinite(x0 + y0 + x1 + y1) and x0 < x1 and y0 < y1):
        raise BenchmarkError(f"{file}: the box of a query is not four numbers x0 < x1, y0 < y1; download it again")
    return x0, y0, x1, y1
