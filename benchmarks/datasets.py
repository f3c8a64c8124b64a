"""The photo collections for accuracy: queries, searched photos, and the right answers.

Any collection can be measured if it has this layout (``folder``): ``FOLDER/queries`` and ``FOLDER/references`` each
hold one folder of photos per place, or photos whose name is the place. A query whose place has no reference is a
stranger: every answer to it is wrong.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from delf_jax.files.text_files import read_table
from delf_jax.photos.names import is_photo_name

LISTS = Path(__file__).parent / "lists"
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class RetrievalSet:
    """Queries, and the photos that are searched for them.

    Attributes:
        name: name in tables and result files.
        queries: the query photos.
        database: photos that are searched.
        relevant: for every query, the indices into ``database`` of the right answers; may be empty.
        ignored: for every query, the indices of the photos that do not count: the query itself, and photos that are
            neither right nor wrong. Empty if there are none for any query.
    """

    name: str
    queries: tuple[Path, ...]
    database: tuple[Path, ...]
    relevant: tuple[frozenset[int], ...]
    ignored: tuple[frozenset[int], ...] = ()

    def __post_init__(self) -> None:
        if len(self.queries) != len(self.relevant):
            raise ValueError(f"{self.name}: {len(self.queries)} queries but {len(self.relevant)} sets of right answers")
        if self.ignored and len(self.ignored) != len(self.queries):
            raise ValueError(f"{self.name}: {len(self.queries)} queries but {len(self.ignored)} sets of ignored photos")

    def ignored_by(self, query: int) -> frozenset[int]:
        """The indices into ``database`` that do not count for a query."""
        return self.ignored[query] if self.ignored else frozenset()


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The data of one table of accuracy.

    Attributes:
        known: queries that have right answers.
        strangers: queries whose database holds no right answer; None if there are none.
        collection: photos of the database to which a head may be fitted, without labels.
    """

    known: RetrievalSet
    strangers: RetrievalSet | None
    collection: tuple[Path, ...]

    @property
    def photos(self) -> list[Path]:
        """Every photo, sorted."""
        sets = [self.known] if self.strangers is None else [self.known, self.strangers]
        return sorted({photo for one in sets for photo in (*one.queries, *one.database)})


def data_folder(given: Path | None = None) -> Path:
    """Folder of the photos with ground truth: ``given``, or $DELF_SHARED, or ``shared/data`` beside the checkout.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    folder = given or Path(os.environ.get("DELF_SHARED", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of photos; name it with --data or $DELF_SHARED")
    return folder


def experiment(name: str, data: Path | None) -> Experiment:
    """The experiment of this name (a key of ``NAMED``), or that of a folder with ``queries`` and ``references``.

    Raises:
        FileNotFoundError: photos are missing, or the name is neither known nor a folder.
    """
    if name in NAMED:
        return NAMED[name](data_folder(data))
    if not Path(name).is_dir():
        raise FileNotFoundError(f"{name}: no such folder, and not the name of a dataset ({', '.join(NAMED)})")
    return folder(Path(name))


def folder(root: Path) -> Experiment:
    """The experiment of a folder with ``queries`` and ``references``.

    Raises:
        FileNotFoundError: one of the two folders is missing or holds no photo.
    """
    queries, references = places(root / "queries"), places(root / "references")
    database = tuple(photo for photo, _ in references)
    right = [frozenset(i for i, (_, place) in enumerate(references) if place == wanted) for _, wanted in queries]
    known = [(photo, answers) for (photo, _), answers in zip(queries, right) if answers]
    unknown = tuple(photo for (photo, _), answers in zip(queries, right) if not answers)
    if not known:
        raise FileNotFoundError(f"{root}: no query has a reference; queries/ and references/ must use the same names")
    return Experiment(
        RetrievalSet(root.name, tuple(photo for photo, _ in known), database, tuple(answers for _, answers in known)),
        RetrievalSet("strangers", unknown, database, (frozenset(),) * len(unknown)) if unknown else None,
        database,
    )


def places(root: Path) -> list[tuple[Path, str]]:
    """Each photo with the name of its place: the name of its sub-folder, or of its file if there is no sub-folder."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder of photos")
    found = sorted(path for path in root.rglob("*") if is_photo_name(path.name))
    if not found:
        raise FileNotFoundError(f"{root}: no photo in it")
    return [(path, path.stem if path.parent == root else path.relative_to(root).parts[0]) for path in found]


