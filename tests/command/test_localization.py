"""fit-localizer, localize, explain and check of a predictor, as people and programs see them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command.conftest import Run


@pytest.fixture
def fit(tiny_model: Path) -> tuple[str, ...]:
    return ("--model", str(tiny_model), "--max-side", "256", "--layer", "conv4", "--max-points", "200")


def test_fit_localize_explain_check(
    run: Run, photos: Path, fit: tuple[str, ...], tmp_path: Path, demo_photos: Path
) -> None:
    empty = tmp_path / "empty.jpg"
    empty.touch()
    fitted = run("fit-localizer", photos, empty, "--out", tmp_path / "p", *fit, "--json")
    assert fitted.code == 1
    failed, record = fitted.records
    assert failed["image"] == str(empty)
    assert (record["photos"], record["points"]) == (5, 200)
    assert 0 < record["positive_share"] < 1

    queries = [str(photos / "box.jpg"), str(photos / "graf1.jpg")]
    found = run("localize", tmp_path / "p", *queries, "--out", tmp_path / "found", "--json")
    assert found.code == 0
    assert found.err == ""
    assert [record["image"] for record in found.records] == queries
    assert all(set(record) == {"image", "found", "score", "boxes"} for record in found.records)
    with Image.open(queries[0]) as photo:
        size = photo.size
    boxes = np.array(found.records[0]["boxes"])
    assert boxes.shape[1] == 5
    assert (boxes[:, :4] >= 0).all()
    assert (boxes[:, [0, 2]] <= size[0]).all()
    assert sorted(os.listdir(tmp_path / "found")) == [
        "box.jpg", "box_mask.png", "coco.json", "graf1.jpg", "graf1_mask.png", "localizations.jsonl",
    ]  # fmt: skip
    coco = json.loads((tmp_path / "found" / "coco.json").read_text())
    assert len(coco["images"]) == 2
    x, y, width, height = coco["annotations"][0]["bbox"]
    np.testing.assert_allclose([x, y, x + width, y + height], boxes[0, :4], atol=0.01)

    told = run(
        "explain", tmp_path / "p", queries[0], "--at", "100,80", "--top", "3", "--json", "--plot", tmp_path / "e.png"
    )
    plot = tmp_path / "e.png"
    assert told.code == 0
    (record,) = told.records
    assert set(record) == {"image", "at", "value", "points"}
    assert record["at"] == [100, 80]
    assert plot.stat().st_size > 10_000
    assert set(record["points"][0]) == {"image", "xy", "importance", "similarity", "value", "share"}
    assert run("explain", tmp_path / "p", queries[0], "--at", "somewhere").code == 2

    assert run("check", tmp_path / "p", "--json").records[0]["ok"]
    (tmp_path / "p" / "statistics.safetensors").write_bytes(b"gone")
    damaged = run("check", tmp_path / "p")
    assert damaged.code == 1
    assert "statistics.safetensors" in damaged.out
    assert run("localize", tmp_path / "p", queries[0]).err.count("\n") == 1


def test_predictors_merge_into_that_of_all_photos(run: Run, photos: Path, fit: tuple[str, ...], tmp_path: Path) -> None:
    first, *rest = sorted(photos.iterdir())
    assert run("fit-localizer", first, "--out", tmp_path / "a", *fit).code == 0
    merged = run("fit-localizer", *rest, "--merge", tmp_path / "a", "--out", tmp_path / "b", *fit, "--json")
    whole = run("fit-localizer", photos, "--out", tmp_path / "c", *fit, "--json")
    assert merged.records[0]["photos"] == 5
    assert merged.records[0]["tau"] == pytest.approx(whole.records[0]["tau"], rel=1e-6)


def test_predictor_does_not_take_the_place_of_photos(
    run: Run, photos: Path, fit: tuple[str, ...], tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "p")
    done = run("fit-localizer", photos, "--out", tmp_path / "p", *fit)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert len(os.listdir(tmp_path / "p")) == 5
