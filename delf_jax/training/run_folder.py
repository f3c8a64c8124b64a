"""The folder of a training run: ``run.json`` says which run it belongs to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from delf_jax.files import atomic
from delf_jax.training.settings import TrainingError

RUN_FILE = "run.json"
CHECKPOINTS = "checkpoints"


def prepare_run_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Makes the folder of a run. An existing folder must belong to the same run, or have no checkpoint.

    Args:
        folder: of the run.
        identity: plain values, nested one deep, that must be equal for a run to go on.

    Raises:
        TrainingError: the folder holds another run, or something else.
    """
    try:
        before = json.loads((folder / RUN_FILE).read_text())
    except FileNotFoundError:
        if folder.is_dir() and any(folder.iterdir()):
            raise TrainingError(f"{folder}: holds files but no training run; choose another --out") from None
        folder.mkdir(parents=True, exist_ok=True)
        _write_identity(folder, identity)
        return
    except ValueError as error:
        raise TrainingError(f"{folder / RUN_FILE}: damaged; choose another --out") from error
    after = json.loads(json.dumps(identity))
    differing = _differences(before, after)
    if differing and not any(folder.glob(f"{CHECKPOINTS}/[0-9]*")):
        # Nothing is lost, and a setting that was mistyped is not to cost a folder.
        _write_identity(folder, identity)
    elif differing:
        raise TrainingError(
            f"{folder}: holds a run with other settings ({'; '.join(differing[:4])}); "
            "give those again, or choose another --out"
        )


def _write_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    atomic.write_bytes(folder / RUN_FILE, (json.dumps(identity, indent=1, sort_keys=True) + "\n").encode())


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """A line for every value that differs."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            shown = ["not set" if value is None else value for value in (old, new)]
            found.append(f"{prefix}{name}: {shown[0]} there, {shown[1]} asked for")
    return found
