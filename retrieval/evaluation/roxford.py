"""The protocol of ROxford and RParis: every query is judged three times, as Easy, Medium and Hard.

``metrics.mean_average_precision`` of each task gives the published figures.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from delf_jax.files.pickles import UnreadablePickle, read_numpy_pickle
from retrieval.evaluation.benchmark import (
    Benchmark,
    BenchmarkError,
    Query,
    box_edges,
    find_file,
    judged_task,
    photo_files,
    photos_by_stem,
    place_set,
)


def read_revisited(root: Path, name: str) -> Benchmark:
    """Revisited Oxford and Paris (Radenovic et al., CVPR 2018): ``gnd_NAME.pkl`` and the photos of the originals."""
    truth = find_file(root, f"gnd_{name}.pkl", "the ground truth of the revisited benchmark")
    try:
        content = read_numpy_pickle(truth)
        photos, asked = _names(content["imlist"]), _names(content["qimlist"])
        judged = [{grade: place_set(row[grade]) for grade in ("easy", "hard", "junk")} for row in content["gnd"]]
        boxes = [box_edges(row["bbx"], truth) for row in content["gnd"]]
    except UnreadablePickle as error:
        raise BenchmarkError(f"{truth}: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BenchmarkError(
            f"{truth}: not the ground truth of {name}, it has no {error}; download it again"
        ) from error
    highest = max((place for row in judged for places in row.values() for place in places), default=-1)
    if len(asked) != len(judged) or highest >= len(photos):
        raise BenchmarkError(f"{truth}: has judgements of photos or queries that it does not list; download it again")
    files = photos_by_stem(root, ("jpg",))
    queries = tuple(map(Query, photo_files(root, files, asked), boxes))
    return Benchmark(
        name,
        queries,
        photo_files(root, files, photos),
        (
            judged_task("Easy", judged, right=("easy",), junk=("junk", "hard")),
            judged_task("Medium", judged, right=("easy", "hard"), junk=("junk",)),
            judged_task("Hard", judged, right=("hard",), junk=("junk", "easy")),
        ),
    )


def _names(values: Iterable[Any]) -> list[str]:
    return [one.decode() if isinstance(one, bytes) else str(one) for one in values]
