"""The page, served for the tests of this folder: with an index and a predictor, or with an index and its groups."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from delf_cli.main import main


@pytest.fixture(scope="session")
def address(index: Path, predictor: Path) -> Iterator[str]:
    """The address of the page."""
    pytest.importorskip("uvicorn", reason="needs delf-jax[web,browser]")
    from delf_cli import serve
    from tests.delf_cli.web.live_page import served

    command = serve.Serve(index=str(index), predictor=str(predictor), extraction=serve.ExtractionOptions())
    with served(command._app()) as address:
        yield address


class Grouped(NamedTuple):
    """A page with groups: its address, and the folders of the index and of the groups."""

    address: str
    index: Path
    groups: Path


@pytest.fixture(scope="session")
def grouped(photos: Path, small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grouped]:
    """The page of three photos, of which two are copies."""
    pytest.importorskip("uvicorn", reason="needs delf-jax[web,browser]")
    from delf_cli import serve
    from tests.delf_cli.web.live_page import served

    root = tmp_path_factory.mktemp("grouped")
    three, store, index, groups = (root / name for name in ("photos", "store", "index", "groups"))
    three.mkdir()
    for name in ("graf1.jpg", "chelsea.jpg"):
        shutil.copy(photos / name, three)
    with Image.open(three / "graf1.jpg") as photo:
        photo.resize((photo.width // 2, photo.height // 2)).save(three / "half.png")
    assert main(["extract", str(three), "--out", str(store), *small]) == 0
    assert main(["index", str(store), "--out", str(index), "--backend", "exact"]) == 0
    assert main(["group", str(index), "--out", str(groups), "--no-page"]) == 0
    command = serve.Serve(index=str(index), groups=str(groups), extraction=serve.ExtractionOptions())
    with served(command._app()) as address:
        yield Grouped(address, index, groups)
