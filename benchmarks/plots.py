"""Plots of results as SVG files, without a plotting library."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from delf_jax.files import atomic

# Told apart by colour-blind readers too (Okabe and Ito, "Color Universal Design").
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
_PANEL_WIDTH, _PANEL_HEIGHT = 420, 300
_LEFT, _TOP, _BOTTOM, _GAP = 56, 48, 48, 24
_LEGEND_WIDTH = 150
_PLOTTED_FEATURES = 600


@dataclasses.dataclass(frozen=True)
class Panel:
    """One plot with its axes.

    Attributes:
        title: above it.
        x_label: below it.
        y_label: label of the y axis.
        x_ticks: values written along x; the first and the last are its ends.
        y_ticks: likewise along y.
        lines: name -> points (x, y); every panel of a plot gives a name the same colour.
        marks: whether points are marked.
        log: whether both axes are logarithmic.
    """

    title: str
    x_label: str
    y_label: str
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    lines: Mapping[str, Sequence[tuple[float, float]]]
    marks: bool = False
    log: bool = False


def write_accuracy(path: Path, rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Precision against true positives at 600 features (or the largest budget), and top-1 against features."""
    shown = [row for row in rows if row.get("verified")]
    if not shown:
        return
    budgets = sorted({row["features"] for row in shown})
    budget = _PLOTTED_FEATURES if _PLOTTED_FEATURES in budgets else budgets[-1]
    curves = {row["method"]: row["precision_recall"] for row in shown if row["features"] == budget}
    found = max((curve[-1][0] for curve in curves.values() if curve), default=1)
    lowest = min(90, 10 * int(min(row["top1"] for row in shown) // 10))
    names = list(dict.fromkeys(row["method"] for row in shown))
    accuracy = {
        name: sorted((row["features"], row["top1"]) for row in shown if row["method"] == name) for name in names
    }
    panels = [
        Panel(
            f"Precision and true positives, {budget} features",
            "true positives over all queries",
            "precision",
            steps(0, found, 5),
            (0, 0.2, 0.4, 0.6, 0.8, 1),
            {name: [(x, y) for x, y in curve] for name, curve in curves.items()},
        ),
        Panel(
            "Right first answers",
            "features a photo",
            "top-1, %",
            budgets if len(budgets) > 1 else (0, budget),
            range(lowest, 101, 10),
            accuracy,
            marks=True,
        ),
    ]
    write(path, panels, title=title)


def write(path: Path, panels: Sequence[Panel], *, title: str) -> None:
    """Panels side by side, with one legend, as an SVG file."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    pitch = _LEFT + _PANEL_WIDTH + _GAP
    width, height = len(panels) * pitch + _LEGEND_WIDTH, _TOP + _PANEL_HEIGHT + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _text(width / 2, 16, title, size=14),
    ]
    for i, panel in enumerate(panels):
        parts += _panel(panel, i * pitch + _LEFT, colours)
    for i, name in enumerate(names):
        x, y = len(panels) * pitch, _TOP + 12 + 18 * i
        parts.append(f'<path d="M{x} {y}h22" stroke="{colours[name]}" stroke-width="2.5"/>')
        parts.append(_text(x + 28, y + 4, name, anchor="start"))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, "\n".join([*parts, "</svg>\n"]).encode())


def _panel(panel: Panel, left: float, colours: Mapping[str, str]) -> list[str]:
    scaled = math.log10 if panel.log else float
    (x_low, x_high), (y_low, y_high) = ((ticks[0], ticks[-1]) for ticks in (panel.x_ticks, panel.y_ticks))

    def share(value: float, low: float, high: float) -> float:
        return (scaled(value) - scaled(low)) / max(scaled(high) - scaled(low), 1e-9)

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = share(x, x_low, x_high), share(y, y_low, y_high)
        return left + _PANEL_WIDTH * across, _TOP + _PANEL_HEIGHT * (1 - up)

    bottom = _TOP + _PANEL_HEIGHT
    parts = [_text(left + _PANEL_WIDTH / 2, _TOP - 10, panel.title)]
    for tick in panel.x_ticks:
        x = place(tick, y_low)[0]
        parts.append(f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="#e4e4e7"/>')
        parts.append(_text(x, bottom + 16, f"{tick:g}"))
    for tick in panel.y_ticks:
        y = place(x_low, tick)[1]
        parts.append(f'<path d="M{left} {y:.1f}h{_PANEL_WIDTH}" stroke="#e4e4e7"/>')
        parts.append(_text(left - 6, y + 4, f"{tick:g}", anchor="end"))
    parts.append(_text(left + _PANEL_WIDTH / 2, bottom + 36, panel.x_label))
    x, y = left - 40, _TOP + _PANEL_HEIGHT / 2
    parts.append(f'<g transform="rotate(-90 {x} {y})">{_text(x, y, panel.y_label)}</g>')
    for name, points in panel.lines.items():
        places = [place(*point) for point in points]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        if panel.marks:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colours[name]}"/>' for x, y in places]
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def steps(low: int, high: int, count: int) -> list[float]:
    """Round numbers for the axis, from ``low`` to ``high`` or a little further."""
    step = next(size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if size * count >= high - low)
    return [low + step * i for i in range(-(-(high - low) // step) + 1)]
