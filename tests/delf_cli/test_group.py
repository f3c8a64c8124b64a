"""`delf-jax group` and `evaluate groups`: files, names, a second run, wrong input."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.delf_cli.conftest import Run


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """The photos, a copy of one of them in half the size, and their names."""
    folder = tmp_path_factory.mktemp("collection") / "mine"
    shutil.copytree(photos, folder)
    with Image.open(folder / "graf1.jpg") as photo:
        photo.resize((photo.width // 2, photo.height // 2)).save(folder / "half.png")
    return folder


def test_groups_of_a_store_their_files_and_names(
    run: Run, small: tuple[str, ...], grouped: Path, tmp_path: Path
) -> None:
    store, index, out = tmp_path / "store", tmp_path / "index", tmp_path / "groups"
    names = tmp_path / "names.csv"
    rows = [("graf1.jpg", "wall"), ("graf3.jpg", "wall"), ("half.png", "floor"), ("box.jpg", "box")]
    names.write_text("file,label\n" + "".join(f"{grouped / file},{label}\n" for file, label in rows))
    assert run("extract", grouped, "--out", store, *small).code == 0
    assert run("index", store, "--out", index, "--backend", "exact").code == 0
    found = run("group", index, "--out", out, "--labels", names, "--json")
    assert (found.code, found.err) == (0, "")
    *records, last = found.records
    summary = last["summary"]
    assert (summary["photos"], summary["groups"]) == (6, len(records))
    (wall,) = [record for record in records if str(grouped / "half.png") in {m["file"] for m in record["members"]}]
    members = {Path(member["file"]).name: member for member in wall["members"]}
    assert {"graf1.jpg", "half.png"} <= set(members)
    assert {members[name]["copy_of"] for name in ("graf1.jpg", "half.png")} in (
        {None, str(grouped / "graf1.jpg")},
        {None, str(grouped / "half.png")},
    )
    assert [json.loads(line) for line in (out / "groups.jsonl").read_text().splitlines()] == records
    with (out / "groups.csv").open(newline="") as file:
        table = {Path(row["file"]).name: row["group"] for row in csv.DictReader(file)}
    assert len(table) == 6
    assert table["chelsea.jpg"] == ""
    assert table["graf1.jpg"] == table["half.png"] == str(wall["group"])
    assert {"graf1.jpg", "half.png"} in [set(line.split()) for line in (out / "pairs.txt").read_text().splitlines()]
    page = (out / "index.html").read_text()
    assert page.count("<article") == len(records) + 1
    assert page.count("<details>") == sum(len(record["edges"]) for record in records) + 1
    assert page.count("data:image/jpeg") == sum(len(record["members"]) + len(record["edges"]) for record in records)
    assert "another name" in page

    # The same again costs no verification, from the store too, and without the photos.
    log = (out / "verified.jsonl").read_bytes()
    shutil.move(grouped, tmp_path / "away")
    again = run("group", store, "--out", out, "--labels", names, "--json")
    assert (again.code, again.err) == (0, "")
    assert [r for r in again.records if "group" in r] == records
    assert (out / "verified.jsonl").read_bytes() == log
    assert "data:image" not in (out / "index.html").read_text()
    shutil.move(tmp_path / "away", grouped)

    scores = run("evaluate", "groups", out, "--labels", names, "--json").records
    assert [record.get("label") for record in scores] == ["box", "floor", "wall", None]
    assert scores[-1]["photos"] == 4
    plain = run("evaluate", "groups", out, "--labels", names)
    assert plain.code == 0
    assert plain.out.splitlines()[0] == "box: 1 photos, recall -"


def test_what_cannot_be_grouped(run: Run, index: Path, tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    for arguments, reason in (
        (["group", tmp_path / "none", "--out", tmp_path / "g"], "no such index"),
        (["group", index, "--out", tmp_path / "g", "--neighbours", "0"], "--neighbours is 0; it must be at least 1"),
        (["group", index, "--out", tmp_path / "g", "--labels", "cluster:3"], "give folders or a CSV file"),
        (["group", index, "--out", taken], str(taken)),
        (["evaluate", "groups", tmp_path / "none", "--labels", "folders"], str(tmp_path / "none")),
        (["evaluate", "groups", taken, "--labels", "none"], "give folders or a CSV file"),
        (["evaluate", "groups", taken, "--labels", "folders"], str(taken)),
    ):
        found = run(*arguments)
        assert (found.code, found.out, found.err.count("\n")) == (2, "", 1), arguments
        assert reason in found.err


def test_one_photo_is_no_group(run: Run, small: tuple[str, ...], photos: Path, tmp_path: Path) -> None:
    assert run("extract", photos / "box.jpg", "--out", tmp_path / "store", *small).code == 0
    found = run("group", tmp_path / "store", "--out", tmp_path / "groups")
    assert found.code == 0
    assert found.out.startswith("0 of 1 photos are in 0 groups")
