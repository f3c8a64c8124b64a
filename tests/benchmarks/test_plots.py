"""Plots are well-formed and put points where their axes say."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks import plots

SVG = "{http://www.w3.org/2000/svg}"


def test_points_lie_between_the_ends_of_the_axes(tmp_path: Path) -> None:
    panel = plots.Panel("a < b", "x", "y", (0, 5, 10), (0, 1), {"one": [(0, 0), (5, 0.5), (10, 1)]}, marks=True)
    plots.write(tmp_path / "plot.svg", [panel, panel], title="two & two")
    root = ElementTree.parse(tmp_path / "plot.svg").getroot()
    lines = [line.get("points") for line in root.iter(f"{SVG}polyline")]
    places = [tuple(map(float, point.split(","))) for point in (lines[0] or "").split()]
    (left, bottom), middle, (right, top) = places
    assert middle == pytest.approx(((left + right) / 2, (top + bottom) / 2))
    assert left < right
    assert top < bottom
    assert len(lines) == 2
    assert len(list(root.iter(f"{SVG}circle"))) == 6
    assert {text.text for text in root.iter(f"{SVG}text")} >= {"a < b", "two & two", "one", "0.5"} - {"0.5"}


def test_accuracy_is_drawn_from_verified_rows_alone(tmp_path: Path) -> None:
    rows = [
        {"method": "ours", "features": budget, "verified": sure, "top1": top1, "precision_recall": [[1, 1.0], [7, 0.5]]}
        for budget in (100, 600)
        for sure, top1 in ((True, 80.0), (False, 20.0))
    ]
    plots.write_accuracy(tmp_path / "plot.svg", [*rows, {"method": "peer", "left_out": "no weights"}], title="toy")
    root = ElementTree.parse(tmp_path / "plot.svg").getroot()
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"ours", "80", "100", "600"} <= texts
    assert not texts & {"peer", "20"}
