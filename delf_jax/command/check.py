"""`delf-jax check`: is everything there, and is it what was written."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from delf_jax.command.options import UsageError
from delf_jax.command.report import Report
from delf_jax.errors import DelfError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """Check a feature store, an index or a predictor: checksums, counts, and what is damaged.

    Attributes:
        path: the folder to check.
        repair: leave out what is damaged, so that the rest can be used and `delf-jax extract` computes it again.
        json: print one JSON line.
    """

    path: Annotated[Positional[str], arg(metavar="STORE|INDEX|PREDICTOR")]
    repair: bool = False
    json: bool = False

    example: ClassVar[str] = "delf-jax check features --repair"

    def run(self, report: Report) -> None:
        """Checks the folder; damage that stays makes the exit code 1."""
        kind = kind_of(self.path)
        look = {"store": _store, "index": _index, "predictor": _predictor}[kind]
        counts, damaged = look(self.path, repair=self.repair)
        repaired = self.repair and kind == "store" and bool(damaged)
        report.succeeded += 1
        if damaged and not repaired:
            report.failed += 1
        record = {kind: self.path, "ok": not damaged or repaired, **counts, "damaged": damaged, "repaired": repaired}
        report.result(record, _sentences(self.path, kind, counts, damaged, repaired))


def kind_of(path: str) -> str:
    """``store``, ``index`` or ``predictor``, whatever state it is in.

    Raises:
        DelfError: there is nothing that can be checked.
    """
    if "://" in path:
        return "store"
    folder = Path(path)
    if not folder.is_dir():
        raise DelfError(f"{path}: there is no such folder; name a feature store, an index or a predictor")
    try:
        text = (folder / "manifest.json").read_bytes()
    except OSError as error:
        reason = "it has no manifest.json" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise DelfError(f"{path}: neither feature store nor index nor predictor, {reason}") from None
    try:
        manifest = json.loads(text)
        stated = manifest.get("format") or manifest.get("kind")
    except (ValueError, AttributeError):
        stated = None
    named = {"delf-jax feature store": "store", "delf-jax index": "index", "predictor": "predictor"}
    return named.get(str(stated)) or ("store" if os.path.isdir(folder / "parts") else "index")


def _store(path: str, *, repair: bool) -> tuple[dict[str, Any], list[dict[str, str]]]:
    from delf_jax import store

    opened = store.FeatureStore.open(path)
    damages = store.repair(path) if repair else opened.check()
    photos = len(store.FeatureStore.open(path) if repair else opened)
    counts = {"photos": photos, "fingerprint": opened.fingerprint, "failed_photos": len(opened.failures())}
    return counts, [{"file": damage.name, "reason": damage.reason} for damage in damages]


def _index(path: str, *, repair: bool) -> tuple[dict[str, Any], list[dict[str, str]]]:
    from retrieval import manifest

    if repair:
        raise UsageError(f"{path}: an index is not repaired but built again, with `delf-jax index STORE --out {path}`")
    described = manifest.read(Path(path))
    counts = {name: described.get(name) for name in ("photos", "features", "dimension", "backend", "fingerprint")}
    return counts, [{"reason": reason} for reason in manifest.damage(Path(path), described)]


def _predictor(path: str, *, repair: bool) -> tuple[dict[str, Any], list[dict[str, str]]]:
    from localization import predictor

    if repair:
        raise UsageError(f"{path}: a predictor is not repaired but fitted again, with `delf-jax fit-localizer`")
    manifest = predictor.read_manifest(Path(path))
    damaged = predictor.damaged_files(Path(path), manifest)
    return {"files": len(manifest["files"])}, [{"file": name, "reason": "missing or damaged"} for name in damaged]


def _sentences(path: str, kind: str, counts: dict[str, Any], damaged: list[dict[str, str]], repaired: bool) -> str:
    held = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items() if isinstance(value, int))
    lines = [f"{path}: {kind} of {held}"]
    lines += [": ".join(entry.values()) for entry in damaged]
    if repaired:
        lines.append("repaired: the damaged parts are left out; the same `delf-jax extract` computes them again")
    elif damaged and kind == "store":
        lines.append(f"damaged: `delf-jax check {path} --repair` keeps the rest")
    elif damaged:
        again = "build it again with `delf-jax index`" if kind == "index" else "fit it again"
        lines.append(f"damaged: {again}")
    else:
        lines.append("everything is there and as it was written")
    return "\n".join(lines)
