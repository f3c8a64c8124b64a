"""A predictor in a folder: the statistics, the points, an optimum at finite lambda, and a manifest with checksums."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from delf_jax.errors import PredictorError, reason_of
from delf_jax.files import atomic, model_file
from delf_jax.files.changer import only_changer, undisturbed
from delf_jax.files.checksum import file_sha256
from delf_jax.files.envelope import (
    EnvelopeError,
    NewerVersionError,
    OtherFormatError,
    decode_envelope,
    encode_envelope,
)
from delf_jax.files.folder import is_inside
from localization.foreground import statistics_file
from localization.foreground.solvers import FiniteSolution
from localization.foreground.statistics import Statistics
from localization.representers.points import Points

_STATISTICS, _OPTIMUM, MANIFEST, _POINTS = "statistics.safetensors", "optimum.safetensors", "manifest.json", "points"
_FORMAT, _VERSION = "delf-jax predictor", 2


class PredictorParts(NamedTuple):
    """What the folder keeps of a ``Predictor``; its attributes of the same names."""

    statistics: Statistics
    points: Points | None
    map_threshold: float
    found_threshold: float
    optimum: FiniteSolution | None


def write(path: str | os.PathLike[str], parts: PredictorParts) -> None:
    """Writes the folder atomically; it replaces an older predictor, and nothing else.

    Raises:
        PredictorError: the path holds something that is not a predictor, or others are changing it.
    """
    check_free(path)
    with only_changer(path, PredictorError), atomic.replacing_folder(path) as folder:
        statistics_file.write(folder / _STATISTICS, parts.statistics)
        optimum = None
        if parts.optimum:
            fields = {field.name: getattr(parts.optimum, field.name) for field in dataclasses.fields(parts.optimum)}
            model_file.write(folder / _OPTIMUM, {"w": fields.pop("w")}, {"kind": "foreground optimum"} | fields)
            optimum = _OPTIMUM
        if parts.points is not None:
            (folder / _POINTS).mkdir()
            parts.points.save(folder / _POINTS)
        files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        manifest = {
            "map_threshold": parts.map_threshold,
            "found_threshold": parts.found_threshold,
            "optimum": optimum,
            "points": parts.points is not None,
            "files": {name: file_sha256(folder / name) for name in files},
        }
        atomic.write_bytes(folder / MANIFEST, encode_envelope(_FORMAT, _VERSION, manifest))


def read(path: str | os.PathLike[str]) -> PredictorParts:
    """Reads what ``write`` wrote.

    Raises:
        PredictorError: missing, damaged, or written by a newer version.
    """
    folder = Path(path)
    return undisturbed(folder / MANIFEST, lambda: _read(folder))


def _read(folder: Path) -> PredictorParts:
    manifest = read_manifest(folder)
    if damaged := damaged_files(folder, manifest):
        raise PredictorError(f"{folder}: {damaged[0]} is missing or damaged; fit the predictor again")
    optimum = None
    if manifest["optimum"]:
        description, tensors = model_file.read(folder / manifest["optimum"])
        names = {field.name for field in dataclasses.fields(FiniteSolution)}
        optimum = FiniteSolution(w=tensors["w"], **{k: v for k, v in description.items() if k in names})
    return PredictorParts(
        statistics_file.read(folder / _STATISTICS),
        points=Points.open(folder / _POINTS) if manifest["points"] else None,
        map_threshold=manifest["map_threshold"],
        found_threshold=manifest["found_threshold"],
        optimum=optimum,
    )


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """The manifest of a predictor folder.

    Raises:
        PredictorError: missing, damaged, of something else, or written by a newer version.
    """
    try:
        manifest = decode_envelope((folder / MANIFEST).read_bytes(), format=_FORMAT, newest=_VERSION).body
        files, thresholds = manifest["files"], (manifest["map_threshold"], manifest["found_threshold"])
        if not isinstance(files, dict) or not all(is_inside(name) for name in files):
            raise ValueError("its files are not a mapping of names in the folder")
        if manifest["optimum"] not in (None, *files) or not all(isinstance(t, (int, float)) for t in thresholds):
            raise ValueError("its optimum is not one of its files, or a threshold is not a number")
        if manifest["points"] not in (True, False):
            raise ValueError("it does not say whether there are points")
    except OSError as error:
        raise PredictorError(
            f"{folder}: no predictor there ({reason_of(error)}); make one with fit-localizer"
        ) from error
    except OtherFormatError as error:
        raise PredictorError(f"{folder}: this is a {error.format!r}, not a predictor") from error
    except NewerVersionError as error:
        raise PredictorError(f"{folder}: written by a newer version of delf-jax; update delf-jax") from error
    except (EnvelopeError, ValueError, KeyError, TypeError) as error:
        raise PredictorError(f"{folder}: its manifest is damaged; fit the predictor again") from error
    return manifest


def check_free(path: str | os.PathLike[str]) -> None:
    """Checks that a predictor can be written here: nothing is there, or an empty folder, or another predictor.

    Raises:
        PredictorError: something else is there.
    """
    folder = Path(path)
    if not folder.exists() or (folder.is_dir() and not os.listdir(folder)):
        return
    try:
        read_manifest(folder)
    except PredictorError:
        raise PredictorError(
            f"{folder}: something else than a predictor is there already; choose another name"
        ) from None


def damaged_files(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The files of the manifest that are missing or have another checksum."""
    return [
        name
        for name, checksum in manifest["files"].items()
        if not (folder / name).is_file() or file_sha256(folder / name) != checksum
    ]
