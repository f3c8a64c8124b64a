"""evaluate localization: what is measured, how it is labelled, and what broken photos do."""

from pathlib import Path

import pytest
from PIL import Image

from tests.delf_cli.conftest import Run
from tests.localization.prepared_birds import prepare


@pytest.fixture(scope="module")
def options(tiny_model: Path) -> tuple[str, ...]:
    return ("--protocol", "imagenet", "--layer", "conv4", "--model", str(tiny_model))


@pytest.fixture
def boxes(photos: Path, tmp_path: Path) -> Path:
    """A CSV of one box a photo, with classes."""
    rows = ["file,xmin,ymin,xmax,ymax,label"]
    rows += [f"{photo},20,20,180,160,{photo.name[:3]}" for photo in sorted(photos.iterdir())]
    file = tmp_path / "boxes.csv"
    file.write_text("\n".join(rows))
    return file


def test_baselines_stand_beside_and_thresholds_are_labelled(run: Run, boxes: Path, options: tuple[str, ...]) -> None:
    done = run("evaluate", "localization", boxes, *options, "--probe", "--json")
    assert (done.code, done.err) == (0, "")
    assert [row["method"] for row in done.records] == ["foreground", "activation sum", "class", "centre"]
    for row in done.records:
        assert (row["photos"], row["measure"], row["box_convention"]) == (5, "GT-Known", "inclusive")
        assert row["accuracy_default"] <= row["accuracy"] <= 1
        assert row["max_box_acc_v2"]["official"] <= row["max_box_acc_v2"]["wsolevaluation"]
        for classifier in ("nearest mean", "linear probe"):
            assert 0 <= row[classifier]["top1"] <= row[classifier]["top5"] <= row["accuracy"]
        assert row["pxap"] is None
    assert (done.records[0]["threshold_from"], done.records[0]["default_threshold"]) == ("oracle", 0.01)
    assert done.records[-1]["threshold_from"] is None
    shown = run("evaluate", "localization", boxes, "--layout", "csv", *options)
    assert shown.code == 0
    assert "oracle, the best on these test photos; the default is 0.01" in shown.out
    assert "centre (baseline)" in shown.out
    assert "classes by nearest mean" in shown.out


def test_threshold_of_held_out_photos(run: Run, boxes: Path, options: tuple[str, ...]) -> None:
    boxes.write_text("\n".join(row.rsplit(",", 1)[0] for row in boxes.read_text().splitlines()))
    held_out = run("evaluate", "localization", boxes, *options, "--validation", "2", "--json")
    assert {row["photos"] for row in held_out.records} == {3}
    assert held_out.records[0]["threshold_from"] == "validation"
    assert "nearest mean" not in held_out.records[0]
    too_many = run("evaluate", "localization", boxes, *options, "--validation", "5")
    assert (too_many.code, too_many.err.count("\n")) == (2, 1)
    no_classes = run("evaluate", "localization", boxes, *options, "--probe")
    assert (no_classes.code, no_classes.err.count("\n")) == (2, 1)
    assert "two or more classes" in no_classes.err


def test_whole_photos_with_masks_at_two_scales(run: Run, photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A YOLO folder: CorLoc on uncropped photos, and PxAP from its polygons."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for photo in photos.iterdir():
        with Image.open(photo) as picture:
            picture.save(tmp_path / "images" / photo.name)
        (tmp_path / "labels" / f"{photo.stem}.txt").write_text("0 0.1 0.1 0.9 0.1 0.5 0.9\n0 0.5 0.5 0.6 0.5 0.6 0.6\n")
    (tmp_path / "images" / "cut.jpg").write_bytes((photos / "box.jpg").read_bytes()[:9000])
    (tmp_path / "labels" / "cut.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    done = run(
        "evaluate", "localization", tmp_path, "--protocol", "full", "--map-scales", "1", "0.7",
        "--layer", "conv4", "--model", tiny_model, "--max-side", "224", "--json",
    )  # fmt: skip
    assert (done.code, done.err) == (1, "")
    failed = [record for record in done.records if "error" in record]
    rows = [record for record in done.records if "error" not in record]
    assert {Path(record["image"]).name for record in failed} == {"cut.jpg"}
    assert [row["method"] for row in rows] == ["foreground", "activation sum", "centre"]
    for row in rows:
        assert (row["photos"], row["measure"], row["box_convention"]) == (5, "CorLoc", "edges")
        assert 0 < row["pxap"] <= 1
        assert 0 < row["piou"] <= 1


def test_records_prepared_by_tfds(run: Run, options: tuple[str, ...], tmp_path: Path) -> None:
    done = run("evaluate", "localization", prepare(tmp_path), *options, "--json")
    assert (done.code, done.err) == (1, "")
    failed, *rows = done.records
    assert failed["image"] == "train/bird_1.jpg"
    assert {row["photos"] for row in rows} == {1}
    assert 0 < rows[0]["pxap"] <= 1


def test_broken_training_photos_are_left_out_and_reported(
    run: Run, photos: Path, boxes: Path, options: tuple[str, ...], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photo")
    boxes.write_text(boxes.read_text() + f"\n{bad},1,1,5,5,box")
    done = run("evaluate", "localization", boxes, *options, "--json")
    assert (done.code, done.err) == (1, "")
    assert str(bad) in {record.get("image") for record in done.records}
    assert {record["photos"] for record in done.records if "photos" in record} == {5}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--map-scales", "0"], "--map-scales"),
        (["--max-side", "3"], "at least 16"),
        (["--validation", "-1"], "at least 0"),
        (["--predictor", "nowhere"], "no predictor there"),
        (["--predictor", "nowhere", "--conv5-stride", "1"], "leave it out"),
        (["--predictor", "nowhere", "--layer", "conv4"], "leave it out"),
    ],
)
def test_wrong_usage_is_one_line(args: list[str], said: str, run: Run, boxes: Path) -> None:
    done = run("evaluate", "localization", boxes, *args)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err
