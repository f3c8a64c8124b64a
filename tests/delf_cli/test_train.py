"""`delf-jax train`, from photos to a head that extraction takes."""

import json
import tomllib
from pathlib import Path

import pytest

import delf_jax
from delf_jax.extraction.head import Head
from tests.delf_cli.conftest import Run
from tests.delf_jax.training.class_folders import PHOTOS, write_class_folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, demo_photos: Path) -> Path:
    """A training set of real photos; not to be changed."""
    return write_class_folders(tmp_path_factory.mktemp("training") / "photos", demo_photos)


@pytest.fixture
def tiny(tiny_model: Path) -> tuple[str, ...]:
    """Options of the smallest run."""
    return ("--preset", "tiny", "--model", str(tiny_model))


def test_a_run_gives_a_head_that_keeps_the_other_parts_and_serves_learned(
    run: Run, folders: Path, tiny: tuple[str, ...], tiny_model: Path, tmp_path: Path, demo_photos: Path
) -> None:
    out = tmp_path / "run"
    outcome = run("train", folders, "--out", out, *tiny, "--json")
    assert outcome.code == 0, outcome.err
    (record,) = outcome.records
    assert (record["photos"], record["step"], record["steps"]) == (PHOTOS, 12, 12)
    head, base = Head.open(out / "head.safetensors"), Head.open(tiny_model / "head.safetensors")
    assert head.scorers == ("norm", "foreground", "learned")
    assert head.log10_nfa_threshold == base.log10_nfa_threshold
    assert head.pca is not None
    assert head.notes["trained"]["photos"] == PHOTOS
    with open(out / "preset.toml", "rb") as file:
        assert tomllib.load(file)["batch_size"] == 4
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 12
    extractor = delf_jax.load(
        tiny_model, head=out / "head.safetensors", scorer="learned", max_side=96, scales=(1.0,), max_features=10
    )
    (features,) = extractor([demo_photos / "graf1.jpg"])
    assert (features.scores > 0).all()

    # The same command again has nothing left to do; another one is refused.
    before = (out / "head.safetensors").read_bytes()
    assert run("train", folders, "--out", out, *tiny).code == 0
    assert (out / "head.safetensors").read_bytes() == before
    other = run("train", folders, "--out", out, *tiny, "--seed", "3")
    assert other.code == 2
    assert "settings.seed: 0 there, 3 asked for" in other.err


@pytest.mark.slow
def test_the_joint_recipe_gives_a_model_of_its_own(
    run: Run, folders: Path, tiny: tuple[str, ...], tmp_path: Path, demo_photos: Path
) -> None:
    out = tmp_path / "run"
    options = ["recipe=joint", "train_backbone=true", "photo_layer=conv4", "cached=false", "side=48", "autoencoder=8"]
    outcome = run("train", folders, "--out", out, *tiny, "--steps", "2", "--set", *options, "learning_rate=0.001")
    assert outcome.code == 0, outcome.err
    assert f"--model {out} --scorer learned" in outcome.out
    extractor = delf_jax.load(out, scorer="learned", max_side=96, scales=(1.0,), max_features=10)
    (features,) = extractor([demo_photos / "graf1.jpg"])
    assert features.descriptors.shape[1] == 8
    assert Head.open(out / "head.safetensors").foreground is not None


def test_without_labels_every_photo_is_a_class(run: Run, folders: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    options = ["augmentation=warp", "area=0.3", "views=3"]
    outcome = run(
        "train", folders, "--labels", "none", "--out", tmp_path / "run", *tiny, "--steps", "2", "--set", *options
    )
    assert outcome.code == 0, outcome.err
    notes = Head.open(tmp_path / "run" / "head.safetensors").notes["trained"]
    assert notes["classes"] == PHOTOS
    refused = run("train", folders, "--labels", "none", "--out", tmp_path / "b", *tiny, "--validation", "0.2")
    assert refused.code == 2
    assert "leave --validation at 0" in refused.err


def test_a_photo_that_cannot_be_read_is_reported_and_does_not_stop_the_run(
    run: Run, tiny: tuple[str, ...], tmp_path: Path, demo_photos: Path
) -> None:
    photos = write_class_folders(tmp_path / "photos", demo_photos)
    (photos / "cat" / "chelsea.jpg").write_bytes(b"no cat")
    outcome = run("train", photos, "--out", tmp_path / "run", *tiny, "--steps", "1", "--json")
    assert outcome.code == 1
    failure, record = outcome.records
    assert failure["image"].endswith("chelsea.jpg")
    assert record["photos"] == PHOTOS - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "pooling=max"), "choose one of: sum, mean, unit"),
        (("--preset", "no-such"), "there is no such preset"),
        (("--labels", "list.csv"), "list.csv"),
        (("--workers", "-1"), "--workers is -1"),
    ],
)
def test_impossible_runs_end_in_one_line(
    run: Run, folders: Path, tiny: tuple[str, ...], tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    outcome = run("train", folders, "--out", tmp_path / "run", *tiny, *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "run" / "head.safetensors").exists()


def test_tensorboard_gets_the_curves(run: Run, folders: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the extra [tensorboard] is not installed")
    outcome = run("train", folders, "--out", tmp_path / "run", *tiny, "--steps", "2", "--tensorboard")
    assert outcome.code == 0, outcome.err
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"attention_loss" in events.read_bytes()
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])["step"] == 1
