"""The photo collections that accuracy is measured on: which photos ask, which are searched, which answers are right."""

import csv
import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

LISTS = Path(__file__).parent / "lists"
REPOSITORY = Path(__file__).resolve().parent.parent
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


@dataclasses.dataclass(frozen=True)
class RetrievalSet:
    """Queries asked against one database of photos.

    Attributes:
        name: what tables and result files call it.
        queries: photos that ask.
        database: photos that are searched.
        relevant: for every query the indices into ``database`` that are right answers; empty where nothing is.
    """

    name: str
    queries: tuple[Path, ...]
    database: tuple[Path, ...]
    relevant: tuple[frozenset[int], ...]

    def __post_init__(self) -> None:
        if len(self.queries) != len(self.relevant):
            raise ValueError(f"{self.name}: {len(self.queries)} queries but {len(self.relevant)} sets of right answers")


def data_folder(given: Path | None = None) -> Path:
    """Folder of the photos with ground truth: as given, else $DELF_SHARED, else ``../shared/data`` by the repository.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = given or Path(os.environ.get("DELF_SHARED", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of photos; name it with --data or $DELF_SHARED")
    return folder


def buildings(data: Path) -> RetrievalSet:
    """60 photos of San Francisco buildings, asked among 60 reference photos and 428 photos of other things.

    Right are the reference of the same name and those of the same building, as ``same_building.csv`` and
    ``lists/smvs_same_building.csv`` (found by looking at the photos) group them.
    """
    queries, references = _photos(data / "smvs_landmarks/Query"), _photos(data / "smvs_landmarks/Reference")
    groups = same_building(data)
    relevant = tuple(
        frozenset(i for i, reference in enumerate(references) if reference.stem in groups.get(query.stem, {query.stem}))
        for query in queries
    )
    return RetrievalSet("buildings", queries, references + other_things(data) + landmark_distractors(data), relevant)


def strangers(data: Path) -> RetrievalSet:
    """128 photos of other things, asked against the buildings' references and landmarks: every answer is wrong."""
    queries = other_things(data)
    database = _photos(data / "smvs_landmarks/Reference") + landmark_distractors(data)
    return RetrievalSet("strangers", queries, database, (frozenset(),) * len(queries))


def same_building(data: Path) -> dict[str, frozenset[str]]:
    """For every photo (file name without suffix) that shares its building with others: all photos of that building."""
    rows: set[tuple[str, str]] = set()
    for path in (data / "smvs_landmarks/same_building.csv", LISTS / "smvs_same_building.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            rows |= {(row["group"], row["id"]) for row in csv.DictReader(file)}
    members = {group: frozenset(i for other, i in rows if other == group) for group, _ in rows}
    return {i: members[group] for group, i in rows}


def other_things(data: Path) -> tuple[Path, ...]:
    """The 128 COCO photos."""
    return _photos(data / "coco128/images/train2017")


def landmark_distractors(data: Path) -> tuple[Path, ...]:
    """300 photos of 28 landmarks outside San Francisco, a fixed list with ten or eleven of each."""
    names = (LISTS / "landmark_distractors.txt").read_text(encoding="utf-8").split()
    return _existing(data / name for name in names)


def _photos(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of photos; --data names the folder above it")
    return tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES))


def _existing(paths: Iterable[Path]) -> tuple[Path, ...]:
    photos = tuple(paths)
    for path in photos:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such photo; --data names the folder of the benchmark's photos")
    return photos
