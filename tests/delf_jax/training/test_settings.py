"""Presets are whole, and settings that cannot be followed are refused with the remedy."""

from pathlib import Path

import pytest

from delf_jax.training import settings
from delf_jax.training.settings import TrainingError, TrainingSettings, open_preset


@pytest.mark.parametrize("name", settings.preset_names())
def test_packaged_presets_open_say_how_to_run_them_and_survive_a_copy(name: str, tmp_path: Path) -> None:
    preset = open_preset(name)
    path = Path(settings.__file__).parent / "presets" / f"{name}.toml"
    assert f"delf-jax train --preset {name}" in path.read_text()
    (tmp_path / "copy.toml").write_text(preset.to_toml(), encoding="utf-8-sig")  # as editors of Windows do
    assert open_preset(tmp_path / "copy.toml") == preset


def test_published_numbers_of_the_official_trainer() -> None:
    joint = open_preset("delg-joint")
    assert (joint.optimizer, joint.learning_rate, joint.schedule, joint.clip) == ("sgd", 0.01, "linear", 10.0)
    assert (joint.attention_weight, joint.reconstruction_weight, joint.autoencoder) == (1.0, 10.0, 128)
    assert (joint.side, joint.area, joint.steps, joint.pooling, joint.validation) == (321, 0.08, 500_000, "mean", 0.2)


def test_published_numbers_of_the_paper() -> None:
    descriptors, attention = open_preset("paper-descriptors"), open_preset("paper-attention")
    assert (descriptors.resize, descriptors.side) == (250, 224)
    assert (attention.resize, attention.side, attention.smallest_gamma, attention.pooling) == (900, 720, 0.3535, "sum")
    assert (attention.learning_rate, attention.schedule, attention.halve_every) == (0.008, "halving", 10)
    assert attention.weight_decay == 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "max"}, "pooling is 'max'; choose one of: sum, mean, unit"),
        ({"learning_rat": 1}, "there is no setting 'learning_rat'; known: recipe,"),
        ({"batch_size": 2.5}, "batch_size is 2.5; give a value like 32"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"train_backbone": True}, "does not train the backbone"),
        ({"recipe": "joint", "train_backbone": True}, "set cached = false"),
        ({"validation": 1.0}, "a share of the photos"),
        ({"cached": False, "augmentation": "square", "side": 900}, "side 900 is larger than resize 250"),
        ({"cached": False, "cells_per_step": 8}, "set cached = true"),
        ({"view_sides": []}, "view_sides is"),
        ({"steps": -1}, "steps is -1"),
        ({"side": 0}, "at least 16"),
        ({"view_sides": [384, 4]}, "at least 16"),
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5"),
        ({"weight_decay": -1}, "weight_decay is -1.0; it must be 0 or more"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; it must be above 0"),
        ({"clip": float("inf")}, "clip is inf"),
        ({"seed": 2**32}, "seed is 4294967296; it must be 0 to 4294967295"),
        ({"warm_start": True, "batch_norm": True}, "set it to false"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        open_preset("tiny", changes)


def test_an_unknown_preset_lists_the_packaged_ones() -> None:
    with pytest.raises(TrainingError, match="no such preset; packaged: delg-joint, packaged-head"):
        open_preset("tyni")


def test_a_damaged_preset_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("recipe = attention")
    with pytest.raises(TrainingError, match=r"mine\.toml: "):
        open_preset(path)


def test_changes_on_the_command_line_take_the_type_they_need() -> None:
    changes = settings.parse_changes(("view_sides=[64, 96]", "learning_rate=1", "pooling=mean", "cached=true"))
    changed = open_preset("tiny", changes)
    assert (changed.view_sides, changed.learning_rate, changed.pooling) == ((64, 96), 1.0, "mean")
    assert isinstance(changed, TrainingSettings)
    with pytest.raises(TrainingError, match="write a changed setting as name=value"):
        settings.parse_changes(("epochs",))
