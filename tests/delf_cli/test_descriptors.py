"""`delf-jax descriptors`: a head learned from photos of the same things, twice the same, and wrong input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import delf_jax
from delf_jax.extraction.head import Head
from tests.delf_cli.conftest import Run


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """Two photos and a smaller copy of each."""
    folder = tmp_path_factory.mktemp("views") / "mine"
    folder.mkdir()
    for name in ("graf1.jpg", "box.jpg"):
        shutil.copy(photos / name, folder)
        with Image.open(folder / name) as photo:
            photo.resize((photo.width * 9 // 10, photo.height * 9 // 10)).save(folder / f"small_{Path(name).stem}.png")
    return folder


def test_a_head_is_learned_without_labels_and_serves(
    run: Run, small: tuple[str, ...], tiny_model: Path, views: Path, tmp_path: Path
) -> None:
    out, work = tmp_path / "head.safetensors", tmp_path / "work"
    command = ("descriptors", views, "--out", out, "--dimension", "8", *small, "--json")
    learned = run(*command, "--work", work)
    assert (learned.code, learned.err) == (0, "")
    (record,) = learned.records
    assert (record["photos"], record["dimension"]) == (4, 8)
    assert record["photo_pairs"] >= 2
    assert record["pairs"] > 10
    head, base = Head.open(out), Head.open(tiny_model / "head.safetensors")
    assert head.pca is not None
    assert (head.dimension, head.whiten, head.calibrations, head.scorers) == (8, False, (), base.scorers)
    assert head.notes["descriptors"]["pairs"] == record["pairs"]

    # Going on where all is done, and beginning anew, give the same file.
    content = out.read_bytes()
    assert run(*command, "--work", work).code == 0
    assert out.read_bytes() == content
    assert run(*command, "--work", tmp_path / "other").code == 0
    assert out.read_bytes() == content

    # Photos of an earlier run that are not given now do not count.
    fewer = run("descriptors", views / "box.jpg", views / "small_box.png", *command[2:], "--work", work)
    assert fewer.records[0]["photos"] == 2

    learned = tmp_path / "learned.safetensors"
    learned.write_bytes(content)
    (features,) = delf_jax.load(tiny_model, head=learned, max_side=96, scales=(1.0,), max_features=10)(
        [views / "box.jpg"]
    )
    assert features.descriptors.shape[1] == 8
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)


def test_photos_of_other_names_do_not_teach(run: Run, small: tuple[str, ...], views: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.csv"
    names.write_text("file,label\n" + "".join(f"{path},{path.stem}\n" for path in sorted(views.iterdir())))
    command = ("descriptors", views, "--out", tmp_path / "head.safetensors", "--work", tmp_path / "work", *small)
    refused = run(*command, "--labels", names)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        "delf-jax: descriptors: no two photos are proved to show the same place; give photos that do\n"
    )
    assert not (tmp_path / "head.safetensors").exists()
    assert json.loads((tmp_path / "work" / "verified.jsonl").read_text().splitlines()[0])
    assert "--dimension is 0" in run(*command, "--dimension", "0").err
    assert "--neighbours is 0" in run(*command, "--neighbours", "0").err
    assert "--labels is 'nowhere.csv'" in run(*command, "--labels", "nowhere.csv").err
