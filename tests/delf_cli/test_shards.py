"""Indexes in shards on the command line."""

import shutil
from pathlib import Path

import pytest

from tests.delf_cli.conftest import Run


@pytest.fixture
def sharded(run: Run, store: Path, tmp_path: Path) -> Path:
    built = run("index", store, "--out", tmp_path / "sharded", "--shards", "2", "--backend", "exact", "--json")
    assert built.code == 0
    assert (built.records[0]["photos"], built.records[0]["shards"]) == (5, 2)
    return tmp_path / "sharded"


def test_search_says_the_same_as_in_one_index(run: Run, index: Path, sharded: Path, photos: Path) -> None:
    queries = [photos / "graf3.jpg", photos / "box_in_scene.jpg"]
    found = run("search", sharded, *queries, "--json")
    assert (found.code, found.err) == (0, "")
    assert found.records == run("search", index, *queries, "--json").records
    assert "2 shards" in run("check", sharded).out


def test_export_chooses_the_pairs_of_one_index(
    run: Run, store: Path, index: Path, sharded: Path, tmp_path: Path
) -> None:
    pytest.importorskip("h5py", reason="needs delf-jax[sfm]")
    pairs = []
    for place in (index, sharded):
        out = tmp_path / "exported" / place.name
        assert run("export", store, "--format", "hloc", "--index", place, "--top", "1", "--out", out).code == 0
        pairs.append((out / "pairs.txt").read_text())
    assert pairs[0] == pairs[1] != ""


def test_a_lost_shard_is_told_and_built_again(run: Run, sharded: Path, store: Path, photos: Path) -> None:
    whole = run("search", sharded, photos / "box.jpg", "--json").records
    shutil.rmtree(sharded / "shards" / "00001.0")
    (found,) = run("search", sharded, photos / "box.jpg", "--json").records
    assert [lost["shard"] for lost in found["lost_shards"]] == ["00001"]
    assert "manifest.json is missing" in found["lost_shards"][0]["error"]
    assert len(found["results"]) < 5
    assert "without shard 00001" in run("search", sharded, photos / "box.jpg").out
    checked = run("check", sharded)
    assert checked.code == 1
    assert f"`delf-jax index STORE --out {sharded} --rebuild`" in checked.out

    rebuilt = run("index", store, "--out", sharded, "--rebuild")
    assert rebuilt.code == 0
    assert "shard 00001 was damaged" in rebuilt.err
    assert run("check", sharded).code == 0
    assert run("search", sharded, photos / "box.jpg", "--json").records == whole


def test_photos_are_added_and_removed(run: Run, sharded: Path, store: Path, photos: Path) -> None:
    assert run("index", "--out", sharded, "--remove", photos / "box.jpg", "--json").records[0]["photos"] == 4
    found = run("search", sharded, photos / "box.jpg", "--json").records[0]["results"]
    assert str(photos / "box.jpg") not in [result["image"] for result in found]
    assert run("index", store, "--out", sharded, "--add", "--json").records[0]["photos"] == 5
    assert run("search", sharded, photos / "box.jpg", "--json").records[0]["results"][0]["image"] == str(
        photos / "box.jpg"
    )


def test_options_that_do_not_fit(run: Run, sharded: Path, index: Path, store: Path, photos: Path) -> None:
    query = photos / "box.jpg"
    for command, reason in (
        (["index", store, "--out", index, "--shards", "0"], "--shards is 0; it must be at least 1"),
        (["index", store, "--out", sharded, "--add", "--shards", "2"], "--shards is chosen when an index is built"),
        (
            ["index", store, "--out", sharded.parent / "x", "--shards", "9"],
            "5 photos with features cannot fill 9 shards",
        ),
        (["index", "--out", sharded, "--rebuild"], "index needs a feature store"),
        (["index", store, "--out", index, "--rebuild"], "is not in shards"),
        (["search", sharded, query, "--replicas", "2"], "--replicas needs --ray"),
        (["search", index, query, "--ray", "local"], "this index is not in shards"),
        (["search", sharded.parent / "x", query, "--ray", "local"], "no such index"),
    ):
        ended = run(*command)
        assert ended.code == 2
        assert reason in ended.err
        assert ended.err.count("\n") == 1
