"""Photos with names that are long, or that would break lines and move cursors: nothing is lost and nothing forged."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from delf_cli.main import main
from delf_jax.interchange.arrays import read_npz
from delf_jax.store.reader import FeatureStore
from tests.delf_cli.conftest import Run

# 244 and 255 bytes, the most that a disk takes; the first two have their first 243 bytes in common.
LONG = ("山" * 80 + ".png", "山" * 81 + ".png", "山" * 83 + "ab.png")
FORGED = "a\nb.png: match\n  accepted   99 inliers  \x1b[2K\r\u202e.png"
NAMES = (*LONG, FORGED, "plain.png")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, photos: Path, small: tuple[str, ...]) -> Path:
    """A folder with photos of these names, their store and their index."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "photos").mkdir()
    for name in NAMES:
        shutil.copy(photos / "box.jpg", folder / "photos" / name)
    assert main(["extract", str(folder / "photos"), "--out", str(folder / "store"), *small]) == 0
    assert main(["index", str(folder / "store"), "--out", str(folder / "index"), "--backend", "exact"]) == 0
    return folder


def are_distinct_and_short(files: list[str], count: int) -> bool:
    return len(set(files)) == len(files) == count and all(len(name.encode()) <= 255 for name in files)


@pytest.mark.parametrize(("kind", "suffix"), [("delf", ".delf"), ("numpy", ".npz")])
def test_every_photo_gets_its_exported_file(kind: str, suffix: str, odd: Path, run: Run, tmp_path: Path) -> None:
    outcome = run("export", odd / "store", "--format", kind, "--out", tmp_path / "out", "--json")
    assert (outcome.code, outcome.records[0]["photos"]) == (0, len(NAMES))
    files = os.listdir(tmp_path / "out")
    assert are_distinct_and_short(files, len(NAMES))
    assert "山" * 80 + suffix in files


def test_one_name_that_a_disk_refuses_costs_one_photo(
    odd: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def short(source: Path, target: Path) -> None:
        if len(os.path.basename(target)) > 82:
            raise OSError(36, "File name too long", str(target))
        replace(source, target)

    monkeypatch.setattr("os.replace", short)
    outcome = run("export", odd / "store", "--format", "numpy", "--out", tmp_path / "out", "--json")
    assert outcome.code == 1
    assert [record.get("photos", "failed") for record in outcome.records] == ["failed"] * 3 + [2]
    found = run("search", odd / "index", odd / "photos", "--out", tmp_path / "found", "--json")
    assert found.code == 1
    assert sorted("results" in record for record in found.records) == [False] * 3 + [True] * 2


def test_search_draws_every_query_and_prints_no_forged_line(odd: Path, run: Run, tmp_path: Path) -> None:
    outcome = run("search", odd / "index", odd / "photos", "--top", "1", "--out", tmp_path / "found")
    assert (outcome.code, outcome.err) == (0, "")
    assert are_distinct_and_short(os.listdir(tmp_path / "found"), len(NAMES))
    # The query, how sure it is, its match, the limit, its picture.
    assert len(outcome.out.splitlines()) == 5 * len(NAMES)
    assert all(line.isprintable() for line in outcome.out.splitlines())
    assert "a\\nb.png: match\\n  accepted   99 inliers  \\x1b[2K\\r\\u202e.png: match" in outcome.out
    outcome = run("search", odd / "index", odd / "photos" / FORGED, "--json")
    assert outcome.records[0]["query"] == str(odd / "photos" / FORGED)


def test_localize_draws_every_photo_and_knows_it_again(odd: Path, run: Run, predictor: Path, tmp_path: Path) -> None:
    for _ in range(2):
        outcome = run("localize", predictor, odd / "photos", "--out", tmp_path / "found")
        assert (outcome.code, outcome.err) == (0, "")
        assert sum(line.startswith(str(odd)) for line in outcome.out.splitlines()) == len(NAMES)
        assert are_distinct_and_short(os.listdir(tmp_path / "found"), 2 * len(NAMES) + 2)
    lines = (tmp_path / "found" / "localizations.jsonl").read_text().splitlines()
    assert {json.loads(line)["image"] for line in lines} == {str(odd / "photos" / name) for name in NAMES}


def test_a_member_of_an_archive_stays_in_the_folder_of_the_export(
    run: Run, photos: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    import tarfile

    with tarfile.open(tmp_path / "lp.tar", "w") as archive:
        archive.add(photos / "box.jpg", "x/../../../outside.jpg")
        archive.add(photos / "box.jpg", "x/box.jpg")
    assert run("extract", tmp_path / "lp.tar", "--out", tmp_path / "store", *small).code == 0
    before = sorted(tmp_path.iterdir())
    outcome = run("export", tmp_path / "store", "--format", "numpy", "--out", tmp_path / "in" / "out", "--json")
    assert outcome.code == 1
    assert "leads out of" in outcome.records[0]["error"]
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "in"])
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["out"]
    (file,) = (tmp_path / "in" / "out").rglob("*.npz")
    (photo,) = (row for row in FeatureStore.open(tmp_path / "store") if row.path.endswith("x/box.jpg"))
    assert len(read_npz(file)) == len(photo.features)


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_closed_streams_are_no_mistake_of_the_program(closed: str, store: Path, tmp_path: Path) -> None:
    command = f"exec {sys.executable} -m delf_cli check {store} {closed}"
    # A file of the store must not get the number of a closed stream, into which libraries print.
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (ended.stdout == "") == (">&- 2" in closed)
    missing = subprocess.run(["sh", "-c", command.replace(str(store), "nothing")], capture_output=True, check=False)
    assert (missing.returncode, missing.stdout, missing.stderr) == (2, b"", b"")


def test_what_a_stream_cannot_show_or_hold(photos: Path, index: Path) -> None:
    command = [sys.executable, "-m", "delf_cli", "check", str(index)]
    full = subprocess.run(["sh", "-c", f"exec {' '.join(command)} >/dev/full"], capture_output=True, text=True)
    assert (full.returncode, full.stderr.count("\n")) == (2, 1)
    assert "disk is full" in full.stderr
    renamed = shutil.copytree(index, index.parent / "索引")
    command[-1] = str(renamed)
    narrow = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=True
    )
    assert "\\u7d22\\u5f15: index with" in narrow.stdout
