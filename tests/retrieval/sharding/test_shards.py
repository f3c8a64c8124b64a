"""An index in shards in one process: the answers of a single index, whatever became of its shards."""

import shutil
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retrieval
from delf_jax.errors import SearchIndexError
from delf_jax.extraction.head import Head
from delf_jax.features import LocalFeatures
from delf_jax.settings import ExtractionSettings
from retrieval.indexing import manifest
from retrieval.indexing.backends.exact_backend import ExactBackend
from retrieval.nearest import Neighbours, merge_neighbours
from retrieval.sharding.layout import Layout, ShardChanged
from retrieval.sharding.ray_servers import _Server
from retrieval.sharding.shard import Shard
from tests.retrieval.indexing.manifest_0_1 import write_as_0_1
from tests.retrieval.sift import sift_features

NAMES = ("graf1", "leuvenA", "box", "nothing", "coffee", "camera", "twin", "rocket", "chelsea")
QUERIES = ("leuvenB", "box_in_scene", "coffee", "china")


@pytest.fixture(scope="module")
def photos(demo_photos: Path) -> dict[str, LocalFeatures]:
    real = {*NAMES, *QUERIES, "astronaut", "graf3"} - {"twin", "nothing"}
    features = {name: sift_features(demo_photos / f"{name}.jpg", 200) for name in real}
    # The same photo twice: every similarity and every vote ties.
    return features | {"twin": features["coffee"], "nothing": LocalFeatures.empty((60, 80), 128)}


def described() -> dict[str, object]:
    return {"settings": ExtractionSettings(max_features=200), "fingerprint": "f" * 64, "threshold": -8.0}


def pick(photos: dict[str, LocalFeatures], names: Iterable[str]) -> list[tuple[str, LocalFeatures]]:
    return [(name, photos[name]) for name in names]


def build(photos: dict[str, LocalFeatures], path: Path, names: Iterable[str] = NAMES) -> retrieval.ShardedIndex:
    return retrieval.ShardedIndex.build(pick(photos, names), path, shards=3, backend="exact", **described())


def single(photos: dict[str, LocalFeatures], names: Iterable[str] = NAMES) -> retrieval.Index:
    return retrieval.Index.build(pick(photos, names), backend="exact", **described())


def answer(index: retrieval.Index | retrieval.ShardedIndex, query: LocalFeatures, **options: object) -> list[tuple]:
    return [
        (match.image, match.inliers, match.putative, match.log10_nfa, match.accepted, match.score)
        for match in index.search(query, **options).matches
    ]


@pytest.fixture(scope="module")
def built(photos: dict[str, LocalFeatures], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards") / "index"
    build(photos, path)
    return path


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "index"))


def test_the_answer_is_that_of_one_index(photos: dict[str, LocalFeatures], built: Path) -> None:
    whole, sharded = single(photos), retrieval.ShardedIndex.open(built)
    assert len(sharded.shards) == 3
    assert sharded.names == whole.names
    assert (len(sharded), sharded.feature_count, sharded.dimension) == (len(whole), whole.feature_count, 128)
    assert (sharded.settings, sharded.fingerprint, sharded.threshold) == (whole.settings, "f" * 64, -8.0)
    for query in QUERIES:
        assert answer(sharded, photos[query]) == answer(whole, photos[query])
        assert sharded.search(photos[query]).lost == {}
    for options in (
        {"verify": 2},
        {"verify": 0, "top": 3},
        {"exclude": ("coffee", "no such photo")},
        {"settings": retrieval.SearchSettings(neighbours=3)},
    ):
        assert answer(sharded, photos["coffee"], **options) == answer(whole, photos["coffee"], **options)
    assert [found[0] for found in answer(sharded, photos["coffee"])][:2] == ["coffee", "twin"]
    np.testing.assert_array_equal(sharded.features("box").keypoints, photos["box"].keypoints)


