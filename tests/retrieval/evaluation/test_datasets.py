"""Public benchmarks read from miniatures of their published folders."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delf_jax.errors import FileFormatError
from retrieval.evaluation import datasets
from retrieval.evaluation.benchmark import BenchmarkError, Query


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def revisited(root: Path, truth: Any | None = None, protocol: int = 2) -> Path:
    """ROxford's layout with six photos and two queries."""
    photos = [f"all_souls_{i:06d}" for i in range(4)] + ["radcliffe_000001", "radcliffe_000002"]
    touch(*(root / "jpg" / f"{name}.jpg" for name in [*photos, "all_souls_000013", "ashmolean_000000"]))
    rows = [
        {"bbx": [136.5, 34.1, 648.5, 955.7], "easy": np.array([0, 1]), "hard": np.array([2]), "junk": np.array([3])},
        {"bbx": np.array([0.0, 1.0, 2.0, 3.0], np.float32), "easy": [], "hard": [4], "junk": []},
    ]
    truth = truth or {"imlist": photos, "qimlist": ["all_souls_000013", "ashmolean_000000"], "gnd": rows}
    (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth, protocol))
    return root


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_revisited_oxford(protocol: int, tmp_path: Path) -> None:
    found = datasets.read("roxford5k", revisited(tmp_path, protocol=protocol))
    jpg = tmp_path / "jpg"
    assert found.queries[0] == Query(jpg / "all_souls_000013.jpg", (136.5, 34.1, 648.5, 955.7))
    assert found.queries[1].box == (0, 1, 2, 3)
    assert [path.stem for path in found.database][3:5] == ["all_souls_000003", "radcliffe_000001"]
    assert found.trapezoidal
    easy, medium, hard = found.tasks
    assert (easy.relevant, easy.ignored) == (({0, 1}, set()), ({2, 3}, {4}))
    assert (medium.relevant, medium.ignored) == (({0, 1, 2}, {4}), ({3}, set()))
    assert (hard.relevant, hard.ignored) == (({2}, {4}), ({0, 1, 3}, set()))
    assert found.strangers == frozenset()


