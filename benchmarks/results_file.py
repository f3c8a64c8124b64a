"""Result files: what was measured, with which settings, on which machine."""

import datetime
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from delf_cli.report import jsonable
from delf_jax.files import atomic

_PACKAGES = ("jax", "numpy", "opencv-python-headless", "scann", "faiss-cpu", "torch", "kornia")


def write(path: Path, benchmark: str, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    """Writes rows, settings and environment of a benchmark to one JSON file, with one row per line."""
    described = {"benchmark": benchmark, "environment": environment(), "settings": settings}
    head = [f"{json.dumps(name)}: {_line(value)}" for name, value in described.items()]
    lines = ",\n  ".join(map(_line, rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, ("{" + ",\n ".join([*head, f'"rows": [\n  {lines}\n ]']) + "\n}\n").encode())


def environment() -> dict[str, Any]:
    """The environment of a measurement: date, device, Python, and installed packages."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    packages = {name: version for name in _PACKAGES if (version := _version(name)) is not None}
    return {"date": today, "device": jax.devices()[0].device_kind, "python": platform.python_version(), **packages}


def _line(value: Any) -> str:
    return json.dumps(jsonable(value), allow_nan=False)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