def smvs(data: Path) -> Experiment:
    """``buildings`` and ``strangers``."""
    known = buildings(data)
    references = tuple(photo for photo in known.database if photo.parent.name == "Reference")
    return Experiment(known, strangers(data), references)


def phototourism(data: Path) -> Experiment:
    """23 photos of five landmarks from distant viewpoints, each searched among the others and 428 other photos."""
    photos = _photos(data / "sacre_coeur/mapping") + _photos(data / "superglue_phototourism/phototourism_sample_images")
    # sacre_coeur's files are numbers alone; the others begin with the landmark's name.
    names = [photo.stem.rstrip("0123456789_") or "sacre_coeur" for photo in photos]
    return Experiment(
        among_themselves("phototourism", photos, names, others=other_things(data) + landmark_distractors(data)),
        RetrievalSet(
            "strangers",
            other_things(data),
            photos + landmark_distractors(data),
            (frozenset(),) * len(other_things(data)),
        ),
        photos,
    )


def among_themselves(
    name: str,
    photos: Sequence[Path],
    labels: Sequence[str],
    *,
    others: Sequence[Path] = (),
    overlapping: Callable[[str, str], bool] = lambda a, b: False,
) -> RetrievalSet:
    """Each photo is searched among all photos and ``others``; photos with its label are right answers.

    A photo whose label no other photo has is not a query.

    Args:
        name: name of the set.
        photos: the photos.
        labels: one label for each photo.
        others: photos that are wrong answers to every query.
        overlapping: whether photos of two different labels may show the same thing. Such photos do not count.
    """
    queries, relevant, ignored = [], [], []
    for i, label in enumerate(labels):
        same = frozenset(j for j, other in enumerate(labels) if other == label) - {i}
        if same:
            queries.append(photos[i])
            relevant.append(same)
            unclear = {j for j, other in enumerate(labels) if other != label and overlapping(label, other)}
            ignored.append(frozenset(unclear | {i}))
    return RetrievalSet(name, tuple(queries), (*photos, *others), tuple(relevant), tuple(ignored))


def buildings(data: Path) -> RetrievalSet:
    """60 photos of buildings in San Francisco, searched among 60 references and 428 photos of other things.

    The right answers are the reference of the same name and those of the same building, as ``same_building.csv`` and
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
    """128 photos of other things, searched among references of buildings and landmarks: every answer is wrong."""
    queries = other_things(data)
    database = _photos(data / "smvs_landmarks/Reference") + landmark_distractors(data)
    return RetrievalSet("strangers", queries, database, (frozenset(),) * len(queries))


def same_building(data: Path) -> dict[str, frozenset[str]]:
    """For each photo (file name without suffix) whose building other photos show too: all photos of this building."""
    rows: set[tuple[str, str]] = set()
    for path in (data / "smvs_landmarks/same_building.csv", LISTS / "smvs_same_building.csv"):
        rows |= {(row["group"], row["id"]) for _, row in read_table(path, ("group", "id"))}
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
        raise FileNotFoundError(f"{folder}: no such folder of photos; --data must name its parent folder")
    return tuple(sorted(path for path in folder.iterdir() if is_photo_name(path.name)))


def _existing(paths: Iterable[Path]) -> tuple[Path, ...]:
    photos = tuple(paths)
    for path in photos:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such photo; --data names the folder of the benchmark's photos")
    return photos


NAMED: dict[str, Callable[[Path], Experiment]] = {"smvs": smvs, "phototourism": phototourism}
"""The experiments with photos of the data folder."""
