"""`delf-jax demo`: the whole story on packaged photos, told in pictures and on one page."""

import contextlib
import dataclasses
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import arg

from delf_cli.demo import PHOTOS
from delf_cli.demo import maps as demo_maps
from delf_cli.options import ExtractionOptions
from delf_cli.report import Report
from delf_jax.errors import ImageError
from delf_jax.settings import ExtractionSettings

if TYPE_CHECKING:
    from delf_cli.demo.page import Query, Step, Story
    from delf_jax.extractor import Extractor
    from delf_jax.features import LocalFeatures
    from retrieval import SearchResult


PARTNERS = {
    "graf3": "graf1",
    "leuvenB": "leuvenA",
    "box_in_scene": "box",
    "aero3": "aero1",
    "motorcycle_right": "motorcycle_left",
    "rubberwhale2": "rubberwhale1",
}
STRANGERS = ("chelsea", "china")
LOCATED = ("squirrel_cls", "china")

_SHOWN = 5

# Keeps the whole story under three minutes on two cores.
_MAX_SIDE = 640


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """See it work: packaged photos are found again with proof, or refused, and objects located without labels.

    Needs no network. Writes pictures and one page, index.html, that can be sent around as it is.

    Attributes:
        out: folder for the page and the pictures.
        json: print one JSON line per query.
    """

    out: Annotated[str, arg(metavar="DIR")] = "demo_out"
    extraction: ExtractionOptions
    json: bool = False

    example: ClassVar[str] = "delf-jax demo --out demo_out"

    def run(self, report: Report) -> None:
        """Extracts, indexes, searches, draws, and prints what was found."""
        folder = Path(self.out)
        folder.mkdir(parents=True, exist_ok=True)
        story, pictures = _tell(self.extraction, report)

        from delf_cli.demo import page
        from delf_jax.files import atomic

        for name, data in pictures.items():
            atomic.write_bytes(folder / name, data)
        address = folder / "index.html"
        atomic.write_bytes(address, page.render(story).encode())
        queries = [*(query for query, _ in story.partnered), *story.strangers, *story.members]
        report.succeeded += len(queries)
        if self.json:
            for query in queries:
                report.result(_record(query), "")
        else:
            _print_table(story)
            report.note(f"The page: {address.resolve().as_uri()}")


