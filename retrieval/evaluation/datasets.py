"""Reads the public benchmarks of instance search, such as ROxford, from the files that their authors distribute."""

import csv
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from delf_jax.errors import DelfError
from delf_jax.import_weights.pickles import UnreadablePickle, read_numpy_pickle
from delf_jax.photos.find import PhotoFile, find_photos

Name = Literal["roxford5k", "rparis6k", "oxford5k", "paris6k", "gldv2", "holidays", "ukbench"]
NAMES: tuple[Name, ...] = get_args(Name)

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


def read(name: Name, root: Path, *, strangers: bool = False) -> Benchmark:
    """Reads a benchmark.

    Args:
        name: which one.
        root: its folder; ground truth and photos may be anywhere in it, except for ``gldv2``, whose photos are in
            ``index`` and ``test``.
        strangers: include the queries without a right answer (gldv2 calls them Ignored; others have none).

    Raises:
        BenchmarkError: there is no such folder, or photos or ground truth are missing.
    """
    if not root.is_dir():
        raise BenchmarkError(f"{root}: no such folder; name the folder of {name}")
    root = root.absolute()
    try:
        if name in ("roxford5k", "rparis6k"):
            return read_revisited(root, name)
        if name in ("oxford5k", "paris6k"):
            return read_buildings(root, name)
        if name == "gldv2":
            return read_gldv2(root, strangers=strangers)
        return read_holidays(root) if name == "holidays" else read_ukbench(root)
    except (UnicodeDecodeError, csv.Error) as error:
        raise BenchmarkError(
            f"{root}: a list of {name} is damaged ({error}); download its ground truth again"
        ) from error


def read_revisited(root: Path, name: Name) -> Benchmark:
    """Revisited Oxford and Paris (Radenovic et al., CVPR 2018): ``gnd_NAME.pkl`` and the photos of the originals."""
    truth = _one_file(root, f"gnd_{name}.pkl", "the ground truth of the revisited benchmark")
    try:
        content = read_numpy_pickle(truth)
        photos, asked = [str(one) for one in content["imlist"]], [str(one) for one in content["qimlist"]]
        judged = [{grade: _places(row[grade]) for grade in ("easy", "hard", "junk")} for row in content["gnd"]]
        boxes = [_edges(row["bbx"]) for row in content["gnd"]]
    except UnreadablePickle as error:
        raise BenchmarkError(f"{truth}: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BenchmarkError(
            f"{truth}: not the ground truth of {name}, it has no {error}; download it again"
        ) from error
    highest = max((place for row in judged for places in row.values() for place in places), default=-1)
    if len(asked) != len(judged) or highest >= len(photos):
        raise BenchmarkError(f"{truth}: has judgements of photos or queries that it does not list; download it again")
    files = _by_stem(root)
    queries = tuple(map(Query, _files(root, files, asked), boxes))
    return Benchmark(
        name,
        queries,
        _files(root, files, photos),
        (
            _task("Easy", judged, right=("easy",), junk=("junk", "hard")),
            _task("Medium", judged, right=("easy", "hard"), junk=("junk",)),
            _task("Hard", judged, right=("hard",), junk=("junk", "easy")),
        ),
    )


def read_buildings(root: Path, name: Name) -> Benchmark:
    """Oxford and Paris buildings (Philbin et al., 2007, 2008): ``*_query.txt`` with ``_good``, ``_ok`` and ``_junk``.

    The query's own photo stays in the database, as its authors judged it. Photos that are in no list are wrong answers.
    """
    lists = sorted(root.rglob("*_query.txt"))
    if not lists:
        raise BenchmarkError(f"{root}: no *_query.txt; unpack the ground truth of {name} there")
    files = _by_stem(root)
    database = tuple(files.values())
    places = {stem: place for place, stem in enumerate(files)}
    queries, judged = [], []
    for file in lists:
        stem, *numbers = file.read_text(encoding="utf-8").split() or [""]
        # Oxford's lists put the name of a computer before the name of the photo.
        photo = stem.removeprefix("oxc1_")
        queries.append(Query(_files(root, files, [photo])[0], _edges(numbers, file)))
        row = {}
        for grade in ("good", "ok", "junk"):
            names = _listed(file.with_name(file.name.replace("_query.txt", f"_{grade}.txt")))
            # Twenty photos of Paris were damaged when they were published, and are missing in some copies.
            row[grade] = {places[one] for one in names if one in places}
        judged.append(row)
    task = _task("", judged, right=("good", "ok"), junk=("junk",))
    return Benchmark(name, tuple(queries), database, (task,))


def read_holidays(root: Path) -> Benchmark:
    """INRIA Holidays (Jegou et al., ECCV 2008): ``GGGGNN.jpg``; photo 00 of a group is the query for its others."""
    files = {stem: path for stem, path in _by_stem(root).items() if re.fullmatch(r"\d{6}", stem)}
    asking = [stem for stem in files if stem.endswith("00")]
    if not asking:
        raise BenchmarkError(f"{root}: no photo of six digits ending in 00; unpack the photos of Holidays there")
    places = {stem: place for place, stem in enumerate(files)}
    relevant = [frozenset(p for one, p in places.items() if one[:4] == stem[:4] and one != stem) for stem in asking]
    alone = [stem for stem, right in zip(asking, relevant) if not right]
    if alone:
        raise BenchmarkError(f"{root}: {alone[0]}.jpg is the only photo of its group; unpack all photos of Holidays")
    task = Task("", tuple(relevant), tuple(frozenset({places[stem]}) for stem in asking))
    return Benchmark("holidays", tuple(Query(files[stem]) for stem in asking), tuple(files.values()), (task,))


