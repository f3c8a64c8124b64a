"""The demo's page: one HTML file that holds everything it shows."""

import base64
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from delf_cli.demo.story import GroupOfPhotos, LocatedPhoto, Query, Step, Story, TrainingPlace

_TEMPLATE = Path(__file__).parent / "page.html"
_LOOK = Path(__file__).parent.parent / "look.css"


def render(story: Story) -> str:
    """The page as HTML. Pictures are inside it as data, and it has no scripts, so it needs no other file."""
    queries = story.queries
    best = [q.candidates[0].log10_nfa for q in queries if q.candidates]
    surest = min(best, default=0.0)
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        look=_LOOK.read_text(encoding="utf-8"),
        tiles=_tiles(story),
        trio=_trio(story.partnered[0][0]),
        database=story.database,
        found="\n".join(_card(q) for q, _ in story.partnered),
        refused="\n".join(_card(q) for q in story.strangers),
        others=_members(story.members),
        groups="\n".join(map(_group, story.groups)),
        located="\n".join(map(_located, story.located)),
        threshold=_number(story.threshold),
        surest=_number(round(surest)),
        surest_power=f"{max(0, -round(surest))}",
        scale=_scale(queries, story.threshold),
        environment=escape(story.environment),
        times=_times(story.steps),
    )


def _tiles(story: Story) -> str:
    tiles = [
        (f"{story.found} of {len(story.partnered)}", "partners ranked first and accepted"),
        (f"{story.refused} of {len(story.strangers) + len(story.members)}", "photos without a partner refused"),
        (f"{story.features:,}", f"local features in {story.photos} photos"),
        (f"{sum(step.seconds for step in story.steps):.0f} s", "for everything on this page"),
    ]
    return "".join(f"<div><dd>{escape(value)}</dd><dt>{escape(label)}</dt></div>" for value, label in tiles)


def _trio(query: Query) -> str:
    name = escape(query.name)
    figures = [
        (query.photo, f"The photo {name}", "<b>The photo.</b> Turned upright and, if it is too large, reduced."),
        (
            query.heat,
            f"Heat-map of attention over {name}",
            "<b>Attention.</b> Bright places have a high score. Peaks that are not at the border become features.",
        ),
        (
            query.keypoints,
            f"Circles around the strongest features of {name}",
            "<b>Features.</b> The strongest of all scales. The circle shows the scale; yellow is the highest score.",
        ),
    ]
    return "".join(_figure(data, alt, text) for data, alt, text in figures if data)


def _card(query: Query) -> str:
    name, best = escape(query.name), query.candidates[0] if query.candidates else None
    verdict = _chip(query.accepted)
    if best:
        verdict += f" <span>{'' if query.accepted else 'best candidate '}{escape(best.name)}</span>"
    proof = ""
    if query.proof and best:
        alt = f"{query.name} beside {best.name}, {best.inliers} matching features joined by lines"
        proof = f'<div class="proof">{_image(query.proof, alt)}</div>'
    pictures = "".join(
        _figure(data, f"{what} of {query.name}", what)
        for data, what in ((query.heat, "Attention"), (query.keypoints, "Features"))
        if data
    )
    return (
        f'<article class="card" aria-label="Query {name}"><div class="head"><h3>{name}</h3>{verdict}'
        f'<span class="count">{query.features:,} features</span></div>{proof}'
        f'<div class="body">{pictures}<div class="wide scroll">{_ranking(query)}</div></div></article>'
    )


