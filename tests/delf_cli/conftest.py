"""A command that runs in the test's process, on the tiny model and small photos."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from delf_cli import compile_notes
from delf_cli.main import main

# At this size all of the photos have one canvas, and so one program.
SMALL = ("--max-side", "240", "--max-features", "100", "--scales", "1.0")
PHOTOS = ("graf1", "graf3", "box", "box_in_scene", "chelsea")


class Outcome(NamedTuple):
    """What one run of the command came to."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """The objects of --json."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command and catches what it prints, without the lines on programs that are compiled."""
    monkeypatch.setattr(compile_notes, "_SECONDS", 1e6)

    def run(*args: str | Path) -> Outcome:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        output = capsys.readouterr()
        return Outcome(code, output.out, output.err)

    return run


@pytest.fixture(scope="session")
def small(tiny_model: Path) -> tuple[str, ...]:
    """Options that make extraction quick."""
    return ("--model", str(tiny_model), *SMALL)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, demo_photos: Path) -> Path:
    """A folder of five real photos; not to be changed."""
    folder = tmp_path_factory.mktemp("photos")
    for name in PHOTOS:
        shutil.copy(demo_photos / f"{name}.jpg", folder)
    return folder


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, photos: Path, small: tuple[str, ...]) -> Path:
    """A feature store of the photos; not to be changed."""
    path = tmp_path_factory.mktemp("stores") / "store"
    assert main(["extract", str(photos), "--out", str(path), *small]) == 0
    return path


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Path:
    """An exact index of the store; not to be changed."""
    path = tmp_path_factory.mktemp("indexes") / "index"
    assert main(["index", str(store), "--out", str(path), "--backend", "exact"]) == 0
    return path


@pytest.fixture(scope="session")
def fit(tiny_model: Path) -> tuple[str, ...]:
    """Options that make fitting a predictor quick."""
    return ("--model", str(tiny_model), "--max-side", "240", "--layer", "conv4", "--max-points", "200")


@pytest.fixture(scope="session")
def predictor(tmp_path_factory: pytest.TempPathFactory, photos: Path, fit: tuple[str, ...]) -> Path:
    """A predictor of the photos; not to be changed."""
    path = tmp_path_factory.mktemp("predictors") / "p"
    assert main(["fit-localizer", str(photos), "--out", str(path), *fit]) == 0
    return path