def read_ukbench(root: Path) -> Benchmark:
    """UKBench (Nister and Stewenius, CVPR 2006): ``ukbenchNNNNN.jpg`` in groups of four; every photo is a query.

    A query is one of the photos that are searched and counts as found, so the measure is at most 4.
    """
    files = {stem: path for stem, path in _by_stem(root).items() if re.fullmatch(r"ukbench\d{5}", stem)}
    groups: dict[int, set[int]] = {}
    for place, stem in enumerate(files):
        groups.setdefault(int(stem[-5:]) // 4, set()).add(place)
    partial = [group for group, members in groups.items() if len(members) != 4]
    if partial or not files:
        lacking = f"ukbench{4 * partial[0]:05d} and the next three are not all there" if partial else "no ukbenchNNNNN"
        raise BenchmarkError(f"{root}: {lacking}; unpack all photos of UKBench there")
    relevant = tuple(frozenset(groups[int(stem[-5:]) // 4]) for stem in files)
    task = Task("", relevant, (frozenset(),) * len(files))
    photos = tuple(files.values())
    return Benchmark("ukbench", tuple(map(Query, photos)), photos, (task,), groups_of=4)


def read_gldv2(root: Path, *, strangers: bool = False) -> Benchmark:
    """Google Landmarks v2, retrieval (Weyand et al., CVPR 2020): photos in ``index`` and ``test``, by the folders of
    their first three letters, and ``retrieval_solution_v2.1.csv``. ``index.csv`` lists the index where it is there.
    """
    truth = _one_file(root, "retrieval_solution_v2*.csv", "the ground truth of the retrieval task")
    database = _gldv2_index(root)
    places = {path.stem: place for place, path in enumerate(database)}
    queries: list[Query] = []
    rows: list[tuple[str, frozenset[int]]] = []
    absent = ""
    for row in _rows(truth, ("id", "images", "Usage")):
        right = row["images"].split() if row["Usage"] in ("Public", "Private") else []
        if not right and not strangers:
            continue
        absent = absent or next((one for one in right if one not in places), "")
        queries.append(Query(_gldv2_path(root / "test", row["id"])))
        rows.append((row["Usage"], frozenset(places[one] for one in right if one in places)))
    if absent:
        raise BenchmarkError(f"{root / 'index'}: has no {absent}, which is a right answer; download all of the index")
    if not queries:
        raise BenchmarkError(f"{truth}: no query is Public or Private; download it again")
    none = (frozenset[int](),) * len(queries)
    tasks = tuple(
        Task(usage, tuple(right if used == usage else frozenset() for used, right in rows), none)
        for usage in ("Public", "Private")
    )
    return Benchmark("gldv2", tuple(queries), database, tasks, trapezoidal=False)


def _gldv2_index(root: Path) -> tuple[Path, ...]:
    listed = root / "index.csv"
    if listed.is_file():
        return tuple(_gldv2_path(root / "index", row["id"]) for row in _rows(listed, ("id",)))
    return tuple(_by_stem(root / "index").values())


def _gldv2_path(folder: Path, name: str) -> Path:
    if not re.fullmatch(r"[0-9a-f]{16}", name):
        raise BenchmarkError(f"{folder}: {name!r} is not the name of a photo of gldv2; download the CSV files again")
    return folder / name[0] / name[1] / name[2] / f"{name}.jpg"


def _rows(file: Path, columns: Sequence[str]) -> Iterator[Mapping[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        lacking = [column for column in columns if column not in (reader.fieldnames or ())]
        if lacking:
            raise BenchmarkError(f"{file}: no column {lacking[0]}; download it again")
        yield from reader


def _task(name: str, judged: Sequence[Mapping[str, set[int]]], *, right: Sequence[str], junk: Sequence[str]) -> Task:
    def union(grades: Sequence[str]) -> tuple[frozenset[int], ...]:
        return tuple(frozenset().union(*(row[grade] for grade in grades)) for row in judged)

    return Task(name, union(right), union(junk))


def _by_stem(root: Path) -> dict[str, Path]:
    """Every photo in a folder by its name without suffix, sorted."""
    paths = [Path(photo.path) for photo in find_photos([root]) if isinstance(photo, PhotoFile)]
    if not paths:
        raise BenchmarkError(f"{root}: no photo in it; unpack the photos there")
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


def _files(root: Path, files: Mapping[str, Path], stems: Iterable[str]) -> tuple[Path, ...]:
    wanted = list(stems)
    absent = [stem for stem in wanted if stem not in files]
    if absent:
        raise BenchmarkError(
            f"{root}: {len(absent)} of {len(wanted)} photos are not there, such as {absent[0]}; unpack all of them"
        )
    return tuple(files[stem] for stem in wanted)


def _one_file(root: Path, pattern: str, what: str) -> Path:
    found = sorted(root.rglob(pattern))
    if not found:
        raise BenchmarkError(f"{root}: no {pattern} in it; put {what} there")
    return found[-1]


def _listed(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        raise BenchmarkError(f"{file}: is missing; unpack all of the ground truth") from None


def _places(values: Any) -> set[int]:
    places = {int(value) for value in values}
    if any(place < 0 for place in places):
        raise ValueError("photos with numbers of at least 0")
    return places


def _edges(values: Iterable[Any], file: Path | None = None) -> Edges:
    try:
        x0, y0, x1, y1 = (float(value) for value in values)
    except ValueError:
        raise BenchmarkError(f"{file}: is not the name of a photo and four numbers; download it again") from None
    return x0, y0, x1, y1
