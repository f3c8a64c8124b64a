"""Messages say something, also where an error says nothing or a file lacks what they would name."""

import ast
import errno
from pathlib import Path

import numpy as np
import pytest

from delf_jax.errors import DelfError, ModelError, reason_of
from delf_jax.extraction.head import Head
from delf_jax.files import model_file
from delf_jax.settings import ExtractionSettings
from delf_jax.training.run_folder import prepare_run_folder
from localization.encoders.choosing import open_encoder
from localization.foreground.statistics import Statistics
from localization.grid import PIXELS
from localization.maps.cells import cells_of
from retrieval.indexing import manifest
from tests.conftest import ROOT


def test_no_message_asks_for_a_text_that_an_error_may_lack() -> None:
    """``strerror`` is None in errors that libraries make of a text alone."""
    assert reason_of(OSError("seek failed")) == "seek failed"
    assert reason_of(OSError(errno.EACCES, "Permission denied", "/x")) == "Permission denied"
    for package in ("delf_jax", "delf_cli", "retrieval", "localization"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FormattedValue):
                    assert not (isinstance(node.value, ast.Attribute) and node.value.attr == "strerror"), path


def test_messages_never_say_none_or_show_objects(tmp_path: Path) -> None:
    model_file.write(tmp_path / "x.safetensors", {"a": np.zeros(1)}, {})
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "file").touch()
    prepare_run_folder(tmp_path / "run", {"settings": {"scorer": "norm"}})
    (tmp_path / "run" / "checkpoints" / "1").mkdir(parents=True)
    encoders = [{"kind": "extractor", "layer": "conv4"}, {"kind": "extractor", "layer": "conv5", "stride": 1}]
    statistics = [Statistics.of_photo(np.ones((1, 1, 2), np.float32), encoder=encoder) for encoder in encoders]
    said = [str(manifest.file_damage(tmp_path / "i", "file", {}))]
    for act, kind in (
        (lambda: Head.open(tmp_path / "x.safetensors"), ModelError),
        (lambda: prepare_run_folder(tmp_path / "run", {"settings": {"seed": 3}}), DelfError),
        (lambda: open_encoder({}), DelfError),
        (lambda: statistics[0] + statistics[1], DelfError),
        (lambda: cells_of((np.float64(9), 2.0), (2, 2), PIXELS, (5, 5)), DelfError),
        (lambda: ExtractionSettings(scales=(np.float64(9.0),)), ValueError),
    ):
        with pytest.raises(kind) as refused:
            act()
        said.append(str(refused.value))
    assert said == [
        "manifest.json does not say how long file is",
        f"{tmp_path / 'x.safetensors'}: this is a model file, not a head; name a head file",
        f"{tmp_path / 'run'}: holds a run with other settings (settings.scorer: norm there, not set asked for; "
        "settings.seed: not set there, 3 asked for); give those again, or choose another --out",
        "this predictor was fitted on the function of its caller; give it again with encoder=",
        "statistics come from different encoders (layer conv4 and conv5, stride not set and 1); "
        "fit both with the same one",
        "9, 2: is not inside the photo of 5 x 5 pixels; choose a place inside it",
        "scales are 9.0; give one or more numbers above 0 and up to 8",
    ]
