"""Groups of a collection against the truth, and copies in disguise.

    python -m benchmarks.groups --json benchmarks/results/groups.json

Photos: ``smvs_landmarks``, ``coco128`` and ``landmarks`` in the data folder.

``buildings``: 60 queries and 60 references of buildings, 128 photos of other things and 300 of landmarks. Buildings of
one name belong together; other things are alone. Some photos show the house next door too:
``lists/smvs_overlaps.csv`` has those that were seen to, when the accepted pairs of this benchmark were looked at; in
``buildings, overlaps joined`` they count as one. Photos of a landmark show it from all sides, so they are counted
apart. ``copies``: 100 photos of landmarks, each in six disguises. A mirrored photo is no copy, because its features are
others.

Extraction takes half an hour of two cores. A run goes on where the last one was stopped.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import networkx as nx
from PIL import Image, ImageOps
from tyro.conf import arg

import retrieval
from benchmarks import datasets, results_file
from benchmarks.command_line import run
from delf_cli.environment import start_jax
from delf_cli.main import main as delf_jax_command
from delf_jax.errors import DelfError
from delf_jax.files.text_files import read_table
from delf_jax.store.reader import FeatureStore
from retrieval.grouping.groups import Grouping

COPIED = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures groups and copies.

    Attributes:
        data: folder of the photos with ground truth (default: $DELF_SHARED).
        cache: folder where features, disguises and verified pairs are kept.
        json: also write the results to this file.
        neighbours: numbers of photos that each photo is compared with.
    """

    data: Path | None = None
    cache: Path = Path(".cache/groups")
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    neighbours: tuple[int, ...] = (5, 10, 20)


def main(options: Options) -> list[dict[str, Any]]:
    """Prints one row for each part and number of neighbours, and returns the rows."""
    data = datasets.data_folder(options.data)
    options.cache.mkdir(parents=True, exist_ok=True)
    rows = [*buildings(data, options), *copies(data, options)]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if options.json is not None:
        results_file.write(options.json, "groups", rows, {"copied": COPIED})
    return rows


def buildings(data: Path, options: Options) -> list[dict[str, Any]]:
    """Groups of buildings among other photos, and of landmarks."""
    known = datasets.buildings(data)
    same = datasets.same_building(data)
    others = {str(photo) for photo in datasets.other_things(data)}
    photos = sorted({*known.queries, *known.database})
    truth: dict[str, str] = {}
    joined: dict[str, str] = {}
    overlaps = nx.utils.UnionFind()
    for _, row in read_table(datasets.LISTS / "smvs_overlaps.csv", ("group", "id")):
        overlaps.union(row["group"], min(same.get(row["id"], {row["id"]})))
    landmarks: dict[str, str] = {}
    for photo in photos:
        if photo.parent.parent.name == "smvs_landmarks":
            truth[str(photo)] = min(same.get(photo.stem, {photo.stem}))
            joined[str(photo)] = overlaps[truth[str(photo)]]
        elif str(photo) in others:
            truth[str(photo)] = joined[str(photo)] = str(photo)
        else:
            landmarks[str(photo)] = photo.parent.name
    rows = []
    for neighbours, found, seconds in _groupings(photos, "buildings", options):
        marks = {name: number for number, each in enumerate(found.groups) for name in each.names}
        parts = {"buildings": truth, "buildings, overlaps joined": joined, "landmarks": landmarks}
        for part, right in parts.items():
            scores = retrieval.group_scores(marks, right)
            counts: dict[str, Any] = {"part": part, "neighbours": neighbours, "photos": len(right)}
            rows.append(counts | {name: round(100 * value, 1) for name, value in scores._asdict().items()})
        homes = [(str(query), str(reference)) for query, reference in _same_stem(known)]
        kinds = truth | landmarks
        edges = [edge for each in found.groups for edge in each.edges]
        between = [edge for edge in edges if kinds[edge.a] != kinds[edge.b]]
        rows[-1] |= {
            "references_found": sum(a in marks and marks[a] == marks.get(b) for a, b in homes),
            "edges": len(edges),
            "edges_between_names": [[Path(e.a).name, Path(e.b).name, round(e.log10_nfa, 1)] for e in between],
            "likely_pairs": len(found.examined.likely),
            "verified_pairs": found.examined.verified,
            "processor_seconds": seconds,
        }
    return rows


