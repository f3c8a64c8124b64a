"""The benchmark of localization runs on a small model, and its clocks pair up what they compare."""

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.localization import Options, load, main, table
from benchmarks.timing import take_turns


def test_alternatives_take_turns_and_pair_up(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def alternative(name: str, seconds: int, case: int) -> None:
        calls.append((name, case))
        clock[0] += seconds * case

    seconds = take_turns(
        {"quick": partial(alternative, "quick", 1), "slow": partial(alternative, "slow", 10)}, [1, 2, 3], rounds=2
    )
    assert calls[:4] == [("quick", 1), ("slow", 1), ("slow", 2), ("quick", 2)]
    np.testing.assert_array_equal(seconds["quick"], [1, 2, 3, 1, 2, 3])
    np.testing.assert_array_equal(seconds["slow"], [10, 20, 30, 10, 20, 30])
    assert len(calls) == 2 * 3 * 3


def test_photos_are_reduced_and_named_apart(tmp_path: Path) -> None:
    photos = load(Options(data=tmp_path, max_side=64), 30)
    assert len(photos) == 30
    assert all(max(photo.shape[:2]) <= 64 and photo.dtype == np.uint8 for photo in photos.values())
    assert len({photo.tobytes() for photo in photos.values()}) == 30


@pytest.mark.slow
def test_all_parts_are_measured(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "localization.json"
    options = Options(
        data=tmp_path,
        json=out,
        model=str(tiny_model),
        max_side=96,
        cost_photos=4,
        batch=2,
        points_photos=24,
        queries=6,
        rounds=1,
    )
    rows = main(options)
    kept = json.loads(out.read_text())
    assert kept["benchmark"] == "localization"
    assert [row["what"] for row in kept["rows"]] == [row["what"] for row in rows]
    by_name = {row["what"]: row for row in rows}
    assert by_name["encoder alone"]["percent_over_encoder"] == 0
    assert by_name["exact"]["recall"] == 1
    assert by_name["brute force, NumPy"]["of_brute_force"] == 1
    assert by_name["exact"]["photos"] == 24
    if "skipped" in rows[-1]:
        assert "PyTorch is not installed" in rows[-1]["skipped"]
    else:
        assert rows[-2]["w_cosine"] == pytest.approx(1, abs=1e-6)
        assert rows[-1]["map_difference"] < 1e-4
    assert table(rows) in capsys.readouterr().out
