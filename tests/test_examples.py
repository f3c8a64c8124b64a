"""The examples of the documentation run, on a small random network, and say what they should."""

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

EXAMPLES = ROOT / "docs" / "examples"


Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an example as a script, and returns what it prints."""

    def run(name: str, *args: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def run_alone(name: str, *args: str | Path) -> str:
    """The same in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    finished = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, args)], env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_every_example_is_tested() -> None:
    tested = set(re.findall(r"run\w*\(\s*\"(\w+\.py)\"", Path(__file__).read_text()))
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_inside_jit(run: Run, tiny_model: Path) -> None:
    said = run("inside_jit.py", tiny_model)
    same, other = (float(number) for number in re.findall(r"mean distance ([\d.]+)", said))
    assert same < other
    assert "1 program compiled" in said


def test_under_vmap(run: Run, tiny_model: Path) -> None:
    said = run("under_vmap.py", tiny_model)
    assert "descriptors (4, 1, 100, 16)" in said
    assert "exposure 1.0: 100% of" in said


def test_sharded_over_eight_devices(tiny_model: Path) -> None:
    said = run_alone("sharded.py", tiny_model)
    assert "8 devices, descriptors (8, 100, 16)" in said
    assert "collectives in the program: 0" in said
    assert float(re.findall(r"differ by ([\d.]+)", said)[0]) < 0.01


def test_gradients(run: Run, tiny_model: Path) -> None:
    said = run("gradients.py", tiny_model)
    near, counting = (int(number) for number in re.findall(r"(\d+)% of", said))
    assert near > 50
    assert 0 < counting < 100
    assert int(re.findall(r"and (\d+) arrays", said)[0]) > 10


def test_exported_program_runs_without_the_library(
    run: Run, tiny_model: Path, demo_photos: Path, tmp_path: Path
) -> None:
    run("export_program.py", "save", tmp_path / "extractor.bin", tiny_model)
    said = run_alone("export_program.py", "run", tmp_path / "extractor.bin", demo_photos / "graf1.jpg")
    assert int(re.findall(r"(\d+) features of 16 dimensions", said)[0]) > 20
    assert "delf_jax imported: False" in said


def test_grain_pipeline(run: Run, tiny_model: Path, demo_photos: Path) -> None:
    said = run("grain_pipeline.py", tiny_model)
    count = len(list(demo_photos.glob("*.jpg")))
    assert f"{count} of {count} photos, 1 program compiled" in said
