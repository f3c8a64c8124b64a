"""Computes the demo: the packaged photos are extracted, indexed, searched, localized and drawn."""

import contextlib
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from delf_cli.demo import PHOTOS, dense_maps
from delf_cli.demo.story import Candidate, GroupOfPhotos, Query, Step, Story
from delf_cli.options import ExtractionOptions
from delf_cli.report import Report
from delf_jax.errors import ImageError
from delf_jax.settings import ExtractionSettings

if TYPE_CHECKING:
    from delf_jax.extractor import Extractor
    from delf_jax.features import LocalFeatures
    from retrieval import Grouping, SearchResult

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

# With this size the demo takes less than three minutes on two CPU cores.
_MAX_SIDE = 640


class _Clock:
    """Says each step as it begins, and measures its seconds."""

    def __init__(self, report: Report) -> None:
        self.steps: list[Step] = []
        self._report = report

    @contextlib.contextmanager
    def step(self, name: str, note: str = "") -> Iterator[None]:
        self._report.note(f"{name}: {note}" if note else name)
        start = time.perf_counter()
        yield
        self.steps.append(Step(name, time.perf_counter() - start, note))


def compute_story(options: ExtractionOptions, report: Report) -> tuple[Story, dict[str, bytes]]:
    """Extracts, indexes, searches, localizes and draws. Returns the story, and the pictures by their file names.

    Raises:
        ImageError: a packaged photo cannot be read.
    """
    clock = _Clock(report)
    names = sorted(path.stem for path in PHOTOS.glob("*.jpg"))
    queries = [*PARTNERS, *STRANGERS]
    collection = [name for name in names if name not in queries]
    members = [name for name in collection if name not in PARTNERS.values()]
    with clock.step("Load the model"):
        extractor = options.load(base=ExtractionSettings(max_side=_MAX_SIDE))
        from retrieval import Index, group
    with clock.step("Extract features", f"{len(names)} photos; the first run also compiles one program per photo size"):
        features = _extract(extractor, names, report)
    with clock.step("Dense maps", f"{len(names)} photos, for heat-maps and localization"):
        maps = dense_maps.compute(extractor, {name: _path(name) for name in names})
    with clock.step("Index", f"{len(collection)} photos"):
        made_by: dict[str, Any] = {
            "settings": extractor.settings,
            "fingerprint": extractor.fingerprint,
            "head_path": options.head,
        }
        index = Index.build(((name, features[name]) for name in collection), **made_by)
    with clock.step("Search and verify", f"{len(queries) + len(members)} queries"):
        results = {
            name: index.search(features[name], top=_SHOWN, exclude=(name,) if name in collection else ())
            for name in [*queries, *members]
        }
    with clock.step("Group", f"{len(names)} photos"):
        grouping = group(Index.build(features.items(), **made_by), neighbours=5)
    with clock.step("Localize and explain", f"{len(LOCATED)} photos, each with a predictor of the other photos"):
        located = [dense_maps.locate(name, maps) for name in LOCATED]
    with clock.step("Draw"):
        heat = {name: dense_maps.attention_picture(maps[name]) for name in queries}
        shown = {name: _query(name, result, features, heat.get(name)) for name, result in results.items()}
    story = Story(
        partnered=[(shown[name], partner) for name, partner in PARTNERS.items()],
        strangers=[shown[name] for name in STRANGERS],
        members=[shown[name] for name in members],
        groups=_groups(grouping),
        located=located,
        threshold=index.threshold,
        database=len(collection),
        photos=len(names),
        features=sum(map(len, features.values())),
        steps=clock.steps,
        environment=_environment(extractor),
    )
    pictures = _pictures(shown) | {f"{found.name}_located.jpg": found.heat for found in located}
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


def _query(name: str, result: "SearchResult", features: Mapping[str, "LocalFeatures"], heat: bytes | None) -> Query:
    """What the page shows of a query. A query without a heat-map has no card of its own, and is not drawn."""
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


def _groups(grouping: "Grouping") -> list[GroupOfPhotos]:
    from delf_jax import drawing
    from delf_jax.photos.load import load_photo

    return [
        GroupOfPhotos(
            photos=[
                (name, drawing.to_jpeg(load_photo(_path(name), max_side=320).pixels)) for name in sorted(each.names)
            ],
            log10_nfa=each.edges[0].log10_nfa,
            are_copies=any(member.copy_of for member in each.members),
        )
        for each in grouping.groups
    ]


def _pictures(shown: Mapping[str, Query]) -> dict[str, bytes]:
    files = {
        f"{name}_{kind}.jpg": data
        for name, query in shown.items()
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
