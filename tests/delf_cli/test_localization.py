"""fit-localizer, localize, explain, evaluate, and check of a predictor, as people and programs see them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delf_cli.main import main
from tests.delf_cli.conftest import Run


def test_fit_tells_what_it_fitted_and_what_failed(run: Run, photos: Path, fit: tuple[str, ...], tmp_path: Path) -> None:
    empty = tmp_path / "empty.jpg"
    empty.touch()
    fitted = run("fit-localizer", photos, empty, "--out", tmp_path / "p", *fit, "--json")
    assert (fitted.code, fitted.err) == (1, "")
    failed, record = fitted.records
    assert failed["image"] == str(empty)
    assert (record["photos"], record["points"]) == (5, 200)
    assert 0 < record["positive_share"] < 1
    alone = run("fit-localizer", empty, "--out", tmp_path / "q", *fit)
    assert (alone.code, alone.out) == (2, "")
    assert not (tmp_path / "q").exists()


def test_localize_gives_boxes_pictures_and_coco(run: Run, photos: Path, predictor: Path, tmp_path: Path) -> None:
    queries = [str(photos / "box.jpg"), str(photos / "graf1.jpg")]
    found = run("localize", predictor, *queries, "--out", tmp_path / "found", "--json")
    assert (found.code, found.err) == (0, "")
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
    with Image.open(tmp_path / "found" / "box_mask.png") as mask:
        assert mask.size == size
        columns = np.flatnonzero((np.asarray(mask) == 1).any(axis=0))
    np.testing.assert_allclose([columns[0], columns[-1] + 1], boxes[0, [0, 2]], atol=2)
    coco = json.loads((tmp_path / "found" / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == queries
    x, y, width, height = coco["annotations"][0]["bbox"]
    np.testing.assert_allclose([x, y, x + width, y + height], boxes[0, :4], atol=0.02)
    assert 0 < coco["annotations"][0]["area"] <= width * height


def test_localize_goes_on_where_it_stopped(run: Run, photos: Path, predictor: Path, tmp_path: Path) -> None:
    mine, out = tmp_path / "photos", tmp_path / "found"
    mine.mkdir()
    for name in ("box.jpg", "graf1.jpg"):
        shutil.copy(photos / name, mine)
    args = ("localize", predictor, mine, "--out", out, "--json")
    first = run(*args)
    assert first.code == 0
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}

    shutil.copy(photos / "box.jpg", mine / "new.jpg")
    (tmp_path / "other").mkdir()
    shutil.copy(photos / "chelsea.jpg", tmp_path / "other" / "box.jpg")
    with open(out / "localizations.jsonl", "a") as lines:
        lines.write('{"image": "cut sho')
    again = run(*args[:2], mine, tmp_path / "other", *args[3:])
    assert again.code == 0
    assert again.records[:2] == first.records
    assert len(again.records) == 4
    for name in ("box.jpg", "box_mask.png", "graf1.jpg", "graf1_mask.png"):
        assert (out / name).stat().st_mtime_ns == before[name]
    assert (out / "box_2.jpg").exists()  # the other folder's photo of that name

    shutil.copy(photos / "chelsea.jpg", mine / "graf1.jpg")
    changed = run(*args)
    assert changed.records[0] == first.records[0]
    assert changed.records[1]["boxes"] != first.records[1]["boxes"]
    assert (out / "graf1.jpg").stat().st_mtime_ns > before["graf1.jpg"]
    assert run(*args, "--threshold", "0.8").records[0]["boxes"] != first.records[0]["boxes"]
    assert len(json.loads((out / "coco.json").read_text())["images"]) == 4
    listed = [json.loads(line)["image"] for line in (out / "localizations.jsonl").read_text().splitlines()]
    assert len(listed) == len(set(listed)) == 4


def test_bad_photo_among_good_ones(run: Run, photos: Path, predictor: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes((photos / "box.jpg").read_bytes()[:5000])
    found = run("localize", predictor, bad, photos / "box.jpg", "--out", tmp_path / "found", "--json")
    assert (found.code, found.err) == (1, "")
    assert "damaged or cut short" in found.records[0]["error"]
    assert found.records[1]["image"] == str(photos / "box.jpg")
    alone = run("localize", predictor, bad)
    assert (alone.code, alone.out, alone.err.count("\n")) == (2, "", 1)
    told = run("explain", predictor, bad, "--json")
    assert told.code == 2
    assert told.records[0]["image"] == str(bad)


def test_explain_names_training_places(run: Run, photos: Path, predictor: Path, tmp_path: Path) -> None:
    query = photos / "box.jpg"
    told = run("explain", predictor, query, "--at", "100,80", "--top", "3", "--json", "--plot", tmp_path / "e.png")
    assert (told.code, told.err) == (0, "")
    (record,) = told.records
    assert set(record) == {"image", "at", "value", "points"}
    assert record["at"] == [100, 80]
    assert set(record["points"][0]) == {"image", "xy", "importance", "similarity", "value", "share", "cumulative"}
    signs = [np.sign(point["importance"]) for point in record["points"]]
    assert signs == [1, 1, 1, -1, -1, -1]
    assert {point["image"] for point in record["points"]} <= {str(path) for path in photos.iterdir()}
    with Image.open(tmp_path / "e.png") as sheet:
        assert sheet.height > 800
    boxed = run("explain", predictor, query, "--box", "10,20,200,150", "--ranking", "local", "--json")
    assert boxed.records[0]["box"] == [10, 20, 200, 150]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["explain", "P", "X", "--at", "somewhere"], "give 2 numbers"),
        (["explain", "P", "X", "--at", "1,2", "--box", "1,2,3,4"], "either --at or --box"),
        (["explain", "P", "X", "--at", "5000,2"], "not inside the photo"),
        (["explain", "P", "X", "--top", "0"], "at least 1"),
        (["explain", "P", "X", "--per-photo", "-1"], "at least 0"),
        (["localize", "P", "X", "--label", "a", "--classify", "nearest-mean"], "either --label or --classify"),
        (["localize", "P", "X", "--classify", "nearest-mean"], "two or more classes"),
        (["localize", "P", "X", "--batch-size", "0"], "at least 1"),
        (["localize", "P", "X", "--map-scales", "0"], "map scales are"),
        (["fit-localizer", "X", "--out", "q", "--labels", "colour"], "give folders, cluster:NUMBER, or a CSV"),
        (["fit-localizer", "X", "--out", "q", "--labels", "cluster:many"], "number of clusters"),
        (["fit-localizer", "X", "--out", "q", "--loss", "bce"], "needs a --weight"),
        (["fit-localizer", "X", "--out", "q", "--weight", "1"], "is for --loss"),
        (
            ["fit-localizer", "X", "--out", "q", "--loss", "bce", "--weight", "1", "--no-points"],
            "leave out --no-points",
        ),
        (["fit-localizer", "X", "--out", "q", "--norm-quantile", "95"], "below 1"),
        (["fit-localizer", "X", "--out", "q", "--norm-cap", "9", "--norm-quantile", "0.9"], "either"),
        (["explain", "P", "X", "--plot", "e.xyz"], "unknown picture format"),
        (["localize", "P", "X", "--threshold", "1.5"], "below 1"),
        (["localize", "P"], "no photos were given"),
        (["localize", "nowhere", "X"], "no predictor there"),
        (["fit-localizer", "X", "--out", "q", "--max-points", "0"], "--no-points"),
        (["fit-localizer", "X", "--out", "q", "--max-side", "3"], "at least 16"),
        (["fit-localizer", "--out", "q"], "no photos were given"),
        (["evaluate", "localization", "nowhere"], "no such folder"),
        (["evaluate", "localization", "P", "--layout", "cub"], "not in the layout cub"),
    ],
)
def test_wrong_usage_is_one_line(
    args: list[str], said: str, run: Run, photos: Path, predictor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stands_for = {"P": str(predictor), "X": str(photos / "box.jpg")}
    done = run(*(stands_for.get(arg, arg) for arg in args))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err
    assert os.listdir(tmp_path) == []


def test_predictor_without_points_localizes_but_does_not_explain(
    run: Run, photos: Path, fit: tuple[str, ...], tmp_path: Path
) -> None:
    fitted = run("fit-localizer", photos, "--out", tmp_path / "p", *fit[:-2], "--no-points", "--json")
    assert fitted.records[0]["points"] == 0
    assert run("localize", tmp_path / "p", photos / "box.jpg").code == 0
    told = run("explain", tmp_path / "p", photos / "box.jpg")
    assert (told.code, told.out, told.err.count("\n")) == (2, "", 1)
    assert "without points" in told.err


def test_check_of_a_predictor(run: Run, photos: Path, predictor: Path, tmp_path: Path) -> None:
    fine = run("check", predictor, "--json")
    assert fine.code == 0
    assert (fine.records[0]["ok"], fine.records[0]["photos"], fine.records[0]["points"]) == (True, 5, 200)
    shutil.copytree(predictor, tmp_path / "p")
    (tmp_path / "p" / "statistics.safetensors").write_bytes(b"gone")
    damaged = run("check", tmp_path / "p")
    assert damaged.code == 1
    assert "statistics.safetensors" in damaged.out
    assert run("localize", tmp_path / "p", photos / "box.jpg").err.count("\n") == 1


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


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory, photos: Path, fit: tuple[str, ...]) -> tuple[Path, Path]:
    """Photos in folders of two classes, and their predictor; not to be changed."""
    root = tmp_path_factory.mktemp("classes")
    for name in ("graf1", "graf3", "box", "box_in_scene"):
        folder = root / "photos" / name[:3]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / f"{name}.jpg", folder)
    args = ["fit-localizer", str(root / "photos"), "--out", str(root / "p"), *fit, "--labels", "folders"]
    assert main(args) == 0
    return root / "photos", root / "p"


def test_classes_given_and_predicted(run: Run, labelled: tuple[Path, Path], tmp_path: Path) -> None:
    photos, predictor = labelled
    given = run("localize", predictor, photos, "--label", "box", "--json")
    predicted = run("localize", predictor, photos, "--classify", "nearest-mean", "--out", tmp_path / "out", "--json")
    assert (given.code, predicted.code) == (0, 0)
    assert {record["label"] for record in given.records} == {"box"}
    assert [record["label"] for record in predicted.records] == ["box", "box", "gra", "gra"]
    assert given.records[0]["boxes"] == predicted.records[0]["boxes"]
    coco = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert coco["categories"] == [{"id": 1, "name": "box"}, {"id": 2, "name": "gra"}]
    assert {(a["image_id"] > 2, a["category_id"]) for a in coco["annotations"]} == {(False, 1), (True, 2)}
    again = run("localize", predictor, photos, "--classify", "nearest-mean", "--out", tmp_path / "out", "--json")
    assert again.records == predicted.records
    wrong = run("localize", predictor, photos, "--label", "dog", "--out", tmp_path / "none")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "these were: box, gra" in wrong.err
    assert not (tmp_path / "none").exists()


def test_classes_from_a_table_and_from_clusters(
    run: Run, labelled: tuple[Path, Path], fit: tuple[str, ...], tmp_path: Path
) -> None:
    photos, _ = labelled
    table = photos.parent / "classes.csv"
    table.write_text("file,label\nphotos/gra/graf1.jpg,wall\nphotos/box/box.jpg,thing\n")
    from_table = run("fit-localizer", photos, "--labels", table, "--out", tmp_path / "a", *fit, "--json")
    assert from_table.records[0]["classes"] == ["thing", "wall"]
    clustered = run("fit-localizer", photos, "--labels", "cluster:2", "--out", tmp_path / "b", *fit, "--json")
    assert clustered.records[0]["classes"] == ["cluster 0", "cluster 1"]
    assert clustered.records[0]["tau"] == from_table.records[0]["tau"]
    table.write_text("file,label\nelsewhere.jpg,wall\n")
    nothing = run("fit-localizer", photos, "--labels", table, "--out", tmp_path / "c", *fit)
    assert nothing.code == 2
    assert "no label for any of the photos" in nothing.err


def test_forgotten_photos_leave_the_predictor_of_the_others(
    run: Run, photos: Path, predictor: Path, fit: tuple[str, ...], tmp_path: Path
) -> None:
    first, *rest = sorted(photos.iterdir())
    assert run("fit-localizer", first, "--out", tmp_path / "a", *fit).code == 0
    left = run("fit-localizer", "--merge", predictor, "--forget", tmp_path / "a", "--out", tmp_path / "b", "--json")
    others = run("fit-localizer", *rest, "--out", tmp_path / "c", *fit, "--json")
    assert left.records[0]["photos"] == 4
    assert left.records[0]["tau"] == pytest.approx(others.records[0]["tau"], rel=1e-6)
    stranger = run("fit-localizer", *rest, "--forget", tmp_path / "a", "--out", tmp_path / "d", *fit)
    assert stranger.code == 2
    assert "cannot be forgotten" in stranger.err


def test_refined_clipped_and_calibrated(run: Run, photos: Path, fit: tuple[str, ...], tmp_path: Path) -> None:
    plain = run("fit-localizer", photos, "--out", tmp_path / "a", *fit, "--json").records[0]
    refined = run("fit-localizer", photos, "--out", tmp_path / "b", *fit, "--loss", "bce", "--weight", "0.1")
    assert refined.code == 0
    scores = [run("localize", tmp_path / p, photos / "box.jpg", "--json").records[0]["score"] for p in ("a", "b")]
    assert scores[0] != scores[1]
    clipped = run("fit-localizer", photos, "--out", tmp_path / "c", *fit, "--norm-quantile", "0.9", "--json")
    assert clipped.records[0]["norm_spread"] < plain["norm_spread"]
    empty = photos / "chelsea.jpg"
    strict = run("fit-localizer", photos, "--out", tmp_path / "d", *fit, "--empty", empty, "--json")
    found = run("localize", tmp_path / "d", empty, "--json").records[0]
    assert strict.records[0]["found_threshold"] == pytest.approx(found["score"], abs=1e-4)
    assert (found["found"], found["boxes"]) == (False, [])
    # Five photos of as many things: the boxes leave no strip of any free.


def test_layers_are_those_of_the_model(run: Run, photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = ("--model", tiny_model, "--max-side", "120", "--max-points", "100")
    wrong = run("fit-localizer", photos, "--out", tmp_path / "a", *options, "--layer", "pool5")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "no map named pool5; it has conv1, " in wrong.err
    assert run("fit-localizer", photos, "--out", tmp_path / "a", *options, "--conv5-stride", "1").code == 0
    assert run("fit-localizer", photos, "--out", tmp_path / "b", *options).code == 0
    query = photos / "box.jpg"
    scores = [
        run("localize", tmp_path / name, query, *more, "--json").records[0]["score"]
        for name, more in (("a", ()), ("b", ()), ("b", ("--map-scales", "1", "2")), ("b", ("--batch-size", "2")))
    ]
    assert len({*scores[:3]}) == 3
    assert scores[3] == pytest.approx(scores[1], abs=1e-3)


def test_feature_maps_in_files(run: Run, photos: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        dense = np.abs(rng.normal(size=(8, 10, 16))).astype(np.float32)
        dense[2:5, 3:6, :4] += 4
        np.save(tmp_path / f"{number}.npy", dense)
    maps = sorted(tmp_path.glob("*.npy"))
    fitted = run("fit-localizer", *maps, "--out", tmp_path / "p", "--json")
    assert (fitted.code, fitted.records[0]["points"]) == (0, 320)
    found = run("localize", tmp_path / "p", maps[0], "--out", tmp_path / "found", "--json")
    assert found.code == 0
    np.testing.assert_allclose(found.records[0]["boxes"][0][:4], [3, 2, 6, 5], atol=1)
    assert (tmp_path / "found" / "0.jpg").exists()
    told = run(
        "explain", tmp_path / "p", maps[0], "--at", "4,3", "--ranking", "local", "--json", "--plot", tmp_path / "e.png"
    )
    assert told.code == 0
    assert told.records[0]["points"][0]["image"] == str(maps[0])
    mixed = run("fit-localizer", maps[0], photos / "box.jpg", "--out", tmp_path / "q")
    assert (mixed.code, mixed.err.count("\n")) == (2, 1)
