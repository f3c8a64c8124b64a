"""`delf-jax weights`: lists, downloads and imports weights that others published."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from delf_cli.options import UsageError
from delf_cli.report import Report
from delf_jax.cache import downloads_folder, models_folder

if TYPE_CHECKING:
    from delf_jax.import_weights.public.registry import PublicWeights

Action = Literal["list", "fetch", "import", "info"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """List the weights that others published, download them, import them as models, and describe models.

    fetch NAMES downloads into the cache, resumes broken downloads, and checks the checksums. import NAMES makes models
    of downloaded weights, so that --model NAME works; import PATH --out DIR makes a model of a file, folder or archive
    in a known format. info describes weights and model folders.

    Environment variables: DELF_JAX_CACHE is the folder of the cache, DELF_JAX_OFFLINE=1 forbids the network,
    DELF_JAX_MIRRORS names mirrors, which are tried first.

    Attributes:
        action: list, fetch, import or info.
        names: names from the list, or paths.
        out: the model folder that import writes; required for a path.
        config: settings and PCA dimensions of a DELF checkpoint, a .pbtxt of the official code; known for releases.
        offline: use only what is in the cache.
        json: print one JSON line per weights or model.
    """

    action: Annotated[Positional[Action], arg(metavar="list|fetch|import|info")]
    names: Annotated[Positional[tuple[str, ...]], arg(metavar="NAMES...", help_behavior_hint="(none for list)")] = ()
    out: Annotated[str | None, arg(metavar="DIR", help_behavior_hint="(default: in the cache, by its name)")] = None
    config: Annotated[str | None, arg(metavar="PBTXT", help_behavior_hint="(default: the release's own)")] = None
    offline: bool = False
    json: bool = False

    example: ClassVar[str] = (
        "delf-jax weights fetch delf_gld_20190411\n"
        "  delf-jax weights import delf_gld_20190411\n"
        "  delf-jax extract photos/ --out features --model delf_gld_20190411 --as-released"
    )

    def run(self, report: Report) -> None:
        """Runs the action for every name; a failure is reported and does not stop the others."""
        self._check()
        from delf_jax.errors import DelfError
        from delf_jax.import_weights.public.registry import registry

        work = {"list": self._list, "fetch": self._fetch, "import": self._import, "info": self._info}[self.action]
        names = self.names or tuple(registry())
        for name in names:
            try:
                work(name, report)
            except DelfError as error:
                if len(names) == 1:
                    raise
                report.failure("weights", name, str(error).removeprefix(f"{name}: "))
            else:
                report.succeeded += 1

    def _check(self) -> None:
        if not self.names and self.action != "list":
            raise UsageError(
                f"weights {self.action}: name the weights to {self.action}; `delf-jax weights list` lists all"
            )
        if (self.out or self.config) and self.action != "import":
            raise UsageError("--out and --config are for `delf-jax weights import`")
        if self.out and len(self.names) != 1:
            raise UsageError("--out is one model folder; import one model at a time")
        if self.offline and self.action != "fetch":
            raise UsageError("--offline is for `delf-jax weights fetch`; the other actions never use the network")

    def _list(self, name: str, report: Report) -> None:
        from delf_jax.import_weights.public.registry import find

        weights = find(name)
        state = _state(weights)
        report.result(_record(weights) | {"state": state}, f"{name:<28} {state:<9} {weights.good_for}")

    def _fetch(self, name: str, report: Report) -> None:
        from delf_jax.import_weights.public.download import fetch
        from delf_jax.import_weights.public.registry import find

        weights = find(name)
        with report.progress(f"fetching {name}", unit="B") as advance:
            path = fetch(weights, downloads_folder(), offline=self.offline, advance=advance)
        size = path.stat().st_size
        record = {"weights": name, "path": str(path), "bytes": size}
        report.result(record, f"{path}: {size} bytes; next: delf-jax weights import {name}")

    def _import(self, name: str, report: Report) -> None:
        from delf_jax.import_weights.delf_config import read_config
        from delf_jax.import_weights.public.download import fetch
        from delf_jax.import_weights.public.importing import import_weights
        from delf_jax.import_weights.public.registry import registry
        from delf_jax.loading import model_paths

        config = read_config(self.config) if self.config else None
        origin: dict[str, str] = {}
        if name in registry():
            weights = registry()[name]
            source = fetch(weights, downloads_folder(), offline=True)
            out = Path(self.out) if self.out else models_folder() / name
            config = config or weights.delf
            origin = {"name": name, "licence": weights.licence, "paper": weights.paper}
            if weights.url:
                origin["address"] = weights.url
        else:
            if not self.out:
                raise UsageError(f"{name}: name the model folder to write with --out")
            source, out = Path(name), Path(self.out)
            # The folder of an unpacked release has its name.
            config = config or next((w.delf for w in registry().values() if w.delf and w.name == source.name), None)
        imported = import_weights(source, out, config=config, origin=origin)
        model = name if out == models_folder() / name else str(out)
        record = {"weights": name, "model": model, "path": str(out), "scorers": list(imported.head.scorers)}
        if imported.head.attention is None:
            advice = f"fit its head: delf-jax pca PHOTOS --model {model} --out {out / 'head.safetensors'}"
        else:
            advice = f"use it: --model {model}" + (" --as-released" if imported.head.released_settings else "")
        report.result(record, [f"{out}: {_described(*model_paths(str(out)))[1]}", advice])

    def _info(self, name: str, report: Report) -> None:
        from delf_jax.import_weights.public.registry import registry
        from delf_jax.loading import PACKAGED, model_paths

        record: dict[str, Any] = {"weights": name}
        lines = [name]
        if name in registry():
            weights = registry()[name]
            record |= _record(weights) | {"state": _state(weights)}
            lines += [
                f"  good for: {weights.good_for}",
                f"  from: {weights.url or weights.by_hand}",
                f"  licence: {weights.licence}; cite {weights.paper}",
                f"  state: {record['state']}",
            ]
        if name in PACKAGED or name not in registry() or (models_folder() / name).is_dir():
            described, text = _described(*model_paths(name))
            record["model"] = described
            lines.append(f"  model: {text}")
        report.result(record, lines)


def _record(weights: "PublicWeights") -> dict[str, Any]:
    return {
        "weights": weights.name,
        "url": weights.url,
        "by_hand": weights.by_hand,
        "file": weights.file,
        "bytes": weights.bytes,
        "sha256": weights.sha256,
        "licence": weights.licence,
        "paper": weights.paper,
        "good_for": weights.good_for,
    }


def _state(weights: "PublicWeights") -> str:
    if (models_folder() / weights.name / "backbone.safetensors").is_file():
        return "imported"
    return "fetched" if (downloads_folder() / weights.file).is_file() else "-"


def _described(backbone: Path, head_file: Path) -> tuple[dict[str, Any], str]:
    """A description of a model, as a record and as a sentence."""
    from delf_jax.extraction.head import Head
    from delf_jax.files import model_file
    from delf_jax.models.architectures import architecture_of, network_of, read_config
    from delf_jax.models.receptive_field import receptive_field

    description, _ = model_file.read(backbone)
    config, head = read_config(description), Head.open(head_file)
    field = receptive_field(config, head.layer)
    channels = int(network_of(config).channels(head.layer, config))
    dimension = head.dimension or channels
    record = {
        "architecture": architecture_of(config),
        "config": config.to_json(),
        "layer": head.layer,
        "stride": field.stride,
        "receptive_field": field.size,
        "dimension": dimension,
        "scorers": list(head.scorers),
        "released_settings": head.released_settings,
        "source": description.get("source", {}),
    }
    threshold = head.released_settings.get("threshold")
    released = "" if threshold is None else f", threshold {threshold:g} of its own attention"
    text = (
        f"{record['architecture']}, features of {head.layer} every {field.stride} pixels (each sees {field.size}), "
        f"{dimension}-D, scorers {', '.join(head.scorers)}{released}"
    )
    return record, text