def test_photos_come_and_go_as_in_one_index(photos: dict[str, LocalFeatures], copy: Path) -> None:
    whole, sharded = single(photos), retrieval.ShardedIndex.open(copy)
    for index in (whole, sharded):
        index.add(pick(photos, ("astronaut", "graf3")))
        index.add([("box", photos["leuvenB"]), ("china", photos["china"])])
        index.remove(["camera", "nothing"])
    assert sharded.names == whole.names
    again = retrieval.ShardedIndex.open(copy)
    for query in QUERIES:
        assert answer(sharded, photos[query]) == answer(whole, photos[query]) == answer(again, photos[query])
    # Older generations are gone.
    assert len(list((copy / "shards").iterdir())) == 2 * len(sharded.shards)


def test_a_shard_that_loses_its_features_is_given_up(photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    sharded = retrieval.ShardedIndex.build(
        pick(photos, ("box", "coffee", "nothing")), tmp_path / "index", shards=2, backend="exact"
    )
    sharded.add([("box", LocalFeatures.empty((9, 9), 128))])
    assert len(sharded.shards) == 1
    assert set(sharded.names) == {"box", "coffee", "nothing"}
    assert len(sharded.features("box")) == 0
    with pytest.raises(SearchIndexError, match="no feature would be left"):
        sharded.remove(["coffee"])
    assert [found[0] for found in answer(retrieval.ShardedIndex.open(tmp_path / "index"), photos["coffee"])] == [
        "coffee"
    ]


def test_a_damaged_shard_is_named_and_the_rest_answers(photos: dict[str, LocalFeatures], copy: Path) -> None:
    layout = Layout.read(copy)
    harmed = layout.shards[1]
    lost = set(retrieval.Index.open(copy / harmed.folder).names)
    data = bytearray((copy / harmed.folder / "descriptors.npy").read_bytes())
    data[-1] ^= 1
    (copy / harmed.folder / "descriptors.npy").write_bytes(data)
    sharded = retrieval.ShardedIndex.open(copy)
    found = sharded.search(photos["coffee"])
    assert list(found.lost) == [harmed.name]
    assert "descriptors.npy does not match its checksum" in found.lost[harmed.name]
    # A photo that cannot be asked is a chance to be wrong all the same.
    assert answer(sharded, photos["leuvenB"]) == answer(single(photos), photos["leuvenB"], exclude=lost)
    with pytest.raises(SearchIndexError, match="--rebuild"):
        sharded.remove(sorted(lost)[:1])

    # What a killed attempt left behind is in nobody's way.
    (copy / "shards" / f"{harmed.name}.{harmed.generation + 1}").mkdir()
    repaired = sharded.rebuild(pick(photos, NAMES))
    assert list(repaired) == [harmed.name]
    assert sorted(sharded.names) == sorted(NAMES)
    assert sharded.search(photos["coffee"]).lost == {}
    assert {f[0]: f[1:] for f in answer(sharded, photos["leuvenB"])} == {
        f[0]: f[1:] for f in answer(single(photos), photos["leuvenB"])
    }
    assert sharded.rebuild(pick(photos, NAMES)) == {}


def test_what_others_changed_before_the_first_question_is_answered_as_it_is_now(
    photos: dict[str, LocalFeatures], copy: Path
) -> None:
    opened = retrieval.ShardedIndex.open(copy)
    with retrieval.ShardedIndex.open(copy) as other:
        other.remove(["leuvenA"])
    assert answer(opened, photos["leuvenB"]) == answer(
        single(photos, [name for name in NAMES if name != "leuvenA"]), photos["leuvenB"]
    )

    opened = retrieval.ShardedIndex.open(copy)
    shutil.rmtree(copy / Layout.read(copy).shards[0].folder)
    assert list(opened.search(photos["coffee"]).lost) == [Layout.read(copy).shards[0].name]


def test_shards_that_are_open_and_others_are_of_one_time(photos: dict[str, LocalFeatures], copy: Path) -> None:
    opened, pinned, other = (retrieval.ShardedIndex.open(copy) for _ in range(3))
    (first, mine), (_, others), *_ = other._photos.ask("names").given.items()
    for index in (opened, pinned):
        index._servers.ask(index._photos.layout, "names", {first: ()})
    gone = [next(iter(names.values())) for names in (mine, others)]
    other.remove(gone[:1])
    assert answer(pinned, photos["leuvenB"]) == answer(single(photos), photos["leuvenB"])
    other.remove(gone[1:])
    left = [name for name in NAMES if name not in gone]
    assert answer(opened, photos["leuvenB"]) == answer(single(photos, left), photos["leuvenB"])
    assert (opened.names, len(opened)) == (tuple(left), len(left))
    assert answer(pinned, photos["leuvenB"]) == answer(single(photos), photos["leuvenB"])


def test_a_generation_may_go_while_it_is_compared(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(folder: Path, described: dict[str, Any]) -> list[str]:
        raise FileNotFoundError(2, "No such file or directory", str(folder / "backend"))

    entry = Layout.read(copy).shards[0]
    monkeypatch.setattr(manifest, "damage", gone)
    (reason,) = entry.damage(copy)
    assert reason.startswith(f"{entry.folder} cannot be read ([Errno 2] No such file or directory")


def test_one_search_asks_shards_of_one_time(
    photos: dict[str, LocalFeatures], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharded = retrieval.ShardedIndex.open(copy)
    expected = answer(single(photos), photos["leuvenB"])
    changes = [[("leuvenA", photos["leuvenA"])]] * 4  # more than the tries after changes of others

    def neighbours_before_a_change(*arguments: object) -> Neighbours:
        found = merge_neighbours(*arguments)
        if changes:
            # What another thread does between two questions of one search: the photo gets a new number.
            sharded.add(changes.pop())
        return found

    monkeypatch.setattr("retrieval.sharding.snapshot.merge_neighbours", neighbours_before_a_change)
    found = answer(sharded, photos["leuvenB"])
    assert not changes
    assert found[0][0] == "leuvenA"
    assert sorted(found) == sorted(expected)


def test_a_server_opens_its_shard_again_where_that_failed_once(
    copy: Path, photos: dict[str, LocalFeatures], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jax.config.update", lambda *option: None)
    name = Layout.read(copy).shards[0].name
    server = _Server(str(copy), name, {})
    before = Layout.read(copy).entry(name)
    gone, *_ = server.call(before, "names").values()
    opened, failing = Shard.open, [OSError("stale file handle"), ValueError("mmap length"), SearchIndexError("hiccup")]

    def open_or_fail(root: Path, name: str) -> Shard:
        if failing:
            raise failing.pop()
        return opened(root, name)

    with retrieval.ShardedIndex.open(copy) as other:
        other.remove([gone])
    now = Layout.read(copy).entry(name)
    monkeypatch.setattr(Shard, "open", open_or_fail)
    server.open()
    for reason in ("cannot be opened: mmap length", "cannot be opened: stale file handle"):
        with pytest.raises(SearchIndexError, match=reason):
            server.call(now, "names")
    assert gone not in server.call(now, "names").values()
    with pytest.raises(ShardChanged, match="changed by another process"):
        server.call(before, "names")


def test_a_server_compares_a_damaged_shard_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.config.update", lambda *option: None)
    entry = Layout.read(copy).shards[0]
    (copy / entry.numbers_file).write_bytes(b"")
    server = _Server(str(copy), entry.name, {})
    for _ in range(2):
        with pytest.raises(SearchIndexError, match="is damaged"):
            server.call(entry, "names")
        monkeypatch.setattr(Shard, "open", None)


def test_what_is_damaged_beyond_its_shards(photos: dict[str, LocalFeatures], copy: Path) -> None:
    shutil.rmtree(copy / "shards")
    with pytest.raises(SearchIndexError, match=r"all its shards are damaged; .* --shards 3`"):
        retrieval.ShardedIndex.open(copy)
    (copy / "manifest.json").write_text(
        (copy / "manifest.json").read_text().replace('"photos_ever": 9', '"photos_ever": 1')
    )
    with pytest.raises(SearchIndexError, match=r"its manifest\.json is damaged"):
        retrieval.ShardedIndex.open(copy)


def test_the_manifest_of_version_0_1_is_read(copy: Path) -> None:
    layout = Layout.read(copy)
    write_as_0_1(copy)
    assert Layout.read(copy) == layout


def test_the_head_comes_along(photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    Head(log10_nfa_threshold=-12.5).save(tmp_path / "head.safetensors")
    sharded = retrieval.ShardedIndex.build(
        pick(photos, NAMES), tmp_path / "index", shards=2, backend="exact", head_path=tmp_path / "head.safetensors"
    )
    assert sharded.threshold == -12.5
    assert sharded.head_path == tmp_path / "index" / "head.safetensors"
    sharded.head_path.write_bytes(b"")
    with pytest.raises(SearchIndexError, match=r"head\.safetensors has 0 bytes"):
        retrieval.ShardedIndex.open(tmp_path / "index")


def test_a_change_that_fails_leaves_all_as_it_was(photos: dict[str, LocalFeatures], copy: Path) -> None:
    sharded = retrieval.ShardedIndex.open(copy)
    before = sorted(path.name for path in (copy / "shards").iterdir())
    short = LocalFeatures(np.zeros((1, 2)), np.ones(1), np.ones(1), np.ones((1, 40)), (9, 9))
    for change, reason in (
        (lambda: sharded.add([("graf3", photos["graf3"]), ("short", short)]), "short: its descriptors have 40"),
        (lambda: sharded.add(pick(photos, ("graf3", "graf3"))), "graf3: comes twice"),
        (lambda: sharded.remove(["coffee", "box2"]), "box2: is not in the index"),
    ):
        with pytest.raises(SearchIndexError, match=reason):
            change()
    assert sorted(path.name for path in (copy / "shards").iterdir()) == before
    assert retrieval.ShardedIndex.open(copy).names == NAMES


def test_memory_holds_one_shard_while_they_are_built(
    photos: dict[str, LocalFeatures], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living: weakref.WeakSet[ExactBackend] = weakref.WeakSet()
    held: list[int] = []

    class Counted(ExactBackend):
        def __init__(self, descriptors: np.ndarray) -> None:
            super().__init__(descriptors)
            held.append(len(living))
            living.add(self)

    monkeypatch.setattr("retrieval.sharding.building.backend_class", lambda name: Counted)
    build(photos, tmp_path / "index")
    assert held == [0, 0, 0]


def test_what_cannot_be_built(photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    path = tmp_path / "index"
    with pytest.raises(SearchIndexError, match="2 photos with features cannot fill 3 shards; take at most 2"):
        build(photos, path, ("box", "nothing", "coffee"))
    with pytest.raises(SearchIndexError, match="there are no photos"):
        build(photos, path, ())
    with pytest.raises(SearchIndexError, match="box: comes twice"):
        build(photos, path, ("box", "coffee", "box", "camera"))
    with pytest.raises(SearchIndexError, match="take at least 1"):
        retrieval.ShardedIndex.build([], path, shards=0)
    assert list(tmp_path.iterdir()) == []


def test_both_kinds_open_and_replace_each_other(photos: dict[str, LocalFeatures], copy: Path) -> None:
    assert isinstance(retrieval.open_index(copy), retrieval.ShardedIndex)
    with pytest.raises(SearchIndexError, match=r"retrieval\.open_index"):
        retrieval.Index.open(copy)
    single(photos).save(copy)
    assert isinstance(retrieval.open_index(copy), retrieval.Index)
    assert not manifest.is_sharded(copy)
    build(photos, copy)
    assert manifest.is_sharded(copy)


def test_building_into_a_folder_is_building_and_saving(photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    single(photos).save(tmp_path / "saved")
    direct = retrieval.Index.build(pick(photos, NAMES), backend="exact", out=tmp_path / "direct", **described())
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*")) for n in ("saved", "direct")]
    assert files[0] == files[1]
    for file in files[0]:
        if (tmp_path / "saved" / file).is_file() and file.suffix == ".npy":
            np.testing.assert_array_equal(np.load(tmp_path / "saved" / file), np.load(tmp_path / "direct" / file))
    assert answer(direct, photos["leuvenB"]) == answer(retrieval.Index.open(tmp_path / "direct"), photos["leuvenB"])
