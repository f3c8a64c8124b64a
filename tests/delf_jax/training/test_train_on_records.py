"""Training on shards is training on the files they were made from."""

from pathlib import Path
from typing import Any

import pytest

from delf_cli.main import main
from delf_jax.training import metrics_log
from tests.delf_jax.training.class_folders import write_class_folders


@pytest.mark.parametrize(
    ("validation", "settings"),
    [
        pytest.param(0.3, ["validation=0.3"], id="cached features"),
        pytest.param(0.0, ["cached=false", "side=64", "order=balanced"], marks=pytest.mark.slow, id="crops"),
    ],
)
def test_losses_and_head_are_the_same(
    tmp_path: Path, tiny_model: Path, demo_photos: Path, validation: float, settings: list[str]
) -> None:
    photos, shards = write_class_folders(tmp_path / "photos", demo_photos), tmp_path / "shards"
    (photos / "castle" / "broken.jpg").write_bytes(b"\xff\xd8\xff cut short")
    assert main(["prepare", str(photos), "--out", str(shards), "--validation", str(validation)]) == 0

    def train(data: Path, out: str) -> tuple[list[dict[str, Any]], bytes]:
        command = ["train", str(data), "--preset", "tiny", "--model", str(tiny_model), "--steps", "4"]
        assert main([*command, "--out", str(tmp_path / out), "--set", *settings]) == 1  # for the broken photo
        times = ("seconds", "photos_per_second")
        lines = metrics_log.read(tmp_path / out / "metrics.jsonl")
        head = (tmp_path / out / "head.safetensors").read_bytes()
        return [{name: value for name, value in line.items() if name not in times} for line in lines], head

    lines, head = train(photos, "on files")
    assert {line["step"] for line in lines} == {1, 2, 3, 4}
    assert train(shards, "on shards") == (lines, head)
