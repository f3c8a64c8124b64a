"""Check and repair of stores and indexes."""

import json
import shutil
from pathlib import Path

import pytest

from tests.delf_cli.conftest import Run


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
    shutil.rmtree(path / "commits")
    lost = run("check", path)
    assert (lost.code, lost.err.count("\n")) == (2, 1)
    assert "its commit log is missing; `delf-jax check" in lost.err
    repaired = run("check", path, "--repair", "--json")
    (record,) = repaired.records
    assert (repaired.code, record["ok"], record["repaired"], record["photos"]) == (0, True, True, 5)
    assert record["damaged"] == [{"file": "commit log", "reason": "it is missing"}]
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
    assert "put back the original head file" in run("check", path, "--repair").out


def test_check_tells_the_last_run(run: Run, store: Path) -> None:
    record = run("check", store, "--json").records[0]
    assert (record["runs"], record["last_run"]["done"]) == (1, 5)
    assert "last run: finished, 5 photos done in" in run("check", store).out
