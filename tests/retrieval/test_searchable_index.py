"""The one interface of an index in one piece and an index in shards."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import retrieval
from delf_jax.errors import SearchIndexError
from delf_jax.features import LocalFeatures
from delf_jax.files.changer import only_changer
from delf_jax.files.envelope import encode_envelope
from delf_jax.settings import ExtractionSettings
from retrieval import asmk
from retrieval.indexing import manifest
from retrieval.indexing.backends import BackendName
from tests.calibrations import CALIBRATION
from tests.elsewhere import errors_elsewhere
from tests.retrieval.sift import sift_features

NAMES = ("graf1", "leuvenA", "nothing", "coffee", "camera")
KINDS = ["memory", "folder", "shards"]


@pytest.fixture(scope="module")
def photos(demo_photos: Path) -> dict[str, LocalFeatures]:
    real = {*NAMES, "leuvenB", "box"} - {"nothing"}
    features = {name: sift_features(demo_photos / f"{name}.jpg", 150) for name in real}
    return features | {"nothing": LocalFeatures.empty((60, 80), 128)}


def build(kind: str, photos: dict[str, LocalFeatures], path: Path) -> retrieval.SearchableIndex:
    chosen = [(name, photos[name]) for name in NAMES]
    settings, fingerprint = ExtractionSettings(max_features=150), "f" * 64
    if kind == "shards":
        return retrieval.ShardedIndex.build(
            chosen, path, shards=2, backend="exact", settings=settings, fingerprint=fingerprint, threshold=-8.0
        )
    out = path if kind == "folder" else None
    return retrieval.Index.build(
        chosen, out=out, backend="exact", settings=settings, fingerprint=fingerprint, threshold=-8.0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_of_every_kind_keeps_its_promises(kind: str, photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    index = build(kind, photos, tmp_path / "index")
    assert index.path == (None if kind == "memory" else tmp_path / "index")
    assert (len(index), index.names, index.dimension, index.backend) == (5, NAMES, 128, "exact")
    assert index.feature_count == sum(len(photos[name]) for name in NAMES)
    assert (index.settings, index.fingerprint, index.threshold) == (ExtractionSettings(max_features=150), "f" * 64, -8)
    np.testing.assert_array_equal(index.features("coffee").keypoints, photos["coffee"].keypoints)

    found = index.search(photos["leuvenB"], verify=3, top=2)
    assert (found.accepted, found.lost, len(found.matches), found.matches[0].image) == (True, {}, 2, "leuvenA")
    assert index.search(photos["leuvenB"], exclude=["leuvenA", "no such photo"]).matches[0].image != "leuvenA"
    assert not index.search(photos["leuvenB"], threshold=-np.inf).accepted
    assert index.search(photos["nothing"]).matches == []
    with pytest.raises(SearchIndexError, match="no inverted file of ASMK"):
        index.search(photos["leuvenB"], first_stage="asmk")
    index.calibrate(CALIBRATION)
    assert index.search(photos["leuvenB"]).acceptance.calibration == CALIBRATION
    assert index.acceptance(200).threshold == -7.5
    with pytest.raises(SearchIndexError, match="calibrate this index"):
        index.calibrate(dataclasses.replace(CALIBRATION, fingerprint="e" * 64))
    if index.path is not None:
        assert retrieval.open_index(index.path).calibration == CALIBRATION
        index.add([("box", photos["box"])])
        assert retrieval.open_index(index.path).calibration == CALIBRATION
        index.remove(["box"])
    queries = [(name, photos[name]) for name in ("leuvenB", "graf1", "nothing")]
    for others in (False, True):
        answers = dict(index.search_all(queries, others=others, verify=3, top=2))
        assert [*answers] == ["leuvenB", "graf1", "nothing"]
        for name, features in queries:
            alone = index.search(features, verify=3, top=2, exclude=[name] if others else ())
            assert [match.image for match in answers[name].matches] == [match.image for match in alone.matches]
            assert [match.log10_nfa for match in answers[name].matches] == [m.log10_nfa for m in alone.matches]
    index.require("f" * 64)
    with pytest.raises(SearchIndexError, match="made by another model"):
        index.require("e" * 64)

    index.add([("box", photos["box"]), ("coffee", photos["leuvenB"])])
    index.remove(["nothing"])
    index.change(removed=["camera"], added=[("camera2", photos["camera"])])
    now = ("graf1", "leuvenA", "box", "coffee", "camera2")
    for names, refused in (((), "box: comes twice"), (("camera",), "camera: is not in the index")):
        with pytest.raises(SearchIndexError, match=refused):
            index.change(removed=names, added=[("box", photos["box"]), ("box", photos["box"])][: 2 - len(names)])
    assert index.names == now
    assert index.search(photos["leuvenB"], verify=5).matches[0].image == "coffee"

    # What changed is in the folder of the index already, and in a copy of it.
    index.save(tmp_path / "copy")
    for path in (tmp_path / "copy", index.path):
        if path is not None:
            again = retrieval.open_index(path)
            assert (again.names, again.path) == (now, path)
            assert again.search(photos["leuvenB"], verify=0).matches[0].image == "coffee"
    index.remove(["box"])
    assert "box" in retrieval.open_index(tmp_path / "copy").names


@pytest.mark.parametrize("kind", ["folder", "shards"])
@pytest.mark.parametrize(
    "values",
    [
        *({"calibration": value} for value in ("abc", [1], 5, CALIBRATION.to_json() | {"fall": 10**400})),
        *({"threshold": value} for value in ("-2", None, True, float("nan"))),
        {"fingerprint": 5},
    ],
    ids=str,
)
def test_a_damaged_description_is_told(
    kind: str, values: dict[str, object], photos: dict[str, LocalFeatures], tmp_path: Path
) -> None:
    build(kind, photos, tmp_path / "index")
    format = manifest.SHARDED if kind == "shards" else manifest.FORMAT
    described = {**manifest.read(tmp_path / "index", format), **values}
    (tmp_path / "index" / manifest.NAME).write_bytes(encode_envelope(format, manifest.VERSION, described))
    with pytest.raises(SearchIndexError, match=r"damaged \(.*; build the index again"):
        retrieval.open_index(tmp_path / "index")


def planted(cosine: float, direction: int, moved: float = 0.0) -> LocalFeatures:
    """40 features with this cosine to those that ``planted(1.0, 0)`` has at the same places, before these moved."""
    axes = np.eye(128, dtype=np.float32)
    descriptors = cosine * axes[:40] + np.sqrt(1 - cosine**2, dtype=np.float32) * axes[40 + direction]
    keypoints = np.random.default_rng(0).uniform(20, 600, (40, 2)).astype(np.float32) + moved
    return LocalFeatures(keypoints, np.ones(40, np.float32), np.ones(40, np.float32), descriptors, (700, 700))


@pytest.mark.parametrize(("kind", "backend"), [("memory", "exact"), ("memory", "scann"), ("shards", "exact")])
def test_copies_of_one_photo_do_not_hide_the_photo_asked_for(kind: str, backend: BackendName, tmp_path: Path) -> None:
    copies = [(f"copy {i}", planted(0.95, 1)) for i in range(120)]
    others = [(f"other {i}", planted(0.1, 3 + i)) for i in range(80)]
    photos = [*others, ("asked for", planted(0.8, 2, moved=30.0)), *copies]
    index: retrieval.SearchableIndex
    if kind == "shards":
        index = retrieval.ShardedIndex.build(photos, tmp_path / "index", shards=3, backend=backend)
    else:
        index = retrieval.Index.build(photos, backend=backend)
    names = [match.image for match in index.search(planted(1.0, 0), verify=0, top=200).matches]
    assert {name[:4] for name in names[:120]} == {"copy"}
    assert names[120] == "asked for"
    found = index.search(planted(1.0, 0), verify=5, exclude=[name for name, _ in copies]).matches
    assert (found[0].image, found[0].accepted) == ("asked for", True)


@pytest.mark.parametrize("excluded", [range(29, 30), range(20, 30)])
def test_photos_are_ranked_as_if_excluded_ones_were_not_there(excluded: range, tmp_path: Path) -> None:
    """The nearest photos are excluded, of which ten would take all five neighbours of each descriptor."""
    settings = retrieval.SearchSettings(neighbours=5)
    photos = [(str(i), planted(0.2 + 0.02 * i, i)) for i in range(30)]
    rest = retrieval.Index.build([one for i, one in enumerate(photos) if i not in excluded], backend="exact")
    expected = rest.search(planted(1.0, 0), verify=0, settings=settings).matches
    assert expected[0].image == str(excluded[0] - 1)
    for index in (
        retrieval.Index.build(photos, backend="exact"),
        retrieval.ShardedIndex.build(photos, tmp_path / "index", shards=3, backend="exact"),
    ):
        found = index.search(planted(1.0, 0), verify=0, exclude=[str(i) for i in excluded], settings=settings).matches
        assert [(match.image, match.score) for match in found] == [(match.image, match.score) for match in expected]


def test_one_neighbour_gives_votes() -> None:
    index = retrieval.Index.build([("far", planted(0.5, 1)), ("near", planted(0.8, 2))], backend="exact")
    (best, *_) = index.search(planted(1.0, 0), verify=0, settings=retrieval.SearchSettings(neighbours=1)).matches
    assert best.image == "near"
    assert best.score == pytest.approx(40 * (0.8 - 0.5), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_changes_of_two_who_have_opened_it_are_never_lost(
    kind: str, photos: dict[str, LocalFeatures], tmp_path: Path
) -> None:
    path = tmp_path / "index"
    first, second = build(kind, photos, path), retrieval.open_index(path)
    with only_changer(path, SearchIndexError):
        (refused,) = errors_elsewhere(lambda: first.remove(["camera"]))
        (also,) = errors_elsewhere(lambda: build(kind, photos, path))
    assert "another writer is at work" in str(refused)
    assert "another writer is at work" in str(also)
    first.remove(["camera"])
    found = second.search(photos["camera"]).matches
    if kind == "folder":
        assert found[0].image == "camera"
        with pytest.raises(SearchIndexError, match="changed since it was opened; open it again"):
            second.add([("box", photos["box"])])
        second = retrieval.open_index(path)
    second.add([("box", photos["box"])])
    assert retrieval.open_index(path).names == ("graf1", "leuvenA", "nothing", "coffee", "box")
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]


def test_what_is_saved_again_must_not_hide_the_changes_of_others(
    photos: dict[str, LocalFeatures], tmp_path: Path
) -> None:
    index = build("memory", photos, tmp_path)
    for _ in range(2):
        index.save(tmp_path / "index")
    read_only = retrieval.Index.open(tmp_path / "index", read_only=True)
    retrieval.Index.open(tmp_path / "index").remove(["camera"])
    for kept in (index, read_only):
        kept.add([("box", photos["box"])])
        with pytest.raises(SearchIndexError, match="changed since it was opened"):
            kept.save(tmp_path / "index")
        kept.save(tmp_path / "other")
    assert "camera" not in retrieval.Index.open(tmp_path / "index").names


def test_a_link_to_an_index_stays_a_link(photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    build("folder", photos, tmp_path / "index")
    (tmp_path / "link").symlink_to("index")
    retrieval.open_index(tmp_path / "link").remove(["camera"])
    assert (tmp_path / "link").is_symlink()
    assert "camera" not in retrieval.open_index(tmp_path / "index").names


def test_a_read_only_index_leaves_its_folder_alone(photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    build("folder", photos, tmp_path / "index")
    index = retrieval.Index.open(tmp_path / "index", read_only=True)
    index.aggregate(asmk.Codebook(photos["box"].descriptors[:20].astype(np.float32)))
    index.remove(["camera"])
    again = retrieval.Index.open(tmp_path / "index")
    assert (again.names, again.inverted_file) == (NAMES, None)


def test_a_change_that_cannot_be_written_is_undone(
    photos: dict[str, LocalFeatures], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = build("folder", photos, tmp_path / "index")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        with pytest.raises(SearchIndexError, match="No space left on device"):
            index.remove(["camera"])
    assert index.names == retrieval.open_index(tmp_path / "index").names == NAMES
    index.remove(["camera"])
    assert len(retrieval.open_index(tmp_path / "index")) == len(NAMES) - 1