def _ranking(query: Query) -> str:
    if not query.candidates:
        return "<p>No photo of the collection has enough matching features to be verified.</p>"
    rows = "".join(
        f"<tr{' class=first' if rank == 1 and c.accepted else ''}><td>{rank}</td><td>{_image(c.thumbnail, '')}</td>"
        f'<td>{escape(c.name)}</td><td class="number">{c.inliers}</td><td class="number">{_number(c.log10_nfa)}</td>'
        f"<td>{_chip(c.accepted)}</td></tr>"
        for rank, c in enumerate(query.candidates, start=1)
    )
    return (
        f"<table><caption>Ranked answers for {escape(query.name)}</caption>"
        "<thead><tr><th>#</th><th></th><th>Photo</th>"
        '<th class="number">Inliers</th><th class="number">log10 NFA</th><th>Verdict</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _members(queries: Sequence[Query]) -> str:
    rows = "".join(
        f"<tr><td>{_image(q.photo, '')}</td><td>{escape(q.name)}</td><td>{escape(best.name) if best else 'none'}</td>"
        f'<td class="number">{best.inliers if best else 0}</td>'
        f'<td class="number">{_number(best.log10_nfa) if best else ""}</td><td>{_chip(q.accepted)}</td></tr>'
        for q in queries
        for best in [q.candidates[0] if q.candidates else None]
    )
    return (
        '<div class="card"><div class="head"><h3>Other photos of the collection</h3>'
        '<span class="count">each searched among the rest of the collection</span></div><div class="scroll table">'
        "<table><thead><tr><th></th><th>Photo</th><th>Best candidate</th>"
        '<th class="number">Inliers</th><th class="number">log10 NFA</th><th>Verdict</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></div>"
    )


def _group(group: GroupOfPhotos) -> str:
    photos = "".join(
        f"<figure>{_image(data, '')}<figcaption>{escape(name)}</figcaption></figure>" for name, data in group.photos
    )
    kind = "One picture, or nearly" if group.are_copies else "Views of one thing"
    return f'<h4>{kind}, log10 NFA {_number(group.log10_nfa)}</h4><div class="places">{photos}</div>'


def _located(found: LocatedPhoto) -> str:
    name = escape(found.name)
    boxes = f"box {', '.join(map(str, found.boxes[0]))}" if found.boxes else "nothing found"
    figures = [
        (
            found.photo,
            f"{found.name} with a ring around one place",
            "The ring marks the place that is explained below.",
        ),
        (found.heat, f"Map and boxes of {found.name}", f"Map and boxes; score {found.score:.2f}."),
    ]
    pair = "".join(
        f"<figure>{_image(data, alt)}<figcaption>{text}</figcaption></figure>" for data, alt, text in figures
    )
    rows = [
        ("yes", "+", "Training places that speak for the object", found.excitatory),
        ("no", "−", "Training places that speak against it", found.inhibitory),
    ]
    places = "".join(
        f'<h4><span class="chip {kind}">{sign}</span> {title}</h4>'
        f'<div class="places">{"".join(map(_place, listed)) or "<p>None.</p>"}</div>'
        for kind, sign, title, listed in rows
    )
    return (
        f'<div class="card"><div class="head"><h3>{name}</h3><span class="count">{boxes}; w* of {found.photos} other '
        f'photos</span></div><div class="pair">{pair}</div><div class="why">{places}</div></div>'
    )


def _place(place: TrainingPlace) -> str:
    image = _image(place.thumbnail, f"{place.name} with a ring around the place")
    return (
        f"<figure>{image}<figcaption><b>{escape(place.name)}</b><br>share {place.share:.1%}, cosine "
        f"{place.similarity:.2f}<br>importance {_scientific(place.importance)}</figcaption></figure>"
    )


def _scientific(value: float) -> str:
    """Two digits and a power of ten, in HTML.

    >>> _scientific(-0.00346)
    '−3.5 × 10<sup>−3</sup>'
    """
    mantissa, _, power = f"{value:.1e}".partition("e")
    return f"{mantissa} × 10<sup>{int(power)}</sup>".replace("-", "−")


def _scale(queries: Sequence[Query], threshold: float) -> str:
    """One axis with a dot for each query; surer matches are further to the right."""
    answered = sorted((q for q in queries if q.candidates), key=lambda q: q.candidates[0].log10_nfa)
    values = [q.candidates[0].log10_nfa for q in answered] + [threshold, 0.0]
    left, right = _spread(max(values) + 1), _spread(min(values))

    def place(value: float) -> str:
        return f"{2 + 96 * (_spread(value) - left) / (right - left):.2f}%"

    limit = f'<span class="limit" style="left:{place(threshold)}"></span>'
    rows = "".join(
        f'<li><span>{escape(q.name)} <span class="axis">{escape(best.name)}</span></span><span class="track">{limit}'
        f'<span class="dot{"" if best.accepted else " out"}" style="left:{place(best.log10_nfa)}"></span></span>'
        f'<span class="value">{_number(best.log10_nfa)}</span></li>'
        for q in answered
        for best in [q.candidates[0]]
    )
    ticks = "".join(
        f'<span class="tick" style="left:{place(value)}">{_number(value)}</span>'
        for value in (0, -10, -40, -100, -200, -400, -800)
        if min(values) <= value
    )
    axis = f'<span>log10 NFA</span><span class="track">{ticks}</span><span></span>'
    return f'<ol class="scale">{rows}<li class="axis" aria-hidden="true">{axis}</li></ol>'


def _spread(log10_nfa: float) -> float:
    """Signed square root, which gives room near the threshold and keeps the surest match on the page."""
    bounded = min(max(log10_nfa, -1e4), 10.0)  # hopeless matches may have an infinite value
    return math.copysign(math.sqrt(abs(bounded)), -bounded)


def _times(steps: Sequence[Step]) -> str:
    longest = max((step.seconds for step in steps), default=0.0) or 1.0
    rows = "".join(
        f"<tr><td>{escape(step.name)}</td>"
        f'<td><div class="bar" style="width:{100 * step.seconds / longest:.1f}%"></div></td>'
        f'<td class="number">{step.seconds:.1f} s</td><td>{escape(step.note)}</td></tr>'
        for step in steps
    )
    return (
        '<div class="card scroll table"><table class="times"><thead><tr><th>Step</th><th></th>'
        f'<th class="number">Time</th><th></th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _chip(accepted: bool) -> str:
    kind, sign, word = ("yes", "✓", "accepted") if accepted else ("no", "✕", "refused")
    return f'<span class="chip {kind}">{sign}<span class="word"> {word}</span></span>'


def _figure(data: bytes, alt: str, text: str) -> str:
    return f"<figure>{_image(data, alt)}<figcaption>{text}</figcaption></figure>"


def _image(data: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" loading="lazy" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'


def _number(value: float) -> str:
    """A number with a true minus sign; hopeless matches may have an infinite value."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.1f}" if isinstance(value, float) and value != round(value) else f"{round(value)}"
    return text.replace("-", "−")
