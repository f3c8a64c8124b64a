"""Reads the public benchmarks of instance search, such as ROxford, from the files that their authors distribute."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from retrieval.evaluation.benchmark import (
    Benchmark,
    BenchmarkError,
    Query,
    Task,
    box_edges,
    find_file,
    judged_task,
    photo_files,
    photos_by_stem,
)
from retrieval.evaluation.roxford import read_revisited

Name = Literal["roxford5k", "rparis6k", "oxford5k", "paris6k", "gldv2", "holidays", "ukbench"]
NAMES: tuple[Name, ...] = get_args(Name)


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


def read_buildings(root: Path, name: Name) -> Benchmark:
    """Oxford and Paris buildings (Philbin et al., 2007, 2008): ``*_query.txt`` with ``_good``, ``_ok`` and ``_junk``.

    The query's own photo stays in the database, as its authors judged it. Photos that are in no list are wrong answers.
    """
    lists = sorted(root.rglob("*_query.txt"))
    if not lists:
        raise BenchmarkError(f"{root}: no *_query.txt; unpack the ground truth of {name} there")
    files = photos_by_stem(root)
    database = tuple(files.values())
    places = {stem: place for place, stem in enumerate(files)}
    queries, judged = [], []
    for file in lists:
        stem, *numbers = file.read_text(encoding="utf-8").split() or [""]
        # Oxford's lists put the name of a computer before the name of the photo.
        photo = stem.removeprefix("oxc1_")
        queries.append(Query(photo_files(root, files, [photo])[0], box_edges(numbers, file)))
        row = {}
        for grade in ("good", "ok", "junk"):
            names = _listed(file.with_name(file.name.replace("_query.txt", f"_{grade}.txt")))
            # Twenty photos of Paris were damaged when they were published, and are missing in some copies.
            row[grade] = {places[one] for one in names if one in places}
        judged.append(row)
    task = judged_task("", judged, right=("good", "ok"), junk=("junk",))
    return Benchmark(name, tuple(queries), database, (task,))


def read_holidays(root: Path) -> Benchmark:
    """INRIA Holidays (Jegou et al., ECCV 2008): ``GGGGNN.jpg``; photo 00 of a group is the query for its others."""
    files = {stem: path for stem, path in photos_by_stem(root).items() if re.fullmatch(r"\d{6}", stem)}
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
    files = {stem: path for stem, path in photos_by_stem(root).items() if re.fullmatch(r"ukbench\d{5}", stem)}
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
    truth = find_file(root, "retrieval_solution_v2*.csv", "the ground truth of the retrieval task")
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
    return tuple(photos_by_stem(root / "index").values())


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


def _listed(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        raise BenchmarkError(f"{file}: is missing; unpack all of the ground truth") from None
