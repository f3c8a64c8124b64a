"""The index on disk and in change: the same answers after every way of getting to the same photos."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

import retrieval
from delf_jax.errors import SearchIndexError
from delf_jax.extraction.head import Head
from delf_jax.features import Domain, LocalFeatures
from delf_jax.files.envelope import encode_envelope
from delf_jax.settings import ExtractionSettings
from delf_jax.store.parts import StoredPhoto
from delf_jax.store.reader import FeatureStore
from delf_jax.store.writer import StoreWriter
from retrieval import asmk
from retrieval.indexing import manifest
from tests.retrieval.indexing.manifest_0_1 import write_as_0_1
from tests.retrieval.sift import sift_features

BACKENDS = ["exact", "scann"]
NAMES = ("graf1", "leuvenA", "box", "coffee", "camera")


@pytest.fixture(scope="module")
def photos(demo_photos: Path) -> dict[str, LocalFeatures]:
    features = {name: sift_features(demo_photos / f"{name}.jpg") for name in (*NAMES, "leuvenB")}
    features["box"] = dataclasses.replace(features["box"], domain=Domain(2, 3, 300.5, 200, 50_000, 1.25))
    return features | {"nothing": LocalFeatures.empty((60, 80), 128)}


def build(photos: dict[str, LocalFeatures], names: tuple[str, ...] = NAMES, backend: str = "exact") -> retrieval.Index:
    if backend == "scann":
        pytest.importorskip("scann")
    return retrieval.Index.build(
        ((name, photos[name]) for name in names),
        backend=backend,
        settings=ExtractionSettings(max_features=300),
        fingerprint="f" * 64,
        threshold=-8.0,
    )


def answer(index: retrieval.Index, query: LocalFeatures) -> list[tuple[str, int, float | None, float]]:
    return [(match.image, match.inliers, match.log10_nfa, match.score) for match in index.search(query).matches]


def spoilt(photo: LocalFeatures) -> LocalFeatures:
    """The photo with four more features, which are no numbers."""
    added = dataclasses.replace(
        photo,
        **{
            name: np.concatenate([getattr(photo, name)[:4], getattr(photo, name)]).copy()
            for name in ("keypoints", "scales", "scores", "descriptors")
        },
    )
    added.descriptors[0], added.descriptors[1, 3], added.keypoints[2, 0], added.scales[3] = (
        np.nan,
        np.inf,
        np.nan,
        np.inf,
    )
    return added


@pytest.mark.parametrize("backend", BACKENDS)
def test_features_that_are_no_numbers_change_no_answer(backend: str, photos: dict[str, LocalFeatures]) -> None:
    index, query = build(photos, backend=backend), photos["leuvenB"]
    expected = answer(index, query)
    assert answer(index, spoilt(query)) == expected
    again = build({name: spoilt(photos[name]) for name in NAMES}, backend=backend)
    assert answer(again, query) == expected
    again.add([("box", spoilt(photos["box"]))])
    assert again.feature_count == index.feature_count
    match, clean = (
        retrieval.match(*pair) for pair in ((spoilt(query), spoilt(photos["leuvenA"])), (query, photos["leuvenA"]))
    )
    assert (match.putative, match.inliers, match.log10_nfa) == (clean.putative, clean.inliers, clean.log10_nfa)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_answers_after_save_and_open(backend: str, photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    index = build(photos, (*NAMES, "nothing"), backend)
    index.save(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "moved")
    again = retrieval.Index.open(tmp_path / "moved")
    assert answer(again, photos["leuvenB"]) == answer(index, photos["leuvenB"])
    assert (again.backend, len(again), again.names) == (backend, 6, index.names)
    assert (again.settings, again.fingerprint, again.threshold) == (index.settings, "f" * 64, -8.0)
    assert (again.feature_count, again.dimension) == (index.feature_count, 128)
    for name in again.names:
        kept, given = again.features(name), photos[name]
        np.testing.assert_array_equal(kept.keypoints, given.keypoints)
        np.testing.assert_array_equal(kept.scales, given.scales)
        np.testing.assert_array_equal(kept.scores, given.scores)
        np.testing.assert_allclose(kept.descriptors, given.descriptors, atol=5e-4)
        assert kept.image_size == given.image_size
        assert kept.domain == given.domain


@pytest.mark.parametrize("backend", BACKENDS)
def test_photos_come_and_go(backend: str, photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    index = build(photos, ("graf1", "box", "coffee", "nothing"), backend)
    index.add([("leuvenA", photos["leuvenA"]), ("camera", photos["camera"])])
    index.remove(["box", "nothing"])
    index.save(tmp_path / "index")
    again = retrieval.Index.open(tmp_path / "index")
    again.add([("box", photos["box"])])
    again = retrieval.Index.open(tmp_path / "index")
    assert again.names == ("graf1", "coffee", "leuvenA", "camera", "box")
    fresh = build(photos, again.names, backend)
    assert answer(again, photos["leuvenB"]) == answer(fresh, photos["leuvenB"])
    assert again.search(photos["leuvenB"]).matches[0].image == "leuvenA"
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_feature_store_brings_its_settings_model_and_head(photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    Head(log10_nfa_threshold=-12.5).save(tmp_path / "head.safetensors")

    def store(name: str, photo: str, fingerprint: str, max_side: int) -> FeatureStore:
        settings = ExtractionSettings(max_side=max_side)
        head = tmp_path / "head.safetensors"
        with StoreWriter(
            tmp_path / name, settings=settings, fingerprint=fingerprint, dimension=128, head=head
        ) as writer:
            writer.append([StoredPhoto(f"/photos/{photo}.jpg", 1, 1, "0" * 64, photos[photo])])
        return FeatureStore.open(tmp_path / name)

    first = store("first", "graf1", "a" * 64, 800)
    index = retrieval.Index.build(first, backend="exact")
    assert (index.settings, index.fingerprint, index.threshold) == (first.settings, "a" * 64, -12.5)
    index.add(store("second", "box", "a" * 64, 800))
    assert index.names == ("/photos/graf1.jpg", "/photos/box.jpg")
    with pytest.raises(SearchIndexError, match="made by another model"):
        index.add(store("third", "coffee", "b" * 64, 800))
    with pytest.raises(SearchIndexError, match="extracted with max_side 640, the index has 800"):
        index.add(store("fourth", "coffee", "a" * 64, 640))
    index.save(tmp_path / "index")
    shutil.rmtree(tmp_path / "first")
    again = retrieval.Index.open(tmp_path / "index")
    assert again.head_path is not None
    assert Head.open(again.head_path).log10_nfa_threshold == -12.5


def test_scann_and_exact_agree(photos: dict[str, LocalFeatures]) -> None:
    exact, scann = (answer(build(photos, NAMES, backend), photos["leuvenB"]) for backend in BACKENDS)
    assert [found[:3] for found in exact] == [found[:3] for found in scann]
    np.testing.assert_allclose([found[3] for found in exact], [found[3] for found in scann], rtol=1e-3)


def test_an_index_of_scann_opens_where_scann_is_not_installed(
    photos: dict[str, LocalFeatures], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, NAMES, "scann").save(tmp_path / "index")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    again = retrieval.Index.open(tmp_path / "index")
    assert again.backend == "exact"
    assert answer(again, photos["leuvenB"]) == answer(build(photos), photos["leuvenB"])


def test_nothing_to_index(photos: dict[str, LocalFeatures]) -> None:
    with pytest.raises(SearchIndexError, match="there are no photos"):
        retrieval.Index.build([])
    with pytest.raises(SearchIndexError, match="none of the 1 photos has a feature"):
        retrieval.Index.build([("black", photos["nothing"])])
    with pytest.raises(SearchIndexError, match="nothing to index"):
        build(photos, ("graf1",)).remove(["graf1"])


def test_photos_that_do_not_fit(photos: dict[str, LocalFeatures]) -> None:
    with pytest.raises(SearchIndexError, match="graf1: comes twice"):
        build(photos, ("graf1", "graf1"))
    short = LocalFeatures(np.zeros((1, 2)), np.ones(1), np.ones(1), np.ones((1, 40)), (9, 9))
    index = build(photos)
    before = answer(index, photos["leuvenB"])
    with pytest.raises(SearchIndexError, match="short: its descriptors have 40 dimensions, the photos before it 128"):
        index.add([("short", short)])
    with pytest.raises(SearchIndexError, match="box2: is not in the index; give the path under which it was extracted"):
        index.remove(["box2"])
    assert answer(index, photos["leuvenB"]) == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_damaged_file_is_noticed(backend: str, photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    build(photos, NAMES, backend).save(whole)
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert len(files) > 7
    for file in files:
        for harm in ("flip", "cut", "lose"):
            path = tmp_path / "harmed"
            shutil.copytree(whole, path)
            data = bytearray((path / file).read_bytes())
            data[len(data) // 2] ^= 4
            if harm == "lose":
                (path / file).unlink()
            else:
                (path / file).write_bytes(data if harm == "flip" else data[: len(data) // 2])
            with pytest.raises(SearchIndexError, match=str(path)) as raised:
                retrieval.Index.open(path)
            assert "\n" not in str(raised.value)
            shutil.rmtree(path)


def test_a_file_that_does_not_belong_is_noticed(photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    build(photos).save(tmp_path / "index")
    (tmp_path / "index" / "backend" / "scann_docids.pkl").write_bytes(b"")
    with pytest.raises(SearchIndexError, match=r"scann_docids.pkl does not belong there"):
        retrieval.Index.open(tmp_path / "index")


def test_what_is_not_an_index(photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    with pytest.raises(SearchIndexError, match="no such index; make it with delf-jax index"):
        retrieval.Index.open(tmp_path / "missing")
    with pytest.raises(SearchIndexError, match="not an index"):
        retrieval.Index.open(tmp_path)
    build(photos).save(tmp_path / "index")
    newer = encode_envelope(manifest.FORMAT, manifest.VERSION + 1, {})
    (tmp_path / "index" / manifest.NAME).write_bytes(newer)
    with pytest.raises(SearchIndexError, match="upgrade delf-jax"):
        retrieval.Index.open(tmp_path / "index")


def test_an_index_of_version_0_1_opens(photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    index = build(photos)
    index.save(tmp_path / "index")
    write_as_0_1(tmp_path / "index")
    assert answer(retrieval.Index.open(tmp_path / "index"), photos["leuvenB"]) == answer(index, photos["leuvenB"])


def test_saving_replaces_an_index_and_nothing_else(photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("mine")
    for path in ("folder", "folder/letter.txt"):
        with pytest.raises(SearchIndexError, match="choose another name"):
            build(photos).save(tmp_path / path)
    assert (tmp_path / "folder" / "letter.txt").read_text() == "mine"
    build(photos).save(tmp_path / "index")
    build(photos, ("box",)).save(tmp_path / "index")
    assert retrieval.Index.open(tmp_path / "index").names == ("box",)


def test_a_failed_save_leaves_the_older_index(
    photos: dict[str, LocalFeatures], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, ("box",)).save(tmp_path / "index")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(SearchIndexError, match=r"No space left on device.*free space"):
        build(photos).save(tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert retrieval.Index.open(tmp_path / "index").names == ("box",)


def kernel_answer(index: retrieval.Index, query: LocalFeatures) -> list[tuple[str, int, float]]:
    found = index.search(query, first_stage="asmk", settings=retrieval.SearchSettings(assignments=2))
    return [(match.image, match.inliers, match.score) for match in found.matches]


def test_the_first_stage_may_be_asmk(photos: dict[str, LocalFeatures], tmp_path: Path) -> None:
    """The same flow: verification after it, saved with the index, and the same answers after changes."""
    codebook = asmk.train([photos[name] for name in ("camera", "leuvenB")], words=64, fingerprint="f" * 64)
    index = build(photos, ("graf1", "box", "coffee", "leuvenA", "nothing"))
    with pytest.raises(SearchIndexError, match="no inverted file"):
        index.search(photos["leuvenB"], first_stage="asmk")
    index.aggregate(codebook)
    best = index.search(photos["leuvenB"], first_stage="asmk").matches[0]
    votes = index.search(photos["leuvenB"]).matches[0]
    assert (best.image, best.inliers, best.accepted) == ("leuvenA", votes.inliers, True)
    assert best.score != votes.score
    unverified = index.search(photos["leuvenB"], first_stage="asmk", verify=0).matches
    assert unverified[0].image == "leuvenA"
    assert [match.score for match in unverified] == sorted((match.score for match in unverified), reverse=True)
    index.save(tmp_path / "index")
    again = retrieval.Index.open(tmp_path / "index")
    assert kernel_answer(again, photos["leuvenB"]) == kernel_answer(index, photos["leuvenB"])
    again.remove(["box"])
    again.add([("camera", photos["camera"])])
    fresh = build(photos, again.names)
    fresh.aggregate(codebook)
    assert kernel_answer(again, photos["leuvenB"]) == kernel_answer(fresh, photos["leuvenB"])
    (tmp_path / "index" / "asmk" / "vectors.npy").write_bytes(b"x")
    with pytest.raises(SearchIndexError, match=r"asmk/vectors\.npy"):
        retrieval.Index.open(tmp_path / "index")
    other = asmk.train([photos["camera"]], words=4, fingerprint="a" * 64)
    with pytest.raises(SearchIndexError, match="another model"):
        fresh.aggregate(other)
