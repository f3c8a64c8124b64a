"""--log-level: JSON lines on stderr, wherever it stands, and silence without it."""

import json
from pathlib import Path

from tests.delf_cli.conftest import Run


def test_info_tells_the_parts_and_json_results_stay_alone_on_stdout(
    run: Run, photos: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    metrics = tmp_path / "delf.prom"
    args = ("extract", photos, "--out", tmp_path / "store", *small, "--metrics", metrics, "--json")
    outcome = run("--log-level", "info", *args)
    assert (outcome.code, outcome.records[-1]["done"]) == (0, 5)
    lines = [json.loads(line) for line in outcome.err.splitlines()]
    assert [line["event"] for line in lines] == ["job started", "part written", "job finished"]
    assert all({"time", "level", "logger"} <= line.keys() for line in lines)
    assert lines[1]["photos"] == 5
    assert 'delf_jax_extract_photos_total{outcome="done"} 5.0' in metrics.read_text()

    assert run(*args, "--log-level=warning").err == ""
    assert run(*args).err == ""


def test_an_unknown_level_is_wrong_usage(run: Run) -> None:
    for args in (("--log-level", "loud"), ("--log-level",), ("--log-level=",)):
        outcome = run("check", "x", *args)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert "it must be debug, info, warning or error" in outcome.err


def test_help_tells_of_it(run: Run) -> None:
    assert "--log-level debug|info|warning|error" in " ".join(run("index", "--help").out.replace("│", " ").split())
