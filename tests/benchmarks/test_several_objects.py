"""Boxes of all methods on planted photos of one object."""

from pathlib import Path

import localization
from benchmarks import several_objects
from tests.localization.evaluation.test_evaluation import colours, planted


def test_all_methods_are_measured_on_the_same_maps(tmp_path: Path) -> None:
    photos = [planted(tmp_path, seed) for seed in range(6)]
    encoder = localization.CallableEncoder(colours, name="colours", size=64)
    predictor = localization.fit([photo.path for photo in photos], encoder=encoder)
    empty = photos[0]._replace(boxes=[])
    rows = {row["method"]: row for row in several_objects.measure(predictor, [*photos, empty])}
    assert list(rows)[:7] == ["w*", "LOST", "TokenCut", "DDT", "CAAM", "SCDA", "random boxes"]
    assert {row["photos"] for row in rows.values()} == {6}
    for name in ("w*", "DDT", "SCDA"):
        assert rows[name]["corloc"] == rows[name]["recall_1"] == rows[name]["average_precision"] == 1
    assert rows["random boxes"]["average_precision"] < 0.5
    oracle = next(row for name, row in rows.items() if name.endswith("(oracle)"))
    assert oracle["corloc"] >= rows["centre, half the area"]["corloc"]
