"""Groups of a small planted collection: two scenes seen three times, a copy, and photos that show neither."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

import retrieval
from delf_jax.errors import SearchIndexError
from delf_jax.features import LocalFeatures
from delf_jax.files.changer import only_changer
from retrieval.grouping import graph, pair_verifier
from retrieval.grouping.groups import Grouping, group
from tests.elsewhere import errors_elsewhere

SIZE = (600, 800)


def view(scene: int, view: int, *, scale: float = 1.0, turn: float = 0.0, kept: slice = slice(None)) -> LocalFeatures:
    """60 features of a scene; those of another view are a little different, and moved."""
    scenes, views = np.random.default_rng(scene), np.random.default_rng([scene, view])
    descriptors = scenes.normal(size=(60, 32)) + 0.3 * views.normal(size=(60, 32)) * (view > 0)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    keypoints = (scale * scenes.uniform(100, 500, (60, 2)) @ rotation.T)[kept].astype(np.float32)
    ones = np.ones(len(keypoints), np.float32)
    height, width = (round(scale * side) for side in SIZE)
    return LocalFeatures(keypoints, ones / np.float32(scale), ones, descriptors[kept].astype("f"), (height, width))


PHOTOS = {
    "a0": view(1, 0),
    "b0": view(2, 0),
    "a1": view(1, 1, turn=0.3),
    "alone": view(3, 0),
    "a2": view(1, 2, scale=1.2, turn=-0.2),
    "a0 smaller": view(1, 0, scale=0.5, kept=slice(0, 55)),
    "b1": view(2, 1, turn=0.4),
    "empty": LocalFeatures.empty((60, 80), 32),
    "also alone": view(4, 0),
}


def build(names: Iterable[str] = PHOTOS) -> retrieval.Index:
    return retrieval.Index.build([(name, PHOTOS[name]) for name in names], backend="exact", threshold=-5.0)


def told(found: Grouping) -> list[object]:
    """All that a grouping says, to be compared."""
    edges = [
        (e.a, e.b, e.inliers, e.log10_nfa, e.limit, e.transform.tolist(), e.regions.tolist(), e.copy)
        for each in found.groups
        for e in each.edges
    ]
    members = [(m.name, m.region.tolist(), m.copy_of) for each in found.groups for m in each.members]
    return [edges, members, found.alone, found.examined.likely]


@pytest.fixture(scope="module")
def whole() -> Grouping:
    return group(build())


def test_scenes_are_groups_and_copies_are_told(whole: Grouping) -> None:
    assert [set(each.names) for each in whole.groups] == [{"a0", "a1", "a2", "a0 smaller"}, {"b0", "b1"}]
    assert whole.alone == ("alone", "empty", "also alone")
    first = whole.groups[0]
    copies = {member.name: member.copy_of for member in first.members if member.copy_of}
    assert copies in ({"a0 smaller": "a0"}, {"a0": "a0 smaller"})
    assert first.names[0] == first.representative
    for edge in (edge for each in whole.groups for edge in each.edges):
        assert edge.log10_nfa <= edge.limit == -5.0
        assert edge.copy == ({edge.a, edge.b} == {"a0", "a0 smaller"})
        assert edge.inliers >= 50
        src, dst = PHOTOS[edge.a].keypoints, PHOTOS[edge.b].keypoints
        common = min(len(src), len(dst))
        moved = np.c_[src[:common], np.ones(common)] @ edge.transform.T
        assert np.abs(moved[:, :2] - dst[:common]).max() < 5
        for region, points in zip(edge.regions, (src, dst), strict=True):
            edges = region - 0.5
            assert (points.min(axis=0) <= edges[:2]).all()
            assert (edges[2:] <= points.max(axis=0)).all()


def test_every_pair_is_counted_once(whole: Grouping) -> None:
    # Eight photos with features, so 28 pairs, all of them likely in so small a collection.
    assert len(whole.examined.likely) == len({frozenset(pair) for pair in whole.examined.likely}) == 28
    assert len(whole.groups[0].edges) + len(whole.groups[1].edges) <= whole.examined.verified <= 28


def test_a_run_that_was_killed_goes_on_and_comes_to_the_same(
    whole: Grouping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, asked = tmp_path / "pairs.jsonl", []
    verify = pair_verifier.verify_candidates

    def counted(query: LocalFeatures, candidates: list[tuple[str, float, LocalFeatures]], settings: object) -> object:
        asked.extend(candidates)
        return verify(query, candidates, settings)

    monkeypatch.setattr(pair_verifier, "verify_candidates", counted)
    assert told(group(build(), log=log)) == told(whole)
    assert len(asked) == whole.examined.verified
    data = log.read_bytes()
    lines = data.count(b"\n")
    for length in (0, 1, len(data) // 3, len(data) // 2, len(data) - 1, len(data)):
        log.write_bytes(data[:length])
        asked.clear()
        assert told(group(build(), log=log)) == told(whole)
        assert len(asked) == lines - data[:length].count(b"\n")
        assert log.read_bytes() == data


def test_photos_that_join_cost_only_their_own_pairs(whole: Grouping, tmp_path: Path) -> None:
    log = tmp_path / "pairs.jsonl"
    names = list(PHOTOS)
    index = build(names[:6])
    assert [set(each.names) for each in group(index, log=log).groups] == [{"a0", "a1", "a2", "a0 smaller"}]
    index.add([(name, PHOTOS[name]) for name in names[6:]])
    assert told(group(index, log=log)) == told(whole)


def test_a_photo_with_other_features_of_the_same_name_is_verified_anew(tmp_path: Path) -> None:
    log = tmp_path / "pairs.jsonl"
    index = build(["a0", "a1"])
    assert len(group(index, log=log).groups) == 1
    index.add([("a1", PHOTOS["alone"])])
    assert group(index, log=log).groups == ()


def test_one_run_at_a_time_writes_a_log(tmp_path: Path) -> None:
    with only_changer(tmp_path / "pairs.jsonl", SearchIndexError):
        (refused,) = errors_elsewhere(lambda: group(build(["a0"]), log=tmp_path / "pairs.jsonl"))
    assert "another writer is at work" in str(refused)


def test_what_is_no_whole_line_of_a_log_is_dropped(whole: Grouping, tmp_path: Path) -> None:
    log = tmp_path / "pairs.jsonl"
    for line in (b"\xff\n", b"[]\n", b"{}\n", b'{"pair": [1]}\n', b'{"pair": ["a", "b"], "inliers": 3}\n'):
        log.write_bytes(line)
        assert told(group(build(["a0", "b0"]), log=log)) == told(group(build(["a0", "b0"])))
        assert line not in log.read_bytes()


@pytest.mark.parametrize("names", [["a0"], ["a0", "alone"], ["a0", "empty"]])
def test_collections_without_a_group(names: list[str]) -> None:
    found = group(build(names))
    assert (found.groups, found.alone) == ((), tuple(names))


def test_an_index_in_shards_gives_the_same_and_needs_all_shards(
    whole: Grouping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = PHOTOS.items()
    with retrieval.ShardedIndex.build(photos, tmp_path / "i", shards=2, backend="exact", threshold=-5.0) as index:
        assert told(group(index)) == told(whole)
        lost = retrieval.SearchResult(False, [], index.acceptance(60), {"00001": "being started again"})
        monkeypatch.setattr(index, "search", lambda *features, **options: lost)
        with pytest.raises(SearchIndexError, match=r"shard 00001 is lost \(being started again\)"):
            group(index)


def test_photos_that_are_all_alike_are_one_group_of_copies() -> None:
    index = retrieval.Index.build([(f"{i}", PHOTOS["a0"]) for i in range(5)], backend="exact", threshold=-5.0)
    (each,) = group(index).groups
    assert len(each.members) == 5
    assert sum(member.copy_of is not None for member in each.members) == 4


def test_names_decide_the_order_of_equally_sure_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    index = retrieval.Index.build([(name, PHOTOS["a0"]) for name in "abc"], backend="exact", threshold=-5.0)
    in_order = graph.grouped
    found = []
    for step in (1, -1):
        monkeypatch.setattr(graph, "grouped", lambda edges, step=step: [each[::step] for each in in_order(edges)])
        found.append(group(index))
    assert told(found[0]) == told(found[1])
    (each,) = found[0].groups
    assert len({edge.log10_nfa for edge in each.edges}) == 1
    assert [edge.a + edge.b for edge in each.edges] == ["ab", "ac", "bc"]
