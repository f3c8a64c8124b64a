"""The page of an index and a predictor, served for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def address(index: Path, predictor: Path) -> Iterator[str]:
    """The address of the page."""
    pytest.importorskip("uvicorn", reason="needs delf-jax[web,browser]")
    from delf_cli import serve
    from tests.delf_cli.web.live_page import served

    command = serve.Serve(index=str(index), predictor=str(predictor), extraction=serve.ExtractionOptions())
    with served(command._app()) as address:
        yield address
