"""All pairs of photos that are proved, for what learns from them."""

from pathlib import Path

from retrieval.grouping.pair_log import PairLog
from retrieval.grouping.proved_pairs import ProvedPair, proved_pairs
from tests.retrieval.grouping.test_groups import PHOTOS, build


def told(pairs: list[ProvedPair]) -> list[object]:
    return [(pair.a, pair.b, pair.transform.tolist()) for pair in pairs]


def test_every_pair_of_a_scene_is_proved_and_the_log_spares_the_second_run(tmp_path: Path) -> None:
    index = build()
    first = PairLog(tmp_path / "log")
    found = list(proved_pairs(index, PHOTOS.__getitem__, max_side=1024, log=first))
    first.close()
    scenes = ["a0", "a1", "a2", "a0 smaller"], ["b0", "b1"]
    every = {frozenset((a, b)) for scene in scenes for a in scene for b in scene if a != b}
    assert len(found) == len(every) == 7
    assert {frozenset((pair.a, pair.b)) for pair in found} == every
    lines = (tmp_path / "log").read_bytes()
    again = PairLog(tmp_path / "log")
    assert told(list(proved_pairs(index, PHOTOS.__getitem__, max_side=1024, log=again))) == told(found)
    again.close()
    assert (tmp_path / "log").read_bytes() == lines
