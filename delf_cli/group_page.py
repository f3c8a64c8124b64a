"""The page of `delf-jax group`: one HTML file with the photos of every group, and the proofs of their pairs."""

import base64
import io
import os
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from delf_cli import result_pictures
from delf_cli.report import Report
from delf_jax.errors import ImageError
from delf_jax.files import atomic

if TYPE_CHECKING:
    import delf_jax.drawing
    import retrieval
    from retrieval.grouping.examining import Edge
    from retrieval.grouping.groups import Group, Grouping
    from retrieval.grouping.labels import LabelledGroup

_TEMPLATE, _LOOK = Path(__file__).parent / "group_page.html", Path(__file__).parent / "look.css"
_THUMBNAIL = 336
_PROOF = 1100
# Pairs of a group whose proofs are drawn, the surest first, and of all groups; the others have their numbers alone.
_DRAWN, _DRAWN_IN_ALL = 8, 400


def write(
    path: Path,
    index: "retrieval.SearchableIndex",
    found: "Grouping",
    named: "Sequence[LabelledGroup]",
    report: Report,
    advance: Callable[[int, int], None],
) -> None:
    """Writes the page. Photos that are gone are shown by their names alone, and ``report`` tells of the first."""
    pictures = _Pictures(index, report)
    cards = []
    for number, (group, names) in enumerate(zip(found.groups, named, strict=True), 1):
        cards.append(_card(number, group, names, pictures))
        advance(number, len(found.groups))
    photos = len(found.examined.names)
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        look=_LOOK.read_text(encoding="utf-8"),
        title=f"{photos - len(found.alone)} of {photos} photos are in {len(found.groups)} groups.",
        photos=photos,
        pairs=f"{len(found.examined.likely):,}",
        guarantee=escape(
            f"Limit of one query: {index.acceptance(0).guarantee}. Pairs of a collection have to be surer."
        ),
        groups="\n".join(cards),
        alone=_alone(found.alone),
    )
    atomic.write_bytes(path, page.encode())


class _Pictures:
    """Pictures as HTML; nothing where a photo is gone."""

    def __init__(self, index: "retrieval.SearchableIndex", report: Report) -> None:
        self._index = index
        self._report = report
        self._gone = 0
        self._drawn = 0

    def thumbnail(self, name: str) -> str:
        from delf_jax.photos.load import load_photo

        try:
            return _image(load_photo(name, max_side=_THUMBNAIL).pixels, "")
        except ImageError as error:
            if not self._gone:
                self._report.note(f"{error}; its place on the page stays empty")
            self._gone += 1
            return ""

    def proof(self, edge: "Edge") -> str:
        from retrieval.grouping.examining import proof

        if self._drawn >= _DRAWN_IN_ALL:
            return ""
        try:
            left, right = (result_pictures.load_panel(name, self._index.features(name)) for name in (edge.a, edge.b))
        except ImageError:
            return ""
        self._drawn += 1
        match = proof(self._index, edge.a, edge.b, log10_nfa=edge.log10_nfa, limit=edge.limit)
        picture = result_pictures.draw_pair(left, right, match)
        return _image(picture, f"{_base(edge.a)} beside {_base(edge.b)}, their {edge.inliers} matches joined by lines")


def _card(number: int, group: "Group", names: "LabelledGroup", pictures: _Pictures) -> str:
    members = []
    for member in group.members:
        chips = ["copy"] if member.copy_of else []
        chips += ["another name"] if member.name in names.disagreeing else []
        marks = "".join(f' <span class="chip no">{chip}</span>' for chip in chips)
        shown = f"{pictures.thumbnail(member.name)}{escape(_base(member.name))}{marks}"
        members.append(f'<li title="{escape(member.name)}">{shown}</li>')
    label = f" · {escape(names.label)}, {names.votes[0]} of {names.votes[1]}" if names.label is not None else ""
    pairs = "".join(_pair(edge, pictures if place < _DRAWN else None) for place, edge in enumerate(group.edges))
    return (
        f'<article class="card" aria-label="Group {number}"><div class="head"><h3>Group {number}</h3>'
        f"<span>{len(group.members)} photos{label}</span></div>"
        f'<ul class="sheet">{"".join(members)}</ul>{pairs}</article>'
    )


def _pair(edge: "Edge", pictures: _Pictures | None) -> str:
    kind = "copies" if edge.copy else "two views"
    line = (
        f"{escape(_base(edge.a))} and {escape(_base(edge.b))}: {kind}, {edge.inliers} inliers, "
        f'<span class="number">log10 NFA {edge.log10_nfa:.1f}</span> (limit {edge.limit:.1f})'
    )
    proof = "" if pictures is None else pictures.proof(edge)
    return f"<details><summary>{line}</summary><div class=proof>{proof or '<p>Not drawn.</p>'}</div></details>"


def _alone(names: Sequence[str]) -> str:
    if not names:
        return ""
    items = "".join(f"<div>{escape(_base(name))}</div>" for name in names)
    return (
        f'<article class="card"><div class="head"><h3>In no group</h3><span>{len(names)} photos</span></div>'
        f"<details><summary>Their names</summary><div class=alone>{items}</div></details></article>"
    )


def _base(name: str) -> str:
    return os.path.basename(name) or name


def _image(picture: "delf_jax.drawing.Picture", alt: str) -> str:
    from PIL import Image

    image, data = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((_PROOF, _PROOF))
    image.save(data, "JPEG", quality=80)
    source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return f'<img src="{source}" alt="{escape(alt)}" loading="lazy">'
