"""Folders of benchmarks that hold a photo or a ground truth twice: the published one counts, or none."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval.evaluation import datasets
from retrieval.evaluation.benchmark import BenchmarkError

QUERY = {"x_1_query.txt": "oxc1_p_3 1 2 3 4\n", "x_1_good.txt": "p_3\n", "x_1_ok.txt": "", "x_1_junk.txt": ""}


def revisited(root: Path, box: object = (1.0, 2.0, 3.0, 4.0)) -> None:
    row = {"bbx": box, "easy": np.array([0]), "hard": [], "junk": []}
    truth = {"imlist": np.array(["p_3"], object), "qimlist": [b"p_3"], "gnd": [row]}
    (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth, 5))


def buildings(root: Path) -> None:
    (root / "lists").mkdir()
    for name, text in QUERY.items():
        (root / "lists" / name).write_text(text)


def google_landmarks(root: Path) -> None:
    (root / "retrieval_solution_v2.1.csv").write_text("id,images,Usage\nbbbbbbbbbbbbbbbb,aaaaaaaaaaaaaaaa,Public\n")


def no_lists(root: Path) -> None:
    """The names of the photos are the ground truth."""


SETS: dict[datasets.Name, tuple[str, tuple[str, ...], Callable[[Path], None]]] = {
    # name: (published folder, photos, its ground truth)
    "roxford5k": ("jpg", ("p_3",), revisited),
    "oxford5k": ("oxbuild_images", ("p_3",), buildings),
    "holidays": ("jpg", ("100000", "100001"), no_lists),
    "ukbench": ("full", tuple(f"ukbench{number:05d}" for number in range(4)), no_lists),
}


def touch(folder: Path, names: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.jpg").touch()


@pytest.mark.parametrize("box", [[1.0, 2.0, float("nan"), 4.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 4.0], None])
def test_a_box_that_is_none(box: object, tmp_path: Path) -> None:
    touch(tmp_path / "jpg", ("p_3",))
    revisited(tmp_path, box)
    with pytest.raises(BenchmarkError, match=r"gnd_roxford5k\.pkl: the box of a query is not four numbers"):
        datasets.read("roxford5k", tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_a_thumbnail_never_wins(name: datasets.Name, tmp_path: Path) -> None:
    published, photos, write_truth = SETS[name]
    write_truth(tmp_path)
    for folder in (published, "a", "thumbs"):
        touch(tmp_path / folder, photos)
    found = datasets.read(name, tmp_path)
    assert {path.parent.name for path in found.database} == {published}
    assert {query.photo.parent.name for query in found.queries} == {published}
    assert len(found.database) == len(photos)


@pytest.mark.parametrize("name", SETS)
def test_two_photos_of_one_name_are_refused(name: datasets.Name, tmp_path: Path) -> None:
    _, photos, write_truth = SETS[name]
    write_truth(tmp_path)
    for folder in ("a", "thumbs"):
        touch(tmp_path / folder, photos)
    with pytest.raises(BenchmarkError, match=rf"a/{photos[0]}\.jpg: is also at .*thumbs/{photos[0]}\.jpg; keep only"):
        datasets.read(name, tmp_path)


def test_two_photos_of_one_name_in_an_index_without_a_list(tmp_path: Path) -> None:
    google_landmarks(tmp_path)
    for folder in ("a/a/a", "thumbs"):
        touch(tmp_path / "index" / folder, ("aaaaaaaaaaaaaaaa",))
    with pytest.raises(BenchmarkError, match="is also at"):
        datasets.read("gldv2", tmp_path)


def test_photos_that_nobody_asks_for_may_be_there_twice(tmp_path: Path) -> None:
    revisited(tmp_path)
    touch(tmp_path / "photos", ("p_3", "x"))
    touch(tmp_path / "more", ("x",))
    assert datasets.read("roxford5k", tmp_path).database == (tmp_path / "photos" / "p_3.jpg",)


def test_a_ground_truth_that_is_there_twice(tmp_path: Path) -> None:
    touch(tmp_path / "jpg", ("p_3",))
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        revisited(tmp_path / folder)
    with pytest.raises(BenchmarkError, match=r"new/gnd_roxford5k\.pkl: is also at .*old/gnd_roxford5k\.pkl"):
        datasets.read("roxford5k", tmp_path)
    revisited(tmp_path)  # the one beside the photos
    datasets.read("roxford5k", tmp_path)


def test_lists_of_queries_that_are_there_twice(tmp_path: Path) -> None:
    touch(tmp_path / "jpg", ("p_3",))
    buildings(tmp_path)
    (tmp_path / "lists").rename(tmp_path / "copy")
    buildings(tmp_path)
    with pytest.raises(BenchmarkError, match=r"copy/x_1_query\.txt: is also at .*lists/x_1_query\.txt"):
        datasets.read("oxford5k", tmp_path)
