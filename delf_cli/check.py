"""`delf-jax check`: verifies the files of a feature store, an index or a predictor."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

from tyro.conf import Positional, arg

from delf_cli.options import UsageError
from delf_cli.report import Report
from delf_jax.errors import DelfError, reason_of
from delf_jax.files.changer import undisturbed
from delf_jax.files.envelope import stated_format


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """Check a feature store, an index or a predictor for missing and damaged files.

    Attributes:
        path: the folder to check. A feature store may be an address.
        repair: remove damaged parts from a feature store. The rest can be used, and `delf-jax extract` computes the
            removed photos again.
        json: print one JSON line.
    """

    path: Annotated[Positional[str], arg(metavar="STORE|INDEX|PREDICTOR")]
    repair: bool = False
    json: bool = False

    example: ClassVar[str] = "delf-jax check features --repair"

    def run(self, report: Report) -> None:
        """Checks the folder. The exit code is 1 if there is damage that is not repaired."""
        kind = kind_of(self.path)
        look = {"store": _store, "index": _index, "predictor": _predictor}[kind]
        found = look(self.path, repair=self.repair)
        report.succeeded += 1
        if found.left:
            report.failed += 1
        record = {
            kind: self.path,
            "ok": not found.left,
            **found.counts,
            "damaged": found.damaged,
            "repaired": len(found.left) < len(found.damaged),
        }
        report.result(record, _sentences(self.path, kind, found))


class CheckResult(NamedTuple):
    """What a folder holds, the damage that was found, and the damage that remains after the repair."""

    counts: dict[str, Any]
    damaged: list[dict[str, str]]
    left: list[dict[str, str]]


def kind_of(path: str) -> str:
    """Whether the folder is a ``store``, an ``index`` or a ``predictor``, even if it is damaged.

    Raises:
        DelfError: it is none of them.
    """
    if "://" in path:
        return "store"
    folder = Path(path)
    if not folder.is_dir():
        raise DelfError(f"{path}: no such folder; name a feature store, an index or a predictor")
    has_parts = os.path.isdir(folder / "parts") or os.path.isdir(folder / "commits")
    try:
        text = (folder / "manifest.json").read_bytes()
    except OSError as error:
        if has_parts:
            return "store"
        reason = "it has no manifest.json" if isinstance(error, FileNotFoundError) else reason_of(error)
        raise DelfError(f"{path}: this is not a feature store, an index or a predictor ({reason})") from None
    try:
        stated = stated_format(json.loads(text))
    except (ValueError, TypeError, AttributeError):
        stated = None
    named = {
        "delf-jax feature store": "store",
        "delf-jax index": "index",
        "delf-jax index in shards": "index",
        "delf-jax predictor": "predictor",
    }
    return named.get(str(stated)) or ("store" if has_parts else "index")


def _store(path: str, *, repair: bool) -> CheckResult:
    from delf_jax.store import repair as store_repair
    from delf_jax.store.reader import FeatureStore

    if repair:
        damaged = store_repair.repair(path)
        opened = FeatureStore.open(path)
        left = opened.check() if damaged else []
    else:
        opened = FeatureStore.open(path)
        left = damaged = opened.check()
    runs = opened.runs()
    counts = {
        "photos": len(opened),
        "fingerprint": opened.fingerprint,
        "failed_photos": len(opened.failures()),
        "runs": len(runs),
        "last_run": runs[-1].to_json() if runs else None,
    }
    listed = [[{"file": damage.name, "reason": damage.reason} for damage in damages] for damages in (damaged, left)]
    return CheckResult(counts, listed[0], listed[1])


def _index(path: str, *, repair: bool) -> CheckResult:
    from retrieval.indexing import manifest

    if repair:
        raise UsageError(
            f"{path}: an index cannot be repaired; build it again with `delf-jax index STORE --out {path}`"
        )
    look = _shards if manifest.is_sharded(Path(path)) else _one_piece
    return undisturbed(Path(path) / manifest.NAME, lambda: look(Path(path)))


def _one_piece(path: Path) -> CheckResult:
    from retrieval.indexing import manifest

    described = manifest.read(path)
    counts = {name: described.get(name) for name in ("photos", "features", "dimension", "backend", "fingerprint")}
    damaged = [{"reason": reason} for reason in manifest.damage(path, described)]
    return CheckResult(counts, damaged, damaged)


def _shards(path: Path) -> CheckResult:
    from retrieval.sharding.layout import HEAD, Layout

    layout = Layout.read(path)
    counts: dict[str, Any] = {
        "photos": sum(entry.photos for entry in layout.shards),
        "features": sum(entry.features for entry in layout.shards),
        "dimension": layout.dimension,
        "backend": layout.backend,
        "fingerprint": layout.description.fingerprint,
        "shards": len(layout.shards),
    }
    damaged = [
        {"reason": reason} if name == HEAD else {"shard": name, "reason": reason}
        for name, reasons in layout.damage(path).items()
        for reason in reasons
    ]
    return CheckResult(counts, damaged, damaged)


def _predictor(path: str, *, repair: bool) -> CheckResult:
    from localization import predictor_files

    if repair:
        raise UsageError(f"{path}: a predictor cannot be repaired; fit it again with `delf-jax fit-localizer`")
    return undisturbed(Path(path) / predictor_files.MANIFEST, lambda: _whole_predictor(path))


def _whole_predictor(path: str) -> CheckResult:
    from localization import Predictor, predictor_files

    manifest = predictor_files.read_manifest(Path(path))
    names = predictor_files.damaged_files(Path(path), manifest)
    damaged = [{"file": name, "reason": "missing or damaged"} for name in names]
    counts: dict[str, Any] = {"files": len(manifest["files"])}
    if not damaged:
        opened = Predictor.open(path)
        counts = {"photos": opened.statistics.photos, "points": len(opened.points) if opened.points else 0} | counts
    return CheckResult(counts, damaged, damaged)


def _sentences(path: str, kind: str, found: CheckResult) -> list[str]:
    held = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in found.counts.items() if type(value) is int)
    lines = [f"{path}: {kind} with {held}"]
    lines += [": ".join(entry.values()) for entry in found.damaged]
    last = found.counts.get("last_run")
    if last:
        lines.append(
            f"last run: {last['outcome']}, {last['done']} photos done in {last['seconds']:.1f} s, "
            f"devices idle {100 * last['device_idle_share']:.0f} %"
        )
    if len(found.left) < len(found.damaged):
        lines.append(
            "repaired: damaged files were removed or written again; run `delf-jax extract` for the removed photos"
        )
    if not found.damaged:
        lines.append("no damage found")
    elif found.left and kind == "index" and all("shard" in entry for entry in found.left):
        lines.append(f"damaged; build these shards again with `delf-jax index STORE --out {path} --rebuild`")
    elif found.left and kind == "index":
        lines.append("damaged; build it again with `delf-jax index`")
    elif found.left and kind == "predictor":
        lines.append("damaged; fit it again with `delf-jax fit-localizer`")
    elif any(entry["file"] != "head.safetensors" for entry in found.left):
        lines.append(f"damaged; `delf-jax check {path} --repair` removes the damaged parts and keeps the rest")
    elif found.left:
        lines.append("damaged; put back the original head file, or extract into another folder")
    return lines
