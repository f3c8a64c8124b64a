"""Reads the public benchmarks of instance search, such as ROxford, from the files that their authors distribute."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from delf_jax.files.text_files import read_table, read_text
from retrieval.evaluation.benchmark import (
    Benchmark,
    BenchmarkError,
    Query,
    Task,
    box_edges,
    find_file,
    judged_task,
    only_file,
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
        root: its folder; ground truth and photos may be anywhere in it. Where it has the folder in which the authors
            publish the photos, such as ``jpg``, only that one counts; those of ``gldv2`` are in ``index`` and ``test``.
        strangers: include the queries without a right answer (gldv2 calls them Ignored; others have none).

    Raises:
        BenchmarkError: there is no such folder, or photos or ground truth are missing, or there twice.
        FileFormatError: a list is not text, or a CSV file lacks a column.
    """
    if not root.is_dir():
        raise BenchmarkError(f"{root}: no such folder; name the folder of {name}")
    root = root.absolute()
    if name in ("roxford5k", "rparis6k"):
        return read_revisited(root, name)
    if name in ("oxford5k", "paris6k"):
        return read_buildings(root, name)
    if name == "gldv2":
        return read_gldv2(root, strangers=strangers)
    return read_holidays(root) if name == "holidays" else read_ukbench(root)


def read_buildings(root: Path, name: Name) -> Benchmark:
    """Oxford and Paris buildings (Philbin et al., 2007, 2008): ``*_query.txt`` with ``_good``, ``_ok`` and ``_junk``.

    The query's own photo stays in the database, as its authors judged it. Photos that are in no list are wrong answers.
    """
    by_name: dict[str, list[Path]] = {}
    for file in sorted(root.rglob("*_query.txt"), key=lambda file: (file.name, file)):
        by_name.setdefault(file.name, []).append(file)
    if not by_name:
        raise BenchmarkError(f"{root}: no *_query.txt; unpack the ground truth of {name} there")
    files = photos_by_stem(root, ("oxbuild_images", "paris", "jpg"))
    database = photo_files(root, files, files)
    places = {stem: place for place, stem in enumerate(files)}
    queries, judged = [], []
    for file in map(only_file, by_name.values()):
        stem, *numbers = read_text(file).split() or [""]
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
    files = _matching(root, ("jpg",), r"\d{6}")
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
    files = _matching(root, ("full",), r"ukbench\d{5}")
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
    for _, row in read_table(truth, ("id", "images", "Usage")):
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
        return tuple(_gldv2_path(root / "index", row["id"]) for _, row in read_table(listed, ("id",)))
    files = photos_by_stem(root / "index")
    return photo_files(root, files, files)


def _gldv2_path(folder: Path, name: str) -> Path:
    if not re.fullmatch(r"[0-9a-f]{16}", name):
        raise BenchmarkError(f"{folder}: {name!r} is not the name of a photo of gldv2; download the CSV files again")
    return folder / name[0] / name[1] / name[2] / f"{name}.jpg"


def _matching(root: Path, published: Sequence[str], pattern: str) -> dict[str, Path]:
    """The photos whose names without suffix match, by these names."""
    files = {stem: paths for stem, paths in photos_by_stem(root, published).items() if re.fullmatch(pattern, stem)}
    return dict(zip(files, photo_files(root, files, files), strict=True))


def _listed(file: Path) -> list[str]:
    if not file.is_file():
        raise BenchmarkError(f"{file}: is missing; unpack all of the ground truth")
    return read_text(file).split()