def _same_stem(known: datasets.RetrievalSet) -> list[tuple[Path, Path]]:
    """Each query with the reference of the same name."""
    references = {photo.stem: photo for photo in known.database if photo.parent.name == "Reference"}
    return [(query, references[query.stem]) for query in known.queries]


def copies(data: Path, options: Options) -> list[dict[str, Any]]:
    """Copies in disguise: how many are in the group of their original as its copies, for each kind of disguise."""
    originals = datasets.landmark_distractors(data)[:: 300 // COPIED][:COPIED]
    folder = options.cache / "disguises"
    folder.mkdir(exist_ok=True)
    made: dict[str, tuple[int, str]] = {}
    for number, original in enumerate(originals):
        made[str(original)] = number, "original"
        for kind, disguise in DISGUISES.items():
            file = folder.resolve() / f"{number:03}_{kind}{'.jpg' if kind == 'jpeg_30' else '.png'}"
            if not file.exists():
                with Image.open(original) as photo:
                    disguise(photo.convert("RGB")).save(file, quality=30)
            made[str(file)] = number, kind
    rows = []
    for neighbours, found, seconds in _groupings(sorted(map(Path, made)), "copies", options):
        first = {member.name: member.copy_of or member.name for each in found.groups for member in each.members}
        home = {number: first.get(name) for name, (number, kind) in made.items() if kind == "original"}
        told = dict.fromkeys(DISGUISES, 0)
        for name, (number, kind) in made.items():
            if kind != "original" and home[number] is not None:
                told[kind] += first.get(name) == home[number]
        edges = [edge for each in found.groups for edge in each.edges if edge.copy]
        wrong = [edge for edge in edges if made[edge.a][0] != made[edge.b][0]]
        rows.append(
            {
                "part": "copies",
                "neighbours": neighbours,
                "photos": len(made),
                **told,
                "copies_of_other_photos": [[Path(e.a).name, Path(e.b).name] for e in wrong],
                "processor_seconds": seconds,
            }
        )
    return rows


def _crop(photo: Image.Image) -> Image.Image:
    width, height = photo.size
    return photo.crop((width // 10, height // 10, width // 10 + 7 * width // 10, height // 10 + 7 * height // 10))


DISGUISES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half": lambda photo: photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.LANCZOS),
    "jpeg_30": lambda photo: photo,
    "crop_70": _crop,
    "frame": lambda photo: ImageOps.expand(photo, border=photo.width // 10, fill=(200, 200, 200)),
    "grey": lambda photo: photo.convert("L"),
    "mirrored": ImageOps.mirror,
}
"""What is done to a photo before it is saved; ``jpeg_30`` is saved with quality 30, the others without loss."""


def _groupings(photos: list[Path], name: str, options: Options) -> list[tuple[int, Grouping, int]]:
    """For each number of neighbours the groups and the processor seconds, without compiling and extracting."""
    store = options.cache / name
    if delf_jax_command(["extract", *map(str, photos), "--out", str(store)]) != 0:
        raise DelfError(f"{store}: photos could not be extracted")
    index = retrieval.Index.build(FeatureStore.open(store))
    retrieval.group(index, neighbours=1)
    found = []
    for neighbours in options.neighbours:
        start = time.process_time()
        grouping = retrieval.group(index, neighbours=neighbours)
        found.append((neighbours, grouping, round(time.process_time() - start)))
    return found


if __name__ == "__main__":
    start_jax()
    run(main, Options, __doc__)