class _Clock:
    """Collects what took how long."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    @contextlib.contextmanager
    def step(self, name: str, note: str = "") -> Iterator[None]:
        from delf_cli.demo.page import Step

        start = time.perf_counter()
        yield
        self.steps.append(Step(name, time.perf_counter() - start, note))


def _tell(options: ExtractionOptions, report: Report) -> tuple["Story", dict[str, bytes]]:
    clock = _Clock()
    names = sorted(path.stem for path in PHOTOS.glob("*.jpg"))
    queries = [*PARTNERS, *STRANGERS]
    collection = [name for name in names if name not in queries]
    members = [name for name in collection if name not in PARTNERS.values()]
    with clock.step("Load the model"):
        extractor = options.load(base=ExtractionSettings(max_side=_MAX_SIDE))
        from delf_cli.demo import page
        from retrieval import Index
    with clock.step("Extract features", f"{len(names)} photos; the first run compiles a program for each photo size"):
        features = _extract(extractor, names, report)
    with clock.step("Dense maps", f"{len(names)} photos, for the heat-maps and for localization"):
        maps = demo_maps.run(extractor, {name: _path(name) for name in names})
    with clock.step("Index", f"{len(collection)} photos"):
        index = Index.build(
            ((name, features[name]) for name in collection),
            settings=extractor.settings,
            fingerprint=extractor.fingerprint,
            threshold=extractor.head.log10_nfa_threshold,
        )
    with clock.step("Search and verify", f"{len(queries) + len(members)} queries"):
        results = {
            name: index.search(features[name], top=_SHOWN, exclude=(name,) if name in collection else ())
            for name in [*queries, *members]
        }
    with clock.step("Localize and explain", f"{len(LOCATED)} photos, each by what the others have in common"):
        located = [demo_maps.locate(name, maps) for name in LOCATED]
    with clock.step("Draw"):
        heat = {name: demo_maps.attention_picture(extractor, maps[name]) for name in queries}
        told = {name: _query(name, result, features, heat.get(name)) for name, result in results.items()}
    story = page.Story(
        partnered=[(told[name], partner) for name, partner in PARTNERS.items()],
        strangers=[told[name] for name in STRANGERS],
        members=[told[name] for name in members],
        located=located,
        threshold=index.threshold,
        database=len(collection),
        photos=len(names),
        features=sum(map(len, features.values())),
        steps=clock.steps,
        environment=_environment(extractor),
    )
    pictures = _pictures(told) | {f"{found.name}_located.jpg": found.heat for found in located}
    return story, pictures


def _path(name: str) -> str:
    return str(PHOTOS / f"{name}.jpg")


def _extract(extractor: "Extractor", names: list[str], report: Report) -> dict[str, "LocalFeatures"]:
    found = {}
    with report.progress("Extracting") as advance:
        for name, features, _ in extractor.stream((name, _path(name)) for name in names):
            if isinstance(features, ImageError):
                raise features
            found[name] = features
            advance(len(found), len(names))
    return found


def _query(name: str, result: "SearchResult", features: Mapping[str, "LocalFeatures"], heat: bytes | None) -> "Query":
    """What the page shows of a query; photos without a card of their own (no heat) get no drawings."""
    from delf_cli.demo.page import Candidate, Query
    from delf_jax import drawing
    from delf_jax.photos.load import load_photo
    from retrieval import draw

    def panel(name: str, max_side: int = 800) -> draw.Panel:
        return draw.Panel(load_photo(_path(name), max_side=max_side).pixels, features[name])

    candidates = [
        Candidate(
            name=match.image,
            thumbnail=drawing.to_jpeg(panel(match.image, 160).pixels),
            score=match.score,
            inliers=match.inliers,
            log10_nfa=float("inf") if match.log10_nfa is None else match.log10_nfa,
            accepted=match.accepted,
        )
        for match in result.matches
    ]
    if heat is None:
        thumbnail = drawing.to_jpeg(panel(name, 160).pixels)
        return Query(name, len(features[name]), result.accepted, candidates, thumbnail)
    query, proof = panel(name), None
    if result.matches:
        best = result.matches[0]
        canvas = draw.draw_matches(
            query, panel(best.image), best.query_points, best.points, where=best.is_inlier, height=480
        )
        proof = drawing.to_jpeg(canvas)
    return Query(
        name=name,
        features=len(features[name]),
        accepted=result.accepted,
        candidates=candidates,
        photo=drawing.to_jpeg(query.pixels),
        proof=proof,
        heat=heat,
        keypoints=drawing.to_jpeg(draw.draw_keypoints(query)),
    )


def _pictures(told: Mapping[str, "Query"]) -> dict[str, bytes]:
    files = {
        f"{name}_{kind}.jpg": data
        for name, query in told.items()
        for kind, data in (("matches", query.proof), ("attention", query.heat), ("features", query.keypoints))
    }
    return {name: data for name, data in files.items() if data is not None}


def _environment(extractor: "Extractor") -> str:
    import jax

    device = extractor.devices[0]
    kind = f"CPU with {os.cpu_count()} cores" if device.platform == "cpu" else device.device_kind
    many = f"{len(extractor.devices)} × " if len(extractor.devices) > 1 else ""
    python = ".".join(map(str, sys.version_info[:2]))
    return (
        f"{many}{kind}, {extractor.settings.precision}, JAX {jax.__version__}, Python {python}, "
        f"{platform.system()} {platform.machine()}."
    )


def _record(query: "Query") -> dict[str, Any]:
    results = [
        {"image": c.name, "inliers": c.inliers, "log10_nfa": c.log10_nfa, "accepted": c.accepted, "score": c.score}
        for c in query.candidates
    ]
    return {"query": query.name, "accepted": query.accepted, "results": results}


def _print_table(story: "Story") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in (("query", "left"), ("best candidate", "left"), ("inliers", "right"), ("log10 NFA", "right")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    table.add_column("verdict")
    groups = [[query for query, _ in story.partnered], [*story.strangers, *story.members]]
    for group in groups:
        for query in group:
            best = query.candidates[0] if query.candidates else None
            verdict = "[green]accepted[/]" if query.accepted else "[red]refused[/]"
            numbers = (best.name, str(best.inliers), f"{best.log10_nfa:.1f}") if best else ("none", "", "")
            table.add_row(query.name, *numbers, verdict)
        table.add_section()
    console = Console()
    console.print(table)
    console.print(
        f"\n{story.found} of {len(story.partnered)} partners ranked first and accepted, {story.refused} of "
        f"{len(story.strangers) + len(story.members)} photos without a partner refused; "
        f"{sum(step.seconds for step in story.steps):.0f} s.",
        highlight=False,
    )
