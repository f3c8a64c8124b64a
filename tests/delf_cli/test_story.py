"""Extract, index, search, match, pca, check: what people and programs read when all is well."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delf_jax.extraction.head import Head
from delf_jax.store.reader import FeatureStore
from tests.delf_cli.conftest import Run


def test_extract_says_what_it_did_and_leaves_alone_what_is_done(
    run: Run, photos: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    first = run("extract", photos, "--out", tmp_path / "s", *small, "--json")
    assert first.code == 0
    (summary,) = first.records
    assert (summary["done"], summary["skipped"], summary["failed"], summary["stored"]) == (5, 0, 0, 5)
    assert summary["photos_per_second"] > 0
    second = run("extract", photos, "--out", tmp_path / "s", *small)
    assert second.code == 0
    assert "0 photos done" in second.out
    assert "5 were there already" in second.out
    assert second.err == ""


def test_search_finds_the_photo_itself_in_the_order_of_the_queries(run: Run, index: Path, photos: Path) -> None:
    queries = [str(photos / "graf3.jpg"), str(photos / "box.jpg"), str(photos / "chelsea.jpg")]
    found = run("search", index, *queries, "--top", "2", "--json")
    assert found.code == 0
    assert found.err == ""
    assert [record["query"] for record in found.records] == queries
    for record in found.records:
        assert set(record) == {"query", "accepted", "results"}
        assert record["accepted"]
        assert len(record["results"]) == 2
        best = record["results"][0]
        assert set(best) == {"image", "inliers", "log10_nfa", "accepted", "score"}
        assert best["image"] == record["query"]
        assert best["accepted"]
        assert best["inliers"] > 5
        assert best["score"] > 0


def test_search_uses_settings_and_head_of_the_index(run: Run, index: Path, photos: Path, tmp_path: Path) -> None:
    # The demo's defaults would be another model: this works only because the index brings its own.
    found = run("search", index, photos / "graf3.jpg")
    assert found.code == 0
    assert f"{photos / 'graf3.jpg'}: found" in found.out


def test_search_for_the_foreground_alone(run: Run, index: Path, photos: Path, tmp_path: Path) -> None:
    query = photos / "graf1.jpg"
    whole = run("search", index, query, "--json").records[0]
    found = run("search", index, query, "--crop", "foreground", "--json", "--out", tmp_path / "found")
    assert (found.code, found.err) == (0, "")
    (record,) = found.records
    assert set(record) == {"query", "accepted", "results", "crop"}
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
        whole = photo.resize((256, 192))
    whole.save(tmp_path / "whole.png")
    whole.crop((32, 16, 256, 192)).save(tmp_path / "part.png")
    plot = tmp_path / "match.png"
    matched = run("match", tmp_path / "whole.png", tmp_path / "part.png", *small, "--json", "--plot", plot)
    assert matched.code == 0
    (record,) = matched.records
    assert set(record) == {"putative", "inliers", "model", "transform", "log10_nfa", "accepted"}
    assert record["accepted"]
    assert record["model"] == "affine"
    np.testing.assert_allclose(np.array(record["transform"]), [[1, 0, -32], [0, 1, -16], [0, 0, 1]], atol=2)
    with Image.open(plot) as picture:
        assert picture.width > picture.height


def test_photos_that_do_not_match_are_an_answer(run: Run, photos: Path, small: tuple[str, ...]) -> None:
    matched = run("match", photos / "graf1.jpg", photos / "chelsea.jpg", *small)
    assert matched.code == 0
    assert "no sign" in matched.out


def test_pca_writes_a_head_that_serves(
    run: Run, photos: Path, small: tuple[str, ...], tiny_model: Path, tmp_path: Path
) -> None:
    fitted = run("pca", photos, "--out", tmp_path / "head.safetensors", "--dimension", "16", *small, "--json")
    assert fitted.code == 0
    (record,) = fitted.records
    assert (record["photos"], record["dimension"]) == (5, 16)
    assert 0 < record["variance_kept"] <= 1
    before, after = Head.open(tiny_model / "head.safetensors"), Head.open(tmp_path / "head.safetensors")
    assert after.pca is not None
    assert before.pca is not None
    assert after.pca.basis.shape == before.pca.basis.shape
    assert not np.allclose(after.pca.basis, before.pca.basis)
    assert after.whiten
    assert after.foreground is not None
    assert np.linalg.norm(after.foreground) == pytest.approx(1, abs=1e-5)
    assert after.log10_nfa_threshold == before.log10_nfa_threshold
    used = run(
        "match", photos / "box.jpg", photos / "box.jpg", *small, "--head", tmp_path / "head.safetensors", "--json"
    )
    assert used.records[0]["accepted"]


def test_adapted_head_stays_with_store_and_index(
    run: Run, photos: Path, small: tuple[str, ...], tiny_model: Path, tmp_path: Path
) -> None:
    assert run("extract", photos, "--out", tmp_path / "s", "--adapt", *small).code == 0
    store = FeatureStore.open(tmp_path / "s")
    assert store.head_path is not None
    head = Head.open(store.head_path)
    assert head.foreground is not None
    assert np.linalg.norm(head.foreground) == pytest.approx(1, abs=1e-5)
    assert not np.allclose(head.foreground, Head.open(tiny_model / "head.safetensors").foreground)
    again = run("extract", photos, "--out", tmp_path / "s", "--adapt", *small, "--json")
    assert (again.code, again.records[0]["skipped"]) == (0, 5)
    plain = run("extract", photos, "--out", tmp_path / "s", *small, "--json")
    assert (plain.code, plain.records[0]["skipped"]) == (0, 5)
    assert run("index", tmp_path / "s", "--out", tmp_path / "i", "--backend", "exact").code == 0
    shutil.rmtree(tmp_path / "s")
    assert run("search", tmp_path / "i", photos / "box.jpg", "--json").records[0]["accepted"]


def test_photos_are_added_to_and_taken_out_of_an_index(
    run: Run, index: Path, photos: Path, demo_photos: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    shutil.copytree(index, tmp_path / "i")
    assert run("extract", demo_photos / "home.jpg", "--out", tmp_path / "s", *small).code == 0
    added = run("index", tmp_path / "s", "--out", tmp_path / "i", "--add", "--json")
    assert (added.code, added.records[0]["photos"]) == (0, 6)
    gone = run("index", "--out", tmp_path / "i", "--remove", demo_photos / "home.jpg", photos / "box.jpg", "--json")
    assert (gone.code, gone.records[0]["photos"]) == (0, 4)
    missing = run("index", "--out", tmp_path / "i", "--remove", "nothing.jpg")
    assert missing.code == 2
    assert missing.err.count("\n") == 1


@pytest.mark.parametrize("kind", ["store", "index"])
def test_check_names_what_is_damaged(kind: str, run: Run, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path = tmp_path / kind
    shutil.copytree(request.getfixturevalue(kind), path)
    fine = run("check", path, "--json")
    assert (fine.code, fine.records[0]["ok"], fine.records[0]["photos"]) == (0, True, 5)
    victim = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    damaged = bytearray(victim.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    victim.write_bytes(damaged)
    found = run("check", path, "--json")
    assert (found.code, found.records[0]["ok"]) == (1, False)
    assert victim.name in json.dumps(found.records[0]["damaged"])
    repaired = run("check", path, "--repair")
    if kind == "index":
        assert repaired.code == 2
        assert repaired.err.count("\n") == 1
        return
    assert repaired.code == 0
    assert run("check", path, "--json").records[0]["photos"] == 0


def test_repair_makes_a_lost_manifest_anew(run: Run, store: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    shutil.copytree(store, path)
    (path / "manifest.json").unlink()
    lost = run("check", path)
    assert (lost.code, lost.err.count("\n")) == (2, 1)
    assert "its manifest.json is missing; `delf-jax check" in lost.err
    repaired = run("check", path, "--repair", "--json")
    (record,) = repaired.records
    assert (repaired.code, record["ok"], record["repaired"], record["photos"]) == (0, True, True, 5)
    assert record["damaged"] == [{"file": "manifest.json", "reason": "it is missing"}]
    assert run("check", path).code == 0


def test_repair_cannot_mend_a_head(run: Run, photos: Path, small: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert run("extract", photos, "--out", path, "--adapt", *small).code == 0
    (path / "head.safetensors").write_bytes(b"gone")
    for options in ((), ("--repair",), ()):
        found = run("check", path, *options, "--json")
        assert found.code == 1
        (record,) = found.records
        assert (record["ok"], record["repaired"], record["photos"]) == (False, False, 5)
        assert record["damaged"][0]["file"] == "head.safetensors"
    assert "put back the head file" in run("check", path, "--repair").out
