"""`delf-jax calibrate`: what it writes, prints and refuses, and what a search says then."""

import shutil
from pathlib import Path

import pytest

from delf_jax.store.reader import FeatureStore
from tests.delf_cli.conftest import Run

# Three strangers prove 400 wrong in 1000 queries at 50 %, by two of them none may be accepted: 0.6^2 + 0.8 0.6 > 0.5.
BOUND = ("--wrong", "400", "--confidence", "0.5")
STRANGERS = ("coffee", "camera")


@pytest.fixture
def own(index: Path, tmp_path: Path) -> Path:
    """A copy of the index, which the test may change."""
    return Path(shutil.copytree(index, tmp_path / "own"))


@pytest.fixture
def strangers(demo_photos: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "strangers"
    folder.mkdir()
    for name in STRANGERS:
        shutil.copy(demo_photos / f"{name}.jpg", folder)
    return folder


def test_the_index_keeps_the_bound_and_search_shows_it(
    run: Run, own: Path, strangers: Path, photos: Path, tmp_path: Path
) -> None:
    before = run("search", own, photos / "box.jpg", "--json").records[0]
    assert before["calibration"] is None
    assert before["guarantee"].startswith("no bound known (not calibrated on strangers)")

    store = tmp_path / "strangers of it"
    found = run("calibrate", own, "--strangers", strangers, *BOUND, "--features", store, "--json")
    assert (found.code, found.err) == (0, "")
    (record,) = found.records
    words = "at most 400 wrong in 1000 queries, 50 % sure, from 2 strangers"
    assert record["guarantee"] == words
    assert [len(FeatureStore.open(store)), len(record["surest_strangers"])] == [2, 2]
    lowest = record["surest_strangers"][0]["log10_nfa"]
    (threshold,) = record["calibration"]["thresholds"]
    assert threshold == min(threshold, 0.0) < lowest
    assert min(0.0, lowest) - threshold <= 0.0101

    after = run("search", own, photos / "box.jpg", "--json").records[0]
    assert after["threshold"] == pytest.approx(threshold)
    assert (after["guarantee"], after["calibration"]) == (words, record["calibration"])
    assert f"limit: {words}" in run("search", own, photos / "box.jpg").out
    assert run("search", own, strangers / "coffee.jpg", "--json").records[0]["accepted"] is False

    again = run("calibrate", own, "--strangers", strangers, *BOUND, "--features", store)
    assert again.code == 0
    lines = again.out.splitlines()
    assert lines[0] == f"{own}: {words}"
    assert lines[1] == f"  accepted is log10 NFA of at most {threshold:.2f}"
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ("--wrong", "1"),
            "2 strangers are too few: if none is accepted they prove at most 777 wrong in 1000 queries; ",
        ),
        (("--wrong", "0"), "--wrong is 0; it must be above 0 and below 1000"),
        (("--wrong", "1000"), "--wrong is 1000; it must be above 0 and below 1000"),
        (("--wrong", "nan"), "--wrong is nan; it must be above 0 and below 1000"),
        (("--confidence", "95"), "--confidence is 95; it must be at least 0.5 and below 1"),
        (("--strangers",), "no photos were given"),
        (("--strangers", "no such folder"), "no such folder: "),
        ((*BOUND, "--strangers", "PHOTOS"), "this stranger is in the index; leave it out"),
        ((*BOUND, "--strangers", "COPIES"), "this stranger is "),
        ((*BOUND, "--features", "PHOTOS"), "PHOTOS"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line_and_changes_nothing(
    run: Run, own: Path, strangers: Path, photos: Path, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    shutil.copytree(photos, tmp_path / "copies")
    places = {"PHOTOS": str(photos), "COPIES": str(tmp_path / "copies")}
    given = [places.get(option, option) for option in options]
    if "--strangers" not in given:
        given += ["--strangers", str(strangers)]
    before = (own / "manifest.json").read_bytes()
    found = run("calibrate", own, *given)
    assert (found.code, found.out) == (2, "")
    assert found.err.count("\n") == 1, found.err
    assert places.get(says, says) in found.err
    assert (own / "manifest.json").read_bytes() == before


def test_an_index_that_is_not_there(run: Run, strangers: Path, tmp_path: Path) -> None:
    found = run("calibrate", tmp_path / "no index", "--strangers", strangers, *BOUND)
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert "no such index" in found.err
