"""Search, match and index: what people and programs read when all is well."""

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delf_jax.errors import SearchIndexError
from delf_jax.files.changer import only_changer
from tests.delf_cli.conftest import Run


def test_search_finds_the_photo_itself_in_the_order_of_the_queries(run: Run, index: Path, photos: Path) -> None:
    queries = [str(photos / "graf3.jpg"), str(photos / "box.jpg"), str(photos / "chelsea.jpg")]
    found = run("search", index, *queries, "--top", "2", "--json")
    assert found.code == 0
    assert found.err == ""
    assert [record["query"] for record in found.records] == queries
    for record in found.records:
        assert set(record) == {"query", "accepted", "threshold", "guarantee", "calibration", "results"}
        assert record["accepted"]
        assert len(record["results"]) == 2
        best = record["results"][0]
        assert set(best) == {"image", "inliers", "log10_nfa", "accepted", "confidence", "overlay", "evidence", "score"}
        assert best["image"] == record["query"]
        assert best["accepted"]
        assert best["inliers"] > 5
        assert best["score"] > 0


def test_photos_of_a_store_are_searched_without_being_read(
    run: Run, small: tuple[str, ...], photos: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(photos, mine)
    shutil.copy(mine / "box.jpg", mine / "copy_of_box.jpg")
    store, index = tmp_path / "store", tmp_path / "index"
    assert run("extract", mine, "--out", store, *small).code == 0
    assert run("index", store, "--out", index, "--backend", "exact").code == 0
    shutil.rmtree(mine)
    found = run("search", index, "--features", store, "--top", "2", "--json")
    assert (found.code, found.err, len(found.records)) == (0, "", 6)
    for record in found.records:
        assert {record["query"]} <= {result["image"] for result in record["results"]}
    others = run("search", index, "--features", store, "--others", "--json")
    best = {Path(record["query"]).name: record["results"] for record in others.records}
    boxes = {str(mine / "box.jpg"), str(mine / "copy_of_box.jpg")}
    for name in ("box.jpg", "copy_of_box.jpg"):
        assert not boxes & {result["image"] for result in best[name]}
    assert boxes < {result["image"] for result in best["box_in_scene.jpg"]}


def test_what_cannot_be_asked_of_a_store(run: Run, index: Path, store: Path, photos: Path, tmp_path: Path) -> None:
    for options, reason in (
        (["--features", store, photos], "--features takes all from the store"),
        (["--features", store, "--crop", "foreground"], "--features takes all from the store"),
        (["--features", store, "--max-side", "300"], "--features takes all from the store"),
        (["--features", store, "--out", tmp_path / "out"], "--out draws photos"),
        (["--features", tmp_path / "none"], "there is no feature store"),
        ([photos, "--others"], "--others needs --features"),
    ):
        found = run("search", index, *options)
        assert (found.code, found.out, found.err.count("\n")) == (2, "", 1), options
        assert reason in found.err


def test_search_uses_settings_and_head_of_the_index(run: Run, index: Path, photos: Path, tmp_path: Path) -> None:
    # The default model is another one, so this works only because the index brings its own.
    found = run("search", index, photos / "graf3.jpg")
    assert found.code == 0
    assert f"{photos / 'graf3.jpg'}: match" in found.out


def test_search_for_the_foreground_alone(run: Run, index: Path, photos: Path, tmp_path: Path) -> None:
    query = photos / "graf1.jpg"
    whole = run("search", index, query, "--json").records[0]
    found = run("search", index, query, "--crop", "foreground", "--json", "--out", tmp_path / "found")
    assert (found.code, found.err) == (0, "")
    (record,) = found.records
    assert set(record) == {"query", "accepted", "threshold", "guarantee", "calibration", "results", "crop"}
    x0, y0, x1, y1 = record["crop"]
    with Image.open(query) as photo:
        assert 0 <= x0 < x1 <= photo.width
        assert 0 <= y0 < y1 <= photo.height
    assert "crop" not in whole
    assert record["accepted"]
    assert record["results"][0]["image"] == str(query)


def test_search_draws_every_query(run: Run, index: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    shutil.copy(photos / "box.jpg", tmp_path / "copy")
    queries = [photos / "box.jpg", tmp_path / "copy" / "box.jpg"]
    assert run("search", index, *queries, "--out", tmp_path / "found", "--top", "2").code == 0
    assert sorted(os.listdir(tmp_path / "found")) == ["box.jpg", "box_2.jpg"]
    with Image.open(tmp_path / "found" / "box.jpg") as sheet:
        assert sheet.height > 2 * 480


def test_match_gives_the_transform_from_a_to_b(run: Run, photos: Path, small: tuple[str, ...], tmp_path: Path) -> None:
    with Image.open(photos / "graf1.jpg") as photo:
        whole = photo.resize((240, 180))
    whole.save(tmp_path / "whole.png")
    whole.crop((32, 16, 240, 180)).save(tmp_path / "part.png")
    plot = tmp_path / "match.png"
    matched = run("match", tmp_path / "whole.png", tmp_path / "part.png", *small, "--json", "--plot", plot)
    assert matched.code == 0
    (record,) = matched.records
    assert set(record) == {
        "putative",
        "inliers",
        "model",
        "transform",
        "log10_nfa",
        "accepted",
        "confidence",
        "overlay",
    }
    assert record["accepted"]
    assert record["model"] == "affine"
    np.testing.assert_allclose(np.array(record["transform"]), [[1, 0, -32], [0, 1, -16], [0, 0, 1]], atol=2)
    with Image.open(plot) as picture:
        assert picture.width > picture.height


def test_photos_that_do_not_match_are_an_answer(run: Run, photos: Path, small: tuple[str, ...]) -> None:
    matched = run("match", photos / "graf1.jpg", photos / "chelsea.jpg", *small)
    assert matched.code == 0
    assert "no match" in matched.out


def test_photos_are_added_to_and_taken_out_of_an_index(
    run: Run,
    index: Path,
    photos: Path,
    demo_photos: Path,
    small: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(index, tmp_path / "i")
    assert run("extract", demo_photos / "home.jpg", "--out", tmp_path / "s", *small).code == 0
    added = run("index", tmp_path / "s", "--out", tmp_path / "i", "--add", "--json")
    assert (added.code, added.records[0]["photos"]) == (0, 6)
    gone = run("index", "--out", tmp_path / "i", "--remove", demo_photos / "home.jpg", photos / "box.jpg", "--json")
    assert (gone.code, gone.records[0]["photos"]) == (0, 4)
    monkeypatch.chdir(photos.parent)
    gone = run("index", "--out", tmp_path / "i", "--remove", f"{photos.name}/chelsea.jpg", "--json")
    assert (gone.code, gone.records[0]["photos"]) == (0, 3)
    missing = run("index", "--out", tmp_path / "i", "--remove", "graf1.jpg")
    assert missing.code == 2
    assert missing.err == (
        f"delf-jax: {tmp_path / 'i'}: graf1.jpg: is not there; did you mean {photos / 'graf1.jpg'}?\n"
    )
    with only_changer(tmp_path / "i", SearchIndexError):
        codes = []
        held = threading.Thread(target=lambda: codes.append(run("index", "--out", tmp_path / "i", "--remove", "x")))
        held.start()
        held.join()
    assert codes[0].code == 2
    assert "another writer is at work in it" in codes[0].err