class _Harmful:
    """Unpickles by making a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)


def test_ground_truth_that_wants_more_is_refused_and_not_run(tmp_path: Path) -> None:
    root = revisited(tmp_path, {"gnd": [_Harmful(tmp_path / "harm")]})
    with pytest.raises(BenchmarkError, match=r"gnd_roxford5k\.pkl: holds a (posix|nt)\.mkdir; only arrays are read"):
        datasets.read("roxford5k", root)
    assert not (tmp_path / "harm").exists()
    (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps({"imlist": np.array([{}], object)}, 2))
    with pytest.raises(BenchmarkError, match="not a pickle of arrays"):
        datasets.read("roxford5k", root)


EIGHTH = {"bbx": [0, 0, 1, 1], "easy": [7], "hard": [], "junk": []}


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ({"imlist": []}, "it has no 'qimlist'"),
        ({"imlist": ["x"], "qimlist": [], "gnd": [EIGHTH]}, "not list"),
        ({"imlist": ["lost"], "qimlist": [], "gnd": []}, "1 of 1 photos are not there, such as lost"),
    ],
)  # fmt: skip
def test_faulty_ground_truth_says_what_it_lacks(truth: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=said):
        datasets.read("roxford5k", revisited(tmp_path, truth))


def test_oxford_and_paris_buildings(tmp_path: Path) -> None:
    for name in ("all_souls_000013", "all_souls_000026", "oxford_002985", "christ_church_000179", "magdalen_000058"):
        touch(tmp_path / "images" / f"{name}.jpg")
    lists = tmp_path / "gt_files_170407"
    lists.mkdir()
    (lists / "all_souls_1_query.txt").write_text("oxc1_all_souls_000013 136.5 34.1 648.5 955.7\n")
    (lists / "all_souls_1_good.txt").write_text("all_souls_000013\nall_souls_000026\n")
    (lists / "all_souls_1_ok.txt").write_text("oxford_002985\nnot_published_000001\n")
    (lists / "all_souls_1_junk.txt").write_text("christ_church_000179\n")
    found = datasets.read("oxford5k", tmp_path)
    stems = [path.stem for path in found.database]
    (query,) = found.queries
    assert (query.photo.stem, query.box) == ("all_souls_000013", (136.5, 34.1, 648.5, 955.7))
    (task,) = found.tasks
    assert {stems[place] for place in task.relevant[0]} == {"all_souls_000013", "all_souls_000026", "oxford_002985"}
    assert {stems[place] for place in task.ignored[0]} == {"christ_church_000179"}
    (lists / "all_souls_1_query.txt").write_text("oxc1_all_souls_000013 136.5\n")
    with pytest.raises(BenchmarkError, match=r"all_souls_1_query\.txt: the box of a query is not four numbers"):
        datasets.read("oxford5k", tmp_path)
    (lists / "all_souls_1_ok.txt").unlink()
    (lists / "all_souls_1_query.txt").write_text("oxc1_all_souls_000013 1 2 3 4\n")
    with pytest.raises(BenchmarkError, match=r"all_souls_1_ok\.txt: is missing"):
        datasets.read("oxford5k", tmp_path)


def test_holidays(tmp_path: Path) -> None:
    touch(*(tmp_path / "jpg" / f"{name}.jpg" for name in ("100000", "100001", "100002", "100100", "100101", "notes")))
    found = datasets.read("holidays", tmp_path)
    assert [query.photo.stem for query in found.queries] == ["100000", "100100"]
    assert [path.stem for path in found.database] == ["100000", "100001", "100002", "100100", "100101"]
    (task,) = found.tasks
    assert (task.relevant, task.ignored) == (({1, 2}, {4}), ({0}, {3}))
    touch(tmp_path / "jpg" / "100200.jpg")
    with pytest.raises(BenchmarkError, match=r"100200\.jpg is the only photo of its group"):
        datasets.read("holidays", tmp_path)


def test_ukbench(tmp_path: Path) -> None:
    touch(*(tmp_path / "full" / f"ukbench{i:05d}.jpg" for i in range(8)))
    found = datasets.read("ukbench", tmp_path)
    assert len(found.queries) == len(found.database) == 8
    assert found.tasks[0].relevant[5] == {4, 5, 6, 7}
    assert found.groups_of == 4
    (tmp_path / "full" / "ukbench00006.jpg").unlink()
    with pytest.raises(BenchmarkError, match="ukbench00004 and the next three"):
        datasets.read("ukbench", tmp_path)


IDS = [f"{i:016x}" for i in (0xA0B1 << 48, 0x123 << 52, 0xFFF << 52, 0x5, 0x6, 0x7)]


def gldv2(root: Path, *, listed: bool) -> Path:
    for place, name in enumerate(IDS):
        touch(root / ("index" if place < 3 else "test") / name[0] / name[1] / name[2] / f"{name}.jpg")
    rows = [f"{IDS[3]},{IDS[0]} {IDS[2]},Public", f"{IDS[4]},{IDS[1]},Private", f"{IDS[5]},None,Ignored"]
    (root / "retrieval_solution_v2.1.csv").write_text("\n".join(["id,images,Usage", *rows]) + "\n")
    if listed:
        (root / "index.csv").write_text("\n".join(["id", *IDS[:3]]) + "\n")
    return root


@pytest.mark.parametrize("listed", [False, True])
def test_google_landmarks(listed: bool, tmp_path: Path) -> None:
    root = gldv2(tmp_path, listed=listed)
    found = datasets.read("gldv2", root)
    assert [query.photo for query in found.queries] == [root / "test/0/0/0" / f"{name}.jpg" for name in IDS[3:5]]
    names = [path.stem for path in found.database]
    assert sorted(names) == sorted(IDS[:3])
    assert all(path.is_file() for path in found.database)
    public, private = found.tasks
    assert [{names[place] for place in right} for right in public.relevant] == [{IDS[0], IDS[2]}, set()]
    assert [{names[place] for place in right} for right in private.relevant] == [set(), {IDS[1]}]
    assert not found.trapezoidal
    asked = datasets.read("gldv2", root, strangers=True)
    assert (len(asked.queries), asked.strangers) == (3, {2})
    for file in (root / "index" / IDS[1][0]).rglob("*.jpg"):
        file.unlink()
    if not listed:
        with pytest.raises(BenchmarkError, match=f"has no {IDS[1]}, which is a right answer"):
            datasets.read("gldv2", root)


def test_names_in_lists_cannot_lead_elsewhere(tmp_path: Path) -> None:
    root = gldv2(tmp_path, listed=True)
    (root / "index.csv").write_text("id\n../../../secret\n")
    with pytest.raises(BenchmarkError, match="not the name of a photo"):
        datasets.read("gldv2", root)
    (root / "index.csv").write_text("name\nx\n")
    with pytest.raises(FileFormatError, match="no column id"):
        datasets.read("gldv2", root)


@pytest.mark.parametrize("name", datasets.NAMES)
def test_empty_folders_say_what_to_put_there(name: datasets.Name, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"unpack|put"):
        datasets.read(name, tmp_path)
    with pytest.raises(BenchmarkError, match="no such folder"):
        datasets.read(name, tmp_path / "nowhere")
